"""What θ is asked by `discriminate`: rows by query from the engine, a piece at a time, and its answers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow as pa

from crops import perspectives, progress
from crops.config.discriminate import DiscriminateConfig
from crops.discriminator import chance, joined, pairs
from crops.engines.warehouse import Warehouse, conform
from crops.stages.learn import material, score
from crops.stages.learn import theta as thetas
from crops.tables import pieces, records

Embed = Callable[[list[str]], np.ndarray]
# The held-out reformulations among the rows: what is asked of them is answered by the rows of their query.
TEST = "(test)"  # no name of a perspective
# Rows of `scored` with what decides: θ, and the cosine of first and later query (null without one).
READ = replace(
    records.SCORED,
    name="read",
    schema=records.SCORED.schema.remove(records.SCORED.schema.get_field_index("kept")).append(
        pa.field("similarity", pa.float64())
    ),
)


def rows_of(house: Warehouse, candidates: Path, written: pa.Table) -> ir.Table:
    """(query, doc_id, perspective, later_query, first_ts, support): mined, written by an LLM, and TEST."""
    documents = house.read(candidates, records.DOCUMENTS)
    mined = material.learnable(house, candidates)
    extra = house.put(written.select(["query", "doc_id"]), "written")
    extra = extra.mutate(perspective=ibis.literal(perspectives.KNOWLEDGE.name), support=ibis.literal(1))
    test = house.read(candidates, records.TEST_QR).rename(doc_id="video_id").semi_join(documents, "doc_id")
    test = test.mutate(perspective=ibis.literal(TEST), support=ibis.literal(1))
    schema = replace(READ, schema=pa.schema([f for f in READ.schema if f.name in mined.columns]))
    return ibis.union(*[conform(rows, schema) for rows in (mined, extra, test)])


def counts_of(house: Warehouse, rows: ir.Table) -> dict[str, tuple[int, int]]:
    """perspective -> its rows, and the events behind them."""
    counted = rows.group_by("perspective").agg(rows=rows.count(), support=rows["support"].sum())
    return {row["perspective"]: (row["rows"], int(row["support"])) for row in house.fetch(counted)}


def drawn_of(counts: Mapping[str, tuple[int, int]], cfg: DiscriminateConfig) -> dict[str, np.ndarray | None]:
    """perspective -> the places, among its rows in their order, of those that θ is asked about; None: all."""
    rng = np.random.default_rng(cfg.seed)
    drawn: dict[str, np.ndarray | None] = {}
    for perspective in sorted(counts.keys() - {TEST, *perspectives.names(gated=True)}):
        places = np.arange(counts[perspective][0], dtype=np.uint32)
        rng.shuffle(places)
        drawn[perspective] = places[: cfg.ladder_pairs].copy()
    clicks = {perspectives.CLICK.name} if cfg.alpha_per == "query" else set()
    return drawn | dict.fromkeys({TEST, *gated(cfg), *clicks})


@dataclass(slots=True)
class Asking:
    """What θ is asked, and with what; `passed` counts the rows of each perspective so far."""

    judge: joined.Discriminator
    texts: Mapping[str, str]
    drawn: Mapping[str, np.ndarray | None]
    counts: Mapping[str, tuple[int, int]]
    embed: Embed | None
    passed: Counter[str] = field(default_factory=Counter)

    def which(self, rows: pd.DataFrame) -> np.ndarray:
        """bool [N]: the rows that θ is asked about."""
        asked = np.zeros(len(rows), dtype=bool)
        for perspective, own in _places(rows).items():
            drawn, first = self.drawn[perspective], self.passed[perspective]
            asked[own] = drawn is None or np.isin(np.arange(first, first + len(own)), drawn)
            self.passed[perspective] += len(own)
        return asked

    def theta(self, rows: pd.DataFrame, asked: np.ndarray) -> np.ndarray:
        """float64 [N], NaN where not asked: θ as it holds for the row's perspective. rows: of whole queries,
        see `pairs.weighed`.
        """
        clicked = rows["perspective"] == perspectives.CLICK.name
        of_query = pairs.clicked(rows.assign(clicked=clicked), self.texts)
        left = np.flatnonzero(asked & rows["theta"].isna().to_numpy())
        read = rows.iloc[left]
        own = {"theta": rows["theta"].to_numpy(float), "nearest": rows["nearest"].to_numpy(float)}
        own["theta"][left], own["nearest"][left] = self.judge.read(
            read["query"].tolist(), read["doc_id"].map(self.texts).tolist(), of_query
        )
        rows, theta = rows.assign(**own), np.full(len(rows), np.nan)
        for perspective, places in _places(rows).items():
            if len(here := places[asked[places]]):
                theta[here] = self._held(rows.iloc[here], rows, perspective)
        return theta

    def _held(self, asked: pd.DataFrame, rows: pd.DataFrame, perspective: str) -> np.ndarray:
        name = perspectives.REFORMULATION.name if perspective == TEST else perspective
        mined = rows[rows["perspective"] == name]
        usual = None
        if name in self.counts:
            of_query = mined.groupby("query")["support"].sum().to_dict()
            listed = asked.dropna(subset="of_video")
            of_video = dict(zip(listed["doc_id"], listed["of_video"].astype(int), strict=True))
            usual = chance.Marginals(of_query, of_video, max(1, self.counts[name][1]))
        return thetas.held(self.judge, asked, name, self.texts, mined=mined, usual=usual)

    def similarity(self, rows: pd.DataFrame) -> np.ndarray:
        """float64 [N]: the cosine of the first and the later query of reformulations; NaN elsewhere, and
        where there is no encoder.
        """
        out = np.full(len(rows), np.nan)
        both = rows[(rows["perspective"] == perspectives.REFORMULATION.name).to_numpy()]
        if self.embed is None or both.empty:
            return out
        names = sorted(set(both["query"]) | set(both["later_query"].dropna()))
        vectors, row = self.embed(names), {q: i for i, q in enumerate(names)}
        first, later = (vectors[both[column].map(row)] for column in ("query", "later_query"))
        out[both.index.to_numpy()] = (first * later).sum(axis=1)
        return out


def _places(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """perspective -> the places of its rows, in their order."""
    places: dict[str, np.ndarray] = rows.groupby("perspective", sort=False).indices
    return places


def read(
    house: Warehouse,
    rows: ir.Table,
    asking: Asking,
    folder: Path,
    scratch: Path,
    cfg: DiscriminateConfig,
    scores: Sequence[Path],
) -> None:
    """Writes READ to `scratch`, and the held-out reformulations that θ keeps to `folder`."""
    counted = {name: name for name in asking.judge.chance} | {TEST: perspectives.REFORMULATION.name}
    before = [house.read(one, records.SCORES) for one in scores]
    none = conform(house.put(records.SCORES.schema.empty_table(), "no_scores"), records.SCORES)
    weighed = pairs.weighed(rows, ibis.union(none, *before), counted)
    ordered = weighed.order_by([*records.SCORED.key])
    total = sum(number for number, _support in asking.counts.values())
    with (
        pieces.Writer(scratch, READ) as read,
        pieces.Writer(folder, records.TEST_QR) as test,
        progress.bar(total=total, desc="scoring", unit="row") as bar,
    ):
        for piece in pieces.whole(house.stream(ordered), "query", rows=score.PIECE_ROWS):
            frame = piece.to_pandas()
            theta = asking.theta(frame, asking.which(frame))
            tested = (frame["perspective"] == TEST).to_numpy()
            passed = piece.filter(pa.array(tested & (theta > cfg.alpha)))
            test.add(passed.rename_columns({"doc_id": "video_id"}))
            similarity = asking.similarity(frame)
            decided = {
                "theta": pa.array(theta.astype(np.float32), from_pandas=True),
                "similarity": pa.array(similarity, from_pandas=True),
            }
            piece = piece.drop_columns(["theta"])
            for name, column in decided.items():
                piece = piece.append_column(name, column)
            read.add(piece.filter(pa.array(~tested)))
            bar.update(len(frame))


def gated(cfg: DiscriminateConfig) -> set[str]:
    """The perspectives of whose pairs θ decides."""
    return {*perspectives.names(gated=True), *(perspectives.names(synthetic=True) * cfg.gate_knowledge)}
