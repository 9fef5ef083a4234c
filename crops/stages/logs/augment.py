"""Logs to candidates: what was clicked, found after a reformulation, watched in the feed, or only considered
by the engine.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import ibis
import ibis.expr.types as ir

from crops import perspectives
from crops.config.augment import AugmentConfig
from crops.engines import session
from crops.engines.warehouse import Warehouse
from crops.errors import InputError
from crops.mining import click, documents, queries, reformulation, testsets
from crops.stages.base import StageReport
from crops.stages.logs import candidates
from crops.tables import artifacts, records

GAP_EDGES_S = (30, 60, 90, 180, 600, 1800)


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """The days of the log, YYYY-MM-DD, oldest first; valid is the end of train."""

    train: tuple[str, ...]
    valid: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """Tables of the session: normalised searches, the same without bots, interacted results, clicks,
    reformulations.
    """

    searches: ir.Table
    people: ir.Table
    touched: ir.Table
    clicks: ir.Table
    reformulations: ir.Table


def run(logs: Path, out: Path, cfg: AugmentConfig, *, engine: str | None = None) -> StageReport:
    """Mines `logs` into candidates, documents, queries, test_ct, test_qr, valid_qr and augment.json under
    `out`.
    """
    with artifacts.replacing(out) as folder:
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


def _augment(house: Warehouse, logs: Path, folder: Path, cfg: AugmentConfig) -> dict:
    searches = _searches(house, logs)
    days = _days(house, searches, logs, cfg)
    mined = _mine(house, logs, searches, cfg)
    events = _events(house, logs, mined, days, cfg)
    texts = house.keep(documents.documents(house.read(logs, records.VIDEOS)), "texts")
    catalogue = house.keep(texts.filter(texts.text != ""), "catalogue")
    known, tally = catalogue.select(video_id="doc_id"), candidates.Tally()
    found = candidates.candidates(house, events, known, tally, max_videos=cfg.stage_videos_per_query)
    rows = {records.CANDIDATES.name: house.write_parts(found, folder, records.CANDIDATES)}
    tables = {
        records.DOCUMENTS: catalogue,
        records.QUERIES: queries.summary(mined.searches, mined.touched, first_test_day=days.test[0]),
        records.TEST_CT: testsets.clicked_pairs(mined.clicks, days=days.test).semi_join(known, "video_id"),
        records.TEST_QR: testsets.reformulated_pairs(mined.reformulations, days=days.test).semi_join(
            known, "video_id"
        ),
        records.VALID_QR: testsets.reformulated_pairs(
            mined.reformulations.filter(lambda t: t.ts.date().cast("string") < days.test[0]), days=days.valid
        ).semi_join(known, "video_id"),
    }
    rows |= {table.name: house.write(expr, folder, table) for table, expr in tables.items()}
    examples = {
        p: _examples(house, cfg, house.read(folder, records.CANDIDATES), catalogue, p)
        for p in perspectives.names(synthetic=False)
    }
    return _summary(
        house,
        cfg,
        days=days,
        mined=mined,
        texts=texts,
        tally=tally,
        examples=examples,
        rows=rows,
        missing={t.name for t in records.logs() if not artifacts.exists(logs, t)},
    )


def _searches(house: Warehouse, logs: Path) -> ir.Table:
    raw = house.read(logs, records.SEARCHES)
    spelled = house.keep(queries.spellings(raw), "spellings")
    return house.keep(queries.normalised(raw, spelled), "normalised")


def _days(house: Warehouse, searches: ir.Table, logs: Path, cfg: AugmentConfig) -> Days:
    days = tuple(row["date"] for row in house.fetch(searches.select("date").distinct().order_by("date")))
    if len(days) <= cfg.test_days:
        found = f"{len(days)} day(s) with searches ({', '.join(days) or 'none'})"
        raise InputError(logs / "searches", f"holds {found}, expected more than test_days = {cfg.test_days}")
    train = days[: -cfg.test_days]
    return Days(train=train, valid=train[-cfg.valid_days :], test=days[-cfg.test_days :])


def _mine(house: Warehouse, logs: Path, searches: ir.Table, cfg: AugmentConfig) -> Mined:
    results = house.read(logs, records.RESULTS)
    touched = house.keep(queries.interacted(results, min_play_s=cfg.min_play_s), "touched")
    people = house.keep(queries.ordinary(searches, max_per_user_day=cfg.max_searches_per_user_day), "people")
    reformulated = reformulation.reformulations(people, touched, window_s=cfg.window_s)
    return Mined(
        searches=searches,
        people=people,
        touched=touched,
        clicks=house.keep(click.clicks(searches, touched), "clicks"),
        reformulations=house.keep(reformulated, "reformulations"),
    )


def _events(house: Warehouse, logs: Path, mined: Mined, days: Days, cfg: AugmentConfig) -> candidates.Events:
    first = days.test[0]
    cuts = candidates.ranges(house, logs, mined.searches)
    asked = mined.people.filter(mined.people.date < first)
    clicked = mined.clicks.filter(mined.clicks.date < first)
    # Both ends of the pair: a first search late on the last training day may lead to a held-out one.
    reformulated = mined.reformulations.filter(mined.reformulations.ts.date().cast("string") < first)
    past = mined.searches.filter(mined.searches.date < first)
    has_feed = artifacts.exists(logs, records.FEED)
    return candidates.Events(
        cuts=cuts,
        whole={
            perspectives.CLICK.name: clicked.drop("date"),
            perspectives.REFORMULATION.name: reformulated.drop("date"),
            **_registered(house, logs, asked, first),
        },
        shown=candidates.shown(house, past, house.read(logs, records.RESULTS), cuts),
        feed=candidates.watched(house, logs, asked, cfg, before=first, cuts=cuts) if has_feed else None,
    )


def _registered(house: Warehouse, logs: Path, asked: ir.Table, before: str) -> dict[str, ir.Table]:
    """By name, the events of the registered perspectives whose table the log has."""
    tables = {table.name: table for table in records.logs()}
    events = {}
    for row in perspectives.every():
        if row.mine and artifacts.exists(logs, table := tables[str(row.table)]):
            rows = house.read(logs, table)
            if "ts" in rows.columns:
                rows = rows.filter(rows.ts < candidates.midnight(before))
            mined = row.mine(asked, rows).select("query", "video_id", "event_id", "ts")
            events[row.name] = house.keep(mined, row.name)
    return events


def _summary(
    house: Warehouse,
    cfg: AugmentConfig,
    *,
    days: Days,
    mined: Mined,
    texts: ir.Table,
    tally: candidates.Tally,
    examples: dict[str, list[dict]],
    rows: dict,
    missing: set[str],
) -> dict:
    named = {p: tally.of(p) for p in perspectives.names(synthetic=False)}
    counts = {"without_text": texts.filter(texts.text == "").count(), "searches": mined.searches.count()}
    counts["ordinary"] = queries.ordinary(
        mined.searches, max_per_user_day=cfg.max_searches_per_user_day
    ).count()
    numbers = {name: int(house.backend.to_pyarrow(expr).as_py()) for name, expr in counts.items()}
    numbers["lost"] = tally.lost
    numbers["crowded"] = numbers["searches"] - numbers["ordinary"]
    return {
        "perspectives": {p: entry | {"examples": examples[p]} for p, entry in named.items()},
        "rows": rows,
        "searches": numbers["searches"],
        "days": {"train": list(days.train), "valid": list(days.valid), "test": list(days.test)},
        "gaps": _gaps(house, mined.searches),
        "window_s": cfg.window_s,
        "notes": _notes(cfg, days=days, missing=missing, named=named, rows=rows, numbers=numbers),
    }


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
    cfg: AugmentConfig, *, days: Days, missing: set[str], named: dict, rows: dict, numbers: dict[str, int]
) -> list[str]:
    empty = [
        (perspectives.FEED, "no view within the window of a search"),
        (perspectives.REFORMULATION, f"none within {cfg.window_s} s on the training days"),
        (perspectives.CLICK, "nobody clicked or liked anything on the training days"),
        *((p, "nothing was mined on the training days") for p in perspectives.every() if p.mine),
    ]
    notes = (
        *((True, f"{table}: no such table") for table in sorted(missing)),
        *(
            (not named[p.name]["candidates"] and p.table not in missing, f"{p.name}: {why}")
            for p, why in empty
        ),
        (not rows["test_ct"], "test_ct is empty: no clicks on the held-out days"),
        (not rows["test_qr"], "test_qr is empty: no reformulations on the held-out days"),
        (not rows["valid_qr"], "valid_qr is empty: no reformulations on the last training day"),
        (len(days.train) <= cfg.valid_days, "all training days are validation days: nothing older is left"),
        (
            numbers["without_text"],
            f"documents: {numbers['without_text']} video(s) without any text are left out",
        ),
        (numbers["lost"], f"candidates: {numbers['lost']} of videos without a document are left out"),
        (
            numbers["crowded"],
            f"{numbers['crowded']} searches of users with more than {cfg.max_searches_per_user_day} "
            "searches on the day are left out of reformulation and feed",
        ),
    )
    return [note for applies, note in notes if applies]
