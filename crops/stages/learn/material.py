"""What θ learns from: the mined and the judged pairs of the training days, from the engine. Of a log with
more of them than fit into memory it is that of a part of the queries, each with all its pairs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import ibis.expr.types as ir
import pandas as pd

from crops import perspectives
from crops.config.discriminate import DiscriminateConfig
from crops.discriminator import chance, pairs
from crops.engines.warehouse import Warehouse
from crops.errors import InputError
from crops.mining import queries
from crops.tables import artifacts, records

# Pairs with a long play below which clicks, which are more, are learnt from instead.
FEW_LONG_PLAYS = 30
# Pairs of either kind that are read: 64 bytes each beside their texts. What is drawn from them is far less.
MOST_PAIRS = 2_000_000


@dataclass(frozen=True, slots=True)
class Material:
    """Pairs that may be learnt from, sorted.

    logs    where they are from
    judged  (query, doc_id, relevant bool)
    mined   (query, doc_id, perspective, support)
    usual   of each gated perspective, counted over the whole log
    notes   what the log does not hold of what they are best made from
    """

    logs: Path
    judged: pd.DataFrame
    mined: pd.DataFrame
    usual: Mapping[str, chance.Marginals]
    notes: list[str]


def drawn(
    house: Warehouse, logs: Path, candidates: Path, cfg: DiscriminateConfig, *, most: int = MOST_PAIRS
) -> Material:
    """Of both kinds of pairs all, or those of as many queries as bring about `most`."""
    certain, notes = judged(house, logs, candidates, long_play_s=cfg.long_play_s)
    mined = house.keep(learnable(house, candidates), "mined")
    counts = [house.fetch(rows.agg(rows=rows.count()))[0]["rows"] for rows in (certain, mined)]
    share = min(1.0, most / max(1, *counts))
    if share < 1:
        notes.append(f"θ: it learns from {share:.1%} of the queries, which bring {most:,} pairs")

    def some(rows: ir.Table) -> ir.Table:
        if share == 1:
            return rows
        place = rows["query"].concat(str(cfg.seed)).hash().abs() % 1_000_000
        return rows.filter(place < round(share * 1_000_000))

    order = ["query", "doc_id", "perspective", "later_query"]
    return Material(
        logs,
        _frame(house, some(certain).order_by(["query", "doc_id"])),
        _frame(house, some(mined).order_by(order).select("query", "doc_id", "perspective", "support")),
        {name: _marginals(house, mined, some(mined), name) for name in perspectives.names(gated=True)},
        notes,
    )


def _marginals(house: Warehouse, mined: ir.Table, read: ir.Table, name: str) -> chance.Marginals:
    """Of one perspective, for the queries that are read and every video."""
    whole, own = (rows.filter(rows["perspective"] == name) for rows in (mined, read))
    total = house.fetch(whole.agg(events=whole["support"].sum()))[0]["events"] or 0
    return chance.Marginals(_events(house, own, "query"), _events(house, whole, "doc_id"), max(1, int(total)))


def _events(house: Warehouse, rows: ir.Table, key: str) -> dict[str, int]:
    counts = _frame(house, rows.group_by(key).agg(events=rows["support"].sum()))
    return dict(zip(counts[key], counts["events"].astype(int).tolist(), strict=True))


def judged(
    house: Warehouse, logs: Path, candidates: Path, *, long_play_s: float
) -> tuple[ir.Table, list[str]]:
    """(query, doc_id, relevant bool) of the training days only, see `pairs.judged`, that may be learnt from;
    and in words what the log does not hold of what they are best made from.
    """
    last = artifacts.read_json(candidates / "augment.json")["days"]["train"][-1]
    raw = house.read(logs, records.SEARCHES)
    searches = house.keep(
        queries.normalised(raw, house.keep(queries.spellings(raw), "spellings")), "normalised"
    )
    searches = searches.filter(searches.date <= last).select("search_id", "query")
    videos = house.read(logs, records.VIDEOS).select("video_id", "duration_s")
    shown = house.read(logs, records.RESULTS)

    def certain(name: str, *, plays: bool) -> tuple[ir.Table, int, int]:
        """All such pairs, how many there are and how many of them are relevant."""
        expression = pairs.judged(searches, shown, videos, long_play_s=long_play_s, plays=plays)
        rows = house.keep(expression, name)
        counts = house.fetch(rows.agg(pairs=rows.count(), relevant=rows["relevant"].sum()))[0]
        return rows, counts["pairs"], counts["relevant"] or 0

    notes = list[str]()
    rows, count, relevant = certain("judged", plays=True)
    if relevant < FEW_LONG_PLAYS:
        touched = certain("judged_by_clicks", plays=False)
        if touched[-1] > relevant:
            notes.append(
                f"θ: {relevant or 'no'} long play(s) on the training days; it learns from clicks and likes"
            )
            rows, count, relevant = touched
    if not relevant:
        raise InputError(
            logs / "results",
            f"nothing was clicked, liked or played for {long_play_s:g} s on the training days, until {last}: "
            "there is nothing to learn from; hand in days with clicks (`clicked`, `liked`, or `play_s`), or "
            "hold fewer days out (augment.test_days)",
        )
    if relevant == count:
        notes.append(
            "θ: no skipped video above a click (no impressions in the log, or no positions); its negatives "
            "are random documents, so it tells topics apart and little more"
        )
    free = pairs.learnable(rows, *(house.read(candidates, t) for t in (records.DOCUMENTS, records.VALID_QR)))
    return house.keep(free, "judged_free"), notes


def _frame(house: Warehouse, expr: ir.Table) -> pd.DataFrame:
    frame: pd.DataFrame = house.backend.to_pyarrow(expr).to_pandas()
    return frame


def learnable(house: Warehouse, candidates: Path) -> ir.Table:
    """The mined pairs that may be learnt from, see `pairs.learnable`."""
    tables = (records.CANDIDATES, records.DOCUMENTS, records.VALID_QR)
    return pairs.learnable(*(house.read(candidates, table) for table in tables))
