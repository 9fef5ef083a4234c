"""Logs to candidates: what was clicked, found after a reformulation, watched in the feed, or only considered
by the engine.
"""

import shutil
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import ibis
import ibis.expr.types as ir

from crops import perspectives
from crops.config.augment import AugmentConfig
from crops.engines import session
from crops.engines.warehouse import Warehouse
from crops.errors import InputError
from crops.mining import click, documents, evidence, queries, reformulation, testsets, windows
from crops.stages.base import StageReport
from crops.stages.logs import candidates
from crops.tables import artifacts, records

GAP_EDGES_S = (30, 60, 90, 180, 600, 1800)
# A perspective that brings less than this per search is there in name only [ours]; what to look at then.
LEAST_PER_SEARCH = 0.02
LOOK_AT = {
    perspectives.FEED.name: "do the user ids and the clocks of both logs agree?",
    perspectives.REFORMULATION.name: "is user_id one person's, and ts the time of the search?",
    perspectives.CLICK.name: "does every click of a search stand in results?",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """The days of the log, YYYY-MM-DD, oldest first; valid is the end of train."""

    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def end(self) -> str:
        """The first day that no candidate comes from; the day after the log where none is held out."""
        return self.test[0] if self.test else str(date.fromisoformat(self.train[-1]) + timedelta(days=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """Tables of the session: normalised searches, the same without bots, interacted results, clicks,
    reformulations; and the windows of these and of the feed that were learnt, by band, seconds, the feed's
    also as (query, window_s).
    """

    searches: ir.Table
    people: ir.Table
    touched: ir.Table
    clicks: ir.Table
    reformulations: ir.Table
    windows: dict[str, int]
    feed_windows: dict[str, int]
    of_query: ir.Table | None


def run(logs: Path, out: Path, cfg: AugmentConfig, *, engine: str | None = None) -> StageReport:
    """Mines `logs` into candidates, documents, queries, test_ct, test_qr, valid_qr and augment.json under
    `out`.
    """
    with artifacts.replacing(out, inputs=[logs]) as folder:
        scratch = folder / ".scratch"
        scratch.mkdir()
        with session.opened(
            engine or cfg.engine,
            scratch=scratch,
            threads=cfg.threads,
            memory_gb=cfg.memory_gb,
            spark_master=cfg.spark_master,
        ) as house:
            summary = _augment(house, logs, folder, cfg)
        shutil.rmtree(scratch)
        artifacts.write_json(folder / "augment.json", summary)
    counts = {f"{name}_candidates": entry["candidates"] for name, entry in summary["perspectives"].items()}
    return StageReport(numbers={**counts, **summary["rows"]}, notes=tuple(summary["notes"]))


def whole(logs: Path, out: Path, cfg: AugmentConfig) -> StageReport:
    """`run` of all days: nothing is held out, and test and validation sets are empty."""
    return run(logs, out, cfg.model_copy(update={"test_days": 0, "valid_days": 0}))


def _augment(house: Warehouse, logs: Path, folder: Path, cfg: AugmentConfig) -> dict:
    searches = _searches(house, logs)
    days = _days(house, searches, logs, cfg)
    mined = _mine(house, logs, searches, days, cfg)
    events = _events(house, logs, mined, days, cfg)
    texts = house.keep(documents.documents(house.read(logs, records.VIDEOS)), "texts")
    catalogue = house.keep(texts.filter(texts.text != ""), "catalogue")
    with_text, tally = catalogue.select(video_id="doc_id"), candidates.Tally()
    parts = candidates.candidates(house, events, with_text, tally, max_videos=cfg.stage_videos_per_query)
    rows = {records.CANDIDATES.name: house.write_parts(parts, folder, records.CANDIDATES)}
    tables = {
        records.DOCUMENTS: catalogue,
        records.QUERIES: queries.summary(mined.searches, mined.touched, first_test_day=days.end),
    }
    pairs_of = {
        records.TEST_CT: testsets.clicked_pairs(mined.clicks, days=days.test),
        records.TEST_QR: testsets.reformulated_pairs(mined.reformulations, days=days.test),
        records.VALID_QR: testsets.reformulated_pairs(_before(mined, days), days=days.valid),
    }
    if cfg.evidence:
        pairs_of[records.EVIDENCE] = _evidence(house, logs, events, mined, days)
    tables |= {table: pairs.semi_join(with_text, "video_id") for table, pairs in pairs_of.items()}
    rows |= {table.name: house.write(expr, folder, table) for table, expr in tables.items()}
    missing = {t.name for t in records.logs() if not artifacts.exists(logs, t)}
    counts = {"without_text": texts.filter(texts.text == ""), "searches": searches, "ordinary": mined.people}
    numbers = {name: int(house.backend.to_pyarrow(rows.count()).as_py()) for name, rows in counts.items()}
    pairs = house.read(folder, records.CANDIDATES)
    named: dict[str, dict] = {
        p: tally.of(p) | {"examples": _examples(house, cfg, pairs, catalogue, p)}
        for p in perspectives.names(synthetic=False)
    }
    return {
        "perspectives": named,
        "rows": rows,
        "searches": numbers["searches"],
        "days": {name: list(getattr(days, name)) for name in ("train", "valid", "test")},
        "gaps": _gaps(house, searches),
        "window_s": cfg.window_s,
        **({"windows_s": mined.windows} if mined.windows else {}),
        **({"feed_windows_s": mined.feed_windows} if mined.feed_windows else {}),
        "notes": _notes(cfg, days, missing, named, rows, numbers | {"lost": tally.lost}),
    }


def _before(mined: Mined, days: Days) -> ir.Table:
    """Reformulations whose later search is before the held-out days too: a first search late on the last
    training day may lead to a held-out one.
    """
    return mined.reformulations.filter(lambda t: t.ts.date().cast("string") < days.end)


def _searches(house: Warehouse, logs: Path) -> ir.Table:
    raw = house.read(logs, records.SEARCHES)
    spelled = house.keep(queries.spellings(raw), "spellings")
    return house.keep(queries.normalised(raw, spelled), "normalised")


def _days(house: Warehouse, searches: ir.Table, logs: Path, cfg: AugmentConfig) -> Days:
    days = tuple(row["date"] for row in house.fetch(searches.select("date").distinct().order_by("date")))
    if len(days) <= cfg.test_days:
        content = f"{len(days)} day(s) with searches ({', '.join(days) or 'none'})"
        raise InputError(
            logs / "searches", f"holds {content}, expected more than test_days = {cfg.test_days}"
        )
    split = len(days) - cfg.test_days
    train = days[:split]
    return Days(train=train, valid=train[max(0, split - cfg.valid_days) :], test=days[split:])


def _mine(house: Warehouse, logs: Path, searches: ir.Table, days: Days, cfg: AugmentConfig) -> Mined:
    results = house.read(logs, records.RESULTS)
    touched = house.keep(queries.interacted(results, min_play_s=cfg.min_play_s), "touched")
    people = house.keep(queries.ordinary(searches, max_per_user_day=cfg.max_searches_per_user_day), "people")
    learnt, of_query = _windows(house, people, days, cfg) if cfg.learnt_windows else ({}, None)
    longest = max(learnt.values(), default=cfg.window_s)
    reformulated = reformulation.reformulations(people, touched, window_s=longest, windows=of_query)
    clicks = house.keep(click.clicks(searches if cfg.bots_click else people, touched), "clicks")
    feed_learnt, feed_of_query = (
        _feed_windows(house, logs, people, clicks, days, cfg)
        if cfg.learnt_feed_windows and artifacts.exists(logs, records.FEED)
        else ({}, None)
    )
    return Mined(
        searches=searches,
        people=people,
        touched=touched,
        clicks=clicks,
        reformulations=house.keep(reformulated, "reformulations"),
        windows=learnt,
        feed_windows=feed_learnt,
        of_query=feed_of_query,
    )


def _windows(
    house: Warehouse, people: ir.Table, days: Days, cfg: AugmentConfig
) -> tuple[dict[str, int], ir.Table]:
    """Seconds per band, learnt on the training days, and (query, window_s)."""
    past = people.filter(people.date < days.end)
    bands = house.keep(windows.banded(past), "bands")
    rows = house.backend.to_pyarrow(windows.gaps(past, bands))
    names, gaps = rows["band"].to_numpy(zero_copy_only=False), rows["gap_s"].to_numpy()
    of_band = {name: gaps[names == name] for name in windows.BANDS}
    learnt = windows.learnt(of_band, default_s=cfg.window_s)
    return learnt, bands.select("query", window_s=bands.band.cases(*learnt.items()).cast("int64"))


def _feed_windows(
    house: Warehouse, logs: Path, people: ir.Table, clicks: ir.Table, days: Days, cfg: AugmentConfig
) -> tuple[dict[str, int], ir.Table]:
    """As `_windows`, of the feed's views."""
    past, clicked = (rows.filter(rows.date < days.end) for rows in (people, clicks))
    bands = house.keep(windows.banded(past), "feed_bands")
    views = candidates.viewed(house, logs, cfg, before=days.end)
    rows = house.backend.to_pyarrow(windows.views_near(past, views, clicked, bands))
    names, gaps, matches = (rows[c].to_numpy(zero_copy_only=False) for c in ("band", "gap_s", "matches"))
    of_band = {name: (gaps[names == name], matches[names == name]) for name in windows.BANDS}
    learnt = windows.learnt_of_views(of_band, default_s=cfg.feed_half_window_s)
    return learnt, bands.select("query", window_s=bands.band.cases(*learnt.items()).cast("int64"))


def _events(house: Warehouse, logs: Path, mined: Mined, days: Days, cfg: AugmentConfig) -> candidates.Events:
    first = days.end
    cuts = candidates.ranges(house, logs, mined.searches)
    searches = mined.people.filter(mined.people.date < first)
    clicked = mined.clicks.filter(mined.clicks.date < first)
    reformulated = _before(mined, days)
    past = mined.searches.filter(mined.searches.date < first)
    has_feed = artifacts.exists(logs, records.FEED)
    return candidates.Events(
        cuts=cuts,
        whole={
            perspectives.CLICK.name: clicked.drop("date"),
            perspectives.REFORMULATION.name: reformulated.drop("date"),
            **_registered(house, logs, searches, first),
        },
        shown=candidates.shown(house, past, house.read(logs, records.RESULTS), cuts),
        feed=candidates.watched(
            house,
            logs,
            searches,
            cfg,
            before=first,
            cuts=cuts,
            windows=mined.of_query,
            longest_s=max(mined.feed_windows.values(), default=None),
        )
        if has_feed
        else None,
    )


def _evidence(house: Warehouse, logs: Path, events: candidates.Events, mined: Mined, days: Days) -> ir.Table:
    """Of the training days, as all that is learnt from."""
    past = mined.searches.filter(mined.searches.date < days.end)
    tables = (house.read(logs, table) for table in (records.RESULTS, records.VIDEOS))
    seen = house.keep(evidence.shown(past, *tables), "evidence_shown")
    chances = evidence.propensities(house.fetch(evidence.neighbours(seen)))
    touched = [
        rows.select("query", "video_id", "ts") for rows in (*events.whole.values(), *(events.feed or ()))
    ]
    return evidence.collected(seen, touched, chances)


def _registered(house: Warehouse, logs: Path, searches: ir.Table, before: str) -> dict[str, ir.Table]:
    """By name, the events of the registered perspectives whose table the log has."""
    tables = {table.name: table for table in records.logs()}
    events = {}
    for row in perspectives.registered():
        if row.mine and artifacts.exists(logs, table := tables[str(row.table)]):
            rows = house.read(logs, table)
            if "ts" in rows.columns:
                rows = rows.filter(rows.ts < candidates.midnight(before))
            mined = row.mine(searches, rows).select("query", "video_id", "event_id", "ts")
            events[row.name] = house.keep(mined, row.name)
    return events


def _examples(
    house: Warehouse, cfg: AugmentConfig, pairs: ir.Table, catalogue: ir.Table, perspective: str
) -> list[dict]:
    """A fixed random draw (by MD5), one pair per query, so that neither head queries nor one need fill the
    list.
    """
    pairs = pairs.filter(pairs.perspective == perspective).mutate(
        draw=lambda t: (t["query"] + "\t" + t.video_id).hexdigest("md5")
    )
    order = ibis.window(group_by="query", order_by=["draw", "later_query"])
    single = pairs.mutate(rank=ibis.row_number().over(order)).filter(lambda t: t["rank"] == 0)
    with_text = single.join(catalogue.select(video_id="doc_id", text="text"), "video_id")
    drawn = with_text.order_by(["draw", "query", "video_id"]).limit(cfg.examples)
    return house.fetch(drawn.select("query", "later_query", "video_id", "text", "support"))


def _gaps(house: Warehouse, searches: ir.Table) -> dict | None:
    """Consecutive searches of a user: what the log says about the window. None where no user searched
    twice.
    """
    row = house.fetch(queries.gap_summary(queries.gaps(searches), GAP_EDGES_S))[0]
    if not row["gaps"]:
        return None
    within = {str(edge): row[f"within_{edge}_s"] for edge in GAP_EDGES_S}
    shares = {edge: count / row["gaps"] for edge, count in within.items()}
    return {"count": row["gaps"], "median_s": row["median_s"], "within_s": within, "share_within_s": shares}


def _notes(
    cfg: AugmentConfig, days: Days, missing: set[str], named: dict, rows: dict, numbers: dict[str, int]
) -> list[str]:
    limit, crowded = cfg.max_searches_per_user_day, numbers["searches"] - numbers["ordinary"]
    empty = [
        (perspectives.FEED, "no view within the window of a search"),
        (perspectives.REFORMULATION, f"none within {cfg.window_s} s on the training days"),
        (perspectives.CLICK, "nobody clicked or liked anything on the training days"),
        *((p, "nothing was mined on the training days") for p in perspectives.registered()),
    ]
    supports = {p.name: named[p.name]["support"] for p, _ in empty if p.table not in missing}
    few = {name: n for name, n in supports.items() if 0 < n < LEAST_PER_SEARCH * numbers["searches"]}
    notes = {
        **{f"{table}: no such table": True for table in sorted(missing)},
        **{f"{p.name}: {why}": not (p.table in missing or named[p.name]["candidates"]) for p, why in empty},
        **{
            f"{name}: next to nothing, {n:,} from {numbers['searches']:,} searches; "
            f"{LOOK_AT.get(name, 'does its table belong to these searches?')}": True
            for name, n in few.items()
        },
        "test_ct is empty: no clicks on the held-out days": not rows["test_ct"],
        "test_qr is empty: no reformulations on the held-out days": not rows["test_qr"],
        "valid_qr is empty: no reformulations on the last training day": not rows["valid_qr"],
        "all training days are validation days: nothing older is left": len(days.train) <= cfg.valid_days,
        f"documents: {numbers['without_text']} video(s) without any text are left out": numbers[
            "without_text"
        ],
        f"candidates: {numbers['lost']} of videos without a document are left out": numbers["lost"],
        f"{crowded} searches of users with more than {limit} searches on the day are left out of "
        "reformulation and feed": crowded,
    }
    return [note for note, applies in notes.items() if applies]
