"""Logs to per-user sums by day, and those to moments: Ibis expressions, run by whatever engine is open.

Days add up to the period and users add up to an arm, so a day is computed once and a look at an old
experiment is cheap.
"""

from datetime import datetime
from typing import Any

import ibis
import ibis.expr.types as ir

from crops import perspectives
from crops.arms import ARMS
from crops.experiment.metrics import METRICS, Metric
from crops.experiment.moments import COLUMNS, PAIRS, Arms, Moments, nobody
from crops.long_play import is_long
from crops.tables.records import COUNTS

Row = dict[str, Any]


def within(searches: ir.Table, *, since: datetime, until: datetime | None) -> ir.Table:
    """in, out: searches(ts, arm, ...): those with an arm from `since` to `until` (exclusive), and those
    without from before.

    Users without an arm during the experiment are not in it; an arm from before belongs to another
    experiment.
    """
    start = ibis.literal(since)
    during = searches.arm.notnull() & (searches.ts >= start)
    if until is not None:
        during = during & (searches.ts < ibis.literal(until))
    return searches.filter(during | (searches.arm.isnull() & (searches.ts < start)))


def bands(searches: ir.Table) -> ir.Table:
    """in: searches(date, query); out: (date, query, band): head holds the queries that make up the day's most
    searched third of searches, torso the next, tail the rest [ours]. Days stand alone, so that yesterday's
    bands never change.
    """
    counted = searches.group_by("date", "query").agg(n=searches.count())
    order = ibis.window(
        group_by="date", order_by=[counted.n.desc(), counted["query"].asc()], preceding=None, following=0
    )
    placed = counted.mutate(
        up_to=counted.n.sum().over(order), total=counted.n.sum().over(ibis.window(group_by="date"))
    )
    before = (placed.up_to - placed.n) * 3
    band = ibis.cases((before < placed.total, "head"), (before < 2 * placed.total, "torso"), else_="tail")
    return placed.select("date", "query", band=band)


def shown(results: ir.Table, videos: ir.Table | None) -> ir.Table:
    """in: results(search_id, video_id, stage, clicked, play_s), videos(video_id, duration_s); out:
    (search_id, impressions, clicks, long_plays). `videos` None: no duration is known.
    """
    exposed = results.filter(results.stage == "exposed").select("search_id", "video_id", "clicked", "play_s")
    if videos is None:
        rows = exposed.mutate(duration_s=ibis.null("float32"))
    else:
        rows = exposed.left_join(videos.select("video_id", "duration_s"), "video_id")
    long_play = is_long(rows.play_s, rows.duration_s).fill_null(False)
    return rows.group_by("search_id").agg(
        impressions=rows.count(),
        clicks=rows.clicked.cast("int64").sum(),
        long_plays=long_play.cast("int64").sum(),
    )


def user_days(
    searches: ir.Table, exposures: ir.Table, reformulated: ir.Table, *, settled_until: datetime
) -> ir.Table:
    """in: searches(search_id, user_id, ts, date, query, arm), `shown`, (search_id) of searches that were
    reformulated; out: records.USER_DAYS with `date`. A search after `settled_until` may yet be reformulated,
    so RQR does not count it.
    """
    again = reformulated.select("search_id").distinct().mutate(again=ibis.literal(1))
    rows = searches.left_join(again, "search_id").select(*searches.columns, "again")
    rows = rows.left_join(exposures, "search_id").select(*rows.columns, "impressions", "clicks", "long_plays")
    rows = rows.join(bands(searches), ["date", "query"]).select(*rows.columns, "band")
    settled = (rows.ts <= ibis.literal(settled_until)).cast("int64")
    values = {
        "searches": rows.count(),
        "settled": settled.sum(),
        "reformulated": (settled * rows.again.fill_null(0)).sum(),
        **{name: rows[name].fill_null(0).sum() for name in ("impressions", "clicks", "long_plays")},
    }
    return rows.group_by("date", "user_id", "arm", "band").agg(
        **{name: values[name].cast("int64") for name in COUNTS}
    )


def path_days(searches: ir.Table, results: ir.Table) -> ir.Table:
    """in: searches(search_id, date, arm), results(search_id, stage, paths); out: records.PATH_DAYS with
    `date`.

    What was exposed had been ranked. Items whose paths are unknown are left out of both counts.
    """
    with_paths = results.filter(results.paths.notnull() & results.stage.isin(perspectives.STAGES[:2]))
    inside = searches.filter(searches.arm.notnull()).select("search_id", "date", "arm")
    rows = inside.join(with_paths.select("search_id", "stage", "paths"), "search_id").select(
        "date", "arm", "stage", "paths"
    )
    every = rows.select("date", "arm", "stage", path=ibis.null("string"))
    each = rows.select("date", "arm", "stage", path=rows.paths.unnest())
    both = ibis.union(every, each)
    return both.group_by("date", "arm", "path").agg(
        ranked=both.count().cast("int64"), shown=(both.stage == "exposed").cast("int64").sum().cast("int64")
    )


def people(days: ir.Table) -> ir.Table:
    """in: USER_DAYS; out: (user_id, arm, arms, returning): a row per user of the experiment; `arms` above 1:
    seen in both.
    """
    inside = days.filter(days.arm.notnull())
    before = days.filter(days.arm.isnull()).select("user_id").distinct().mutate(before=ibis.literal(1))
    arms = inside.group_by("user_id").agg(arm=inside.arm.min(), arms=inside.arm.nunique())
    rows = arms.left_join(before, "user_id").select("user_id", "arm", "arms", "before")
    return rows.select("user_id", "arm", "arms", returning=rows.before.notnull())


def moments(days: ir.Table, users: ir.Table) -> ir.Table:
    """in: USER_DAYS (all or some of its days and bands), (user_id, arm) of the users to count; out: a row per
    arm with, for every metric, what `arms_of` reads. Only users with a row of their arm in `days` count.
    """
    names = [name for name in COUNTS if name != "searches"]

    def per_user(rows: ir.Table, suffix: str) -> ir.Table:
        return rows.group_by("user_id").agg(**{f"{n}{suffix}": rows[n].sum() for n in names})

    inside = per_user(days.filter(days.arm.notnull()), "")
    before = per_user(days.filter(days.arm.isnull()), "_pre")
    rows = users.select("user_id", "arm").join(inside, "user_id").select("arm", "user_id", *names)
    rows = rows.left_join(before, "user_id").select(*rows.columns, *before.columns[1:])
    wide = rows.select(
        "arm",
        **{n: rows[n].cast("float64").fill_null(0.0) for n in rows.columns if n not in ("arm", "user_id")},
    )
    aggregates = {"users": wide.count()}
    for metric in METRICS.values():
        x, y = metric.numerator, metric.denominator
        columns = dict(zip(COLUMNS, (wide[name] for name in (x, y, f"{x}_pre", f"{y}_pre")), strict=True))
        aggregates |= {f"{metric.name}_{name}": column.sum() for name, column in columns.items()}
        aggregates |= {f"{metric.name}_{a}_{b}": (columns[a] * columns[b]).sum() for a, b in PAIRS}
    return wide.group_by("arm").agg(**aggregates)


def arms_of(rows: list[Row], metric: Metric, *, in_both: int = 0) -> Arms:
    """The rows of `moments` as values; an arm without a row has no users."""
    by_arm = dict.fromkeys(ARMS, nobody()) | {row["arm"]: _moments(row, metric.name) for row in rows}
    return Arms(**by_arm, in_both=in_both)


def _moments(row: Row, name: str) -> Moments:
    return Moments(
        users=int(row["users"]),
        sums={c: float(row[f"{name}_{c}"]) for c in COLUMNS},
        products={(a, b): float(row[f"{name}_{a}_{b}"]) for a, b in PAIRS},
    )
