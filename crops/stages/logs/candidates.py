"""Mined events to candidates, in parts of the log that fit into memory one at a time."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import ibis
import ibis.expr.types as ir

from crops import perspectives
from crops.config.augment import AugmentConfig
from crops.engines.warehouse import Warehouse, conform
from crops.mining import feed, parts, stage_samples
from crops.tables import artifacts, records

COUNTED = ("candidates", "queries", "support")


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """What training days say of queries and videos.

    whole: by perspective, the events of all queries. shown (the engine's stages) and feed, which are large:
    one table per range of queries. There are len(cuts) + 1 ranges: range i ends before cuts[i], where the
    next one begins. feed: None if the log has none.
    """

    cuts: tuple[str, ...]
    whole: dict[str, ir.Table]
    shown: list[ir.Table]
    feed: list[ir.Table] | None


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts per perspective of candidates, queries and support, and how many candidates are of videos
    without a text.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    lost: int = 0

    def add(self, rows: list[dict]) -> None:
        """Adds the counts of one range of queries; no query is in two of them."""
        for row in rows:
            self.counts.update({(row["perspective"], name): int(row[name]) for name in COUNTED})
            self.lost += int(row["lost"])

    def of(self, perspective: str) -> dict[str, int]:
        """candidates, queries and support of one perspective."""
        return {name: self.counts[perspective, name] for name in COUNTED}


def ranges(house: Warehouse, logs: Path, searches: ir.Table) -> tuple[str, ...]:
    """The queries at which the log is cut, ascending; none where all of it fits into memory at once."""
    sizes = [
        artifacts.rows(logs, table)
        for table in (records.RESULTS, records.FEED)
        if artifacts.exists(logs, table)
    ]
    number = house.parts(max(sizes))
    if number == 1:
        return ()
    return tuple(row["query"] for row in house.fetch(parts.cuts(searches, parts=number).order_by("part")))


def shown(house: Warehouse, searches: ir.Table, results: ir.Table, cuts: tuple[str, ...]) -> list[ir.Table]:
    """in: searches(search_id, ts, query) of the training days, results. out: stage samples per range of
    queries.
    """
    placed = searches.select("search_id", "ts", "query", part=parts.part_of(searches["query"], cuts))
    samples = stage_samples.stage_samples(placed, results)
    return house.split([samples], "shown", parts=len(cuts) + 1)


def midnight(day: str) -> ir.TimestampValue:
    """When the UTC day YYYY-MM-DD begins."""
    return ibis.timestamp(f"{day}T00:00:00", timezone="UTC")


def viewed(house: Warehouse, logs: Path, cfg: AugmentConfig, *, before: str) -> ir.Table:
    """The feed's views(user_id, video_id, ts) with an interaction, before the day `before`."""
    views = feed.feed_views(house.read(logs, records.FEED), min_play_s=cfg.min_play_s)
    return views.filter(views.ts < midnight(before))


def watched(
    house: Warehouse,
    logs: Path,
    searches: ir.Table,
    cfg: AugmentConfig,
    *,
    before: str,
    cuts: tuple[str, ...],
    windows: ir.Table | None = None,
    longest_s: int | None = None,
) -> list[ir.Table]:
    """in: searches(user_id, ts, date, query) before the day `before`; windows: see feed.around_searches, none
    above `longest_s`. out: feed events per range of queries.

    Training days on both sides: a search late on the last one must not see views of a held-out day. User by
    user, because a window is one user's; then cut by query, because a candidate is one query's.
    """
    number = house.parts(artifacts.rows(logs, records.FEED))

    def per_user(rows: ir.Table, name: str) -> list[ir.Table]:
        return house.split([rows.mutate(part=parts.part_of_user(rows.user_id, number))], name, parts=number)

    views = viewed(house, logs, cfg, before=before)
    users = feed.users_of_query(searches, max_users=cfg.feed_users_per_query)
    shares = zip(
        per_user(searches.select("user_id", "query", "ts"), "feed_asked"),
        per_user(users, "feed_users"),
        per_user(views, "feed_views"),
        strict=True,
    )
    limits = {"half_window_s": longest_s or cfg.feed_half_window_s, "max_videos": cfg.feed_videos_per_user}
    rows_of = [feed.around_searches(*share, **limits, windows=windows) for share in shares]
    # Each event is one row (a user, query and video occur together once): its id has done its work.
    parted = [one.drop("event_id").mutate(part=parts.part_of(one["query"], cuts)) for one in rows_of]
    return house.split(parted, "feed_events", parts=len(cuts) + 1)


def candidates(
    house: Warehouse, events: Events, catalogue: ir.Table, tally: Tally, *, max_videos: int
) -> Iterator[ir.Table]:
    """Yields the candidates of each range of queries, of videos in catalogue(video_id); counts them into
    `tally`.

    What is yielded is a table of the session until the next one is asked for.
    """
    for part in range(len(events.cuts) + 1):
        mined = house.keep(_of_range(events, part, max_videos=max_videos), f"candidates_{part}")
        tally.add(house.fetch(_counted(mined, catalogue)))
        yield mined.semi_join(catalogue, "video_id")
        house.drop(mined)


def _of_range(events: Events, part: int, *, max_videos: int) -> ir.Table:
    def mine(rows: ir.Table) -> ir.Table:
        lower = rows.filter(rows["query"] >= events.cuts[part - 1]) if part else rows
        return lower.filter(lower["query"] < events.cuts[part]) if part < len(events.cuts) else lower

    rows_of = [
        *(stage_samples.add_up(mine(rows), perspective=name) for name, rows in events.whole.items()),
        stage_samples.add_up_stages(events.shown[part], max_videos=max_videos),
    ]
    if events.feed is not None:
        rows_of.append(stage_samples.add_up(events.feed[part], perspective=perspectives.FEED.name, once=True))
    return ibis.union(*[conform(one, records.CANDIDATES) for one in rows_of])


def _counted(mined: ir.Table, catalogue: ir.Table) -> ir.Table:
    marked = mined.left_join(catalogue.mutate(known=1), "video_id").select(
        "perspective", "query", "support", "known"
    )
    return marked.group_by("perspective").agg(
        candidates=marked.count(),
        queries=marked["query"].nunique(),
        support=marked.support.sum(),
        lost=marked.known.isnull().sum(),
    )
