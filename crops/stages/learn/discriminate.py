"""Decides by θ which pairs are kept; the ladder's sample of the other pairs is scored on the way.

Rows come from the engine by query, a piece at a time, so that what is known of a query is in one piece, and
memory grows with the catalogue and not with the log.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow as pa

from crops import accelerator, base_model, perspectives, progress
from crops.config.discriminate import DiscriminateConfig
from crops.discriminator import answers, chance, joined, pairs, threshold
from crops.discriminator import kept as tallies
from crops.discriminator.score import remembering
from crops.engines import session
from crops.engines.warehouse import Warehouse, conform
from crops.stages.base import StageReport
from crops.stages.learn import score
from crops.stages.learn import theta as thetas
from crops.stages.plug import STAGE_FILE
from crops.tables import artifacts, grades, pieces, records

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


def run(
    candidates: Path,
    out: Path,
    cfg: DiscriminateConfig,
    *,
    theta: Path,
    scores: Sequence[Path] = (),
    knowledge: Sequence[Path] = (),
    champion: Path | None = None,
    truth: Path | None = None,
) -> StageReport:
    """Writes scored, knowledge, test_qr (gated), theta/ and discriminate.json; `truth` is only reported.

    `theta`: what the stage of this name wrote; `scores`, `knowledge`: what those stages wrote, a folder per
    shard. Pairs that `scores` does not hold are scored here, with the same result but for rounding, because
    other batches are padded otherwise.
    """
    written = _written(knowledge)
    synthetic = dict(zip(written["doc_id"].to_pylist(), written["text"].to_pylist(), strict=True))
    catalogue = artifacts.texts(candidates)
    judge, facts = thetas.load(theta), artifacts.read_json(theta / thetas.FACTS)
    judge = replace(judge, embed=remembering(judge.embed))
    with artifacts.replacing(out) as folder:
        scratch = folder / ".scratch"
        with session.opened("duckdb", scratch=scratch) as house:
            rows = house.keep(_rows(house, candidates, written), "rows")
            counts = _counts(house, rows)
            embed, note = _embedder(champion, cfg)
            if embed is not None and not counts.get(perspectives.REFORMULATION.name, (0, 0))[0]:
                embed, note = None, "query similarity: no reformulation to measure"
            asking = _Asking(judge, {**catalogue, **synthetic}, _drawn(counts, cfg), counts, embed)
            _read(house, rows, asking, folder, scratch, cfg, scores)
            cuts = _cuts(house, scratch, cfg)
            lost, proven = _prove(house, scratch, synthetic, catalogue, cfg, cuts)
        kept, thresholds, bands = _write(scratch, folder, catalogue, truth, cfg, lost, cuts)
        artifacts.write(folder, records.KNOWLEDGE, written)
        shutil.copytree(theta, folder / "theta", ignore=shutil.ignore_patterns(".*", STAGE_FILE))
        tables = {"thresholds": thresholds, "bands": bands}
        report = {**facts, "alpha": cfg.alpha, "beta": cfg.beta, "similarity": note, **tables}
        artifacts.write_json(folder / "discriminate.json", report)
        shutil.rmtree(scratch)
    numbers = {f"kept_{p}": kept.get(p, 0) for p in perspectives.names(positive=True)}
    total = sum(number for name, (number, _support) in counts.items() if name != TEST)
    return StageReport(
        numbers={"pairs": total, **numbers, "auc": facts["auc"], "ece": facts["ece"]},
        notes=(note, *cuts.notes, *proven, *tallies.silent(bands, cfg.alpha)),
    )


def whole(
    logs: Path,
    candidates: Path,
    out: Path,
    cfg: DiscriminateConfig,
    *,
    theta: Path | None = None,
    scores: Sequence[Path] = (),
    **given: Any,
) -> StageReport:
    """`run` after the stages before it, as far as what they write is not given: θ trained, pairs scored."""
    halves = out.with_name(f".{out.name}.halves")
    learnt: tuple[str, ...] = ()
    try:
        if theta is None:
            theta = halves / "theta"
            learnt = thetas.run(logs, candidates, theta, cfg).notes
        if not scores:
            scores = [halves / "scores"]
            score.run(theta, candidates, scores[0])
        report = run(candidates, out, cfg, theta=theta, scores=scores, **given)
        return replace(report, notes=(*learnt, *report.notes))
    finally:
        shutil.rmtree(halves, ignore_errors=True)


def _written(shards: Sequence[Path]) -> pa.Table:
    tables = [artifacts.read(folder, records.KNOWLEDGE) for folder in shards] or [
        records.KNOWLEDGE.schema.empty_table()
    ]
    return pa.concat_tables(tables).sort_by([("query", "ascending"), ("doc_id", "ascending")])


def _rows(house: Warehouse, candidates: Path, written: pa.Table) -> ir.Table:
    """(query, doc_id, perspective, later_query, first_ts, support): mined, written by an LLM, and TEST."""
    documents = house.read(candidates, records.DOCUMENTS)
    mined = thetas.learnable(house, candidates)
    extra = house.put(written.select(["query", "doc_id"]), "written")
    extra = extra.mutate(perspective=ibis.literal(perspectives.KNOWLEDGE.name), support=ibis.literal(1))
    test = house.read(candidates, records.TEST_QR).rename(doc_id="video_id").semi_join(documents, "doc_id")
    test = test.mutate(perspective=ibis.literal(TEST), support=ibis.literal(1))
    schema = replace(READ, schema=pa.schema([f for f in READ.schema if f.name in mined.columns]))
    return ibis.union(*[conform(rows, schema) for rows in (mined, extra, test)])


def _counts(house: Warehouse, rows: ir.Table) -> dict[str, tuple[int, int]]:
    """perspective -> its rows, and the events behind them."""
    counted = rows.group_by("perspective").agg(rows=rows.count(), support=rows["support"].sum())
    return {row["perspective"]: (row["rows"], int(row["support"])) for row in house.fetch(counted)}


def _drawn(counts: Mapping[str, tuple[int, int]], cfg: DiscriminateConfig) -> dict[str, np.ndarray | None]:
    """perspective -> the places, among its rows in their order, of those that θ is asked about; None: all."""
    rng = np.random.default_rng(cfg.seed)
    drawn: dict[str, np.ndarray | None] = {}
    for perspective in sorted(counts.keys() - {TEST, *perspectives.names(gated=True)}):
        places = np.arange(counts[perspective][0], dtype=np.uint32)
        rng.shuffle(places)
        drawn[perspective] = places[: cfg.ladder_pairs].copy()
    clicks = {perspectives.CLICK.name} if cfg.alpha_per == "query" else set()
    return drawn | dict.fromkeys({TEST, *_gated(cfg), *clicks})


@dataclass(slots=True)
class _Asking:
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


def _read(
    house: Warehouse,
    rows: ir.Table,
    asking: _Asking,
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


def _embedder(champion: Path | None, cfg: DiscriminateConfig) -> tuple[Embed | None, str]:
    if champion is not None:
        from crops.release.encoder import OnnxEncoder

        release = OnnxEncoder(champion, providers=accelerator.providers())
        return (lambda texts: release.encode(texts, kind="query")), "query similarity: the champion's encoder"
    if not base_model.shallow(cfg.base):
        from crops.retriever import encoder as encoders

        base = encoders.from_base(cfg.base, []).to(accelerator.device())
        return (lambda texts: base.encode(texts, kind="query")), f"query similarity: {cfg.base}"
    return None, "query similarity: off (no champion, and token vectors alone are no judge of queries)"


@dataclass(frozen=True, slots=True)
class _Cuts:
    """What α of a query is made of, beside the query's own rows; see the setting alpha_per.

    usual      mean θ of all clicked pairs, NaN where it was asked of none
    predicted  α by (query, perspective), of those that depart from the setting
    """

    usual: float
    predicted: pd.Series | None = None
    notes: tuple[str, ...] = ()


def _cuts(house: Warehouse, scratch: Path, cfg: DiscriminateConfig) -> _Cuts:
    rows = house.read(scratch, READ)
    if cfg.alpha_per == "predicted":
        frame = house.backend.to_pyarrow(rows.select(*threshold.READ)).to_pandas()
        return _Cuts(float("nan"), *threshold.of_queries(frame, cfg.alpha))
    clicks = rows.filter(rows["perspective"] == perspectives.CLICK.name)
    mean = house.fetch(clicks.agg(theta=clicks["theta"].cast("float64").mean()))[0]["theta"]
    return _Cuts(float("nan") if mean is None else mean)


def _decide(rows: pd.DataFrame, cfg: DiscriminateConfig, cuts: _Cuts) -> None:
    """Adds `kept`: θ > α for the gated perspectives, and for reformulations a similarity of at least β."""
    gated = rows["perspective"].isin(_gated(cfg)).to_numpy()
    alpha: Any = cfg.alpha
    if cfg.alpha_per == "query":
        alpha = _alpha_of_query(rows, cfg.alpha, cuts.usual)
    elif cuts.predicted is not None:
        own = cuts.predicted.reindex(pd.MultiIndex.from_frame(rows[["query", "perspective"]]))
        alpha = own.fillna(cfg.alpha).to_numpy()
    rows["kept"] = ~gated | (rows["theta"].to_numpy() > alpha)
    rows["kept"] &= ~(rows["similarity"].to_numpy(float) < cfg.beta)


def _prove(
    house: Warehouse,
    scratch: Path,
    synthetic: dict[str, str],
    texts: dict[str, str],
    cfg: DiscriminateConfig,
    cuts: _Cuts,
) -> tuple[set[tuple[str, str]], tuple[str, ...]]:
    """The LLM answers (query, doc_id) that do not find what was clicked for their query, or repeat another,
    and what to say of that.
    """
    if not synthetic or (cfg.round_trip is None and cfg.most_alike == 1):
        return set(), ()
    rows = house.read(scratch, READ)
    clicks = rows.filter(rows["perspective"] == perspectives.CLICK.name)
    written = rows.filter(rows["perspective"].isin(perspectives.names(synthetic=True)))
    around = ibis.union(written, clicks.semi_join(written, "query")).order_by([*records.SCORED.key])
    frame = house.backend.to_pyarrow(around).to_pandas()
    _decide(frame, cfg, cuts)
    return _proven(frame, synthetic, texts, cfg)


def _proven(
    rows: pd.DataFrame, synthetic: dict[str, str], texts: dict[str, str], cfg: DiscriminateConfig
) -> tuple[set[tuple[str, str]], tuple[str, ...]]:
    own = rows[rows["perspective"].isin(perspectives.names(synthetic=True)) & rows["kept"]]
    if own.empty:
        return set(), ()
    from crops.retriever import encoder as encoders

    encoder = encoders.from_base(cfg.base, [*texts.values()]).to(accelerator.device())
    written, queries = own["doc_id"].map(synthetic).tolist(), own["query"].tolist()
    right = np.ones(len(own), dtype=bool)
    if cfg.round_trip is not None:
        row_of = {name: row for row, name in enumerate(texts)}
        clicked = rows[rows["perspective"] == perspectives.CLICK.name].groupby("query")["doc_id"].agg(list)
        relevant = [frozenset(row_of[d] for d in clicked.get(query, ())) for query in queries]
        answered = encoder.encode(written, kind="query")
        catalogue = encoder.encode([*texts.values()], kind="document")
        right = answers.round_trip(answered, catalogue, relevant, depth=cfg.round_trip)
    wide = int((~right).sum())
    kept = np.flatnonzero(right)
    vectors = encoder.encode([written[i] for i in kept], kind="document")
    right[kept] = answers.distinct(vectors, [queries[i] for i in kept], most_alike=cfg.most_alike)
    lost = set(own.loc[~right, ["query", "doc_id"]].itertuples(index=False, name=None))
    return lost, (
        f"knowledge: of {len(own):,} answers {wide:,} do not find what was clicked, "
        f"{len(lost) - wide:,} repeat another",
    )


def _gated(cfg: DiscriminateConfig) -> set[str]:
    return {*perspectives.names(gated=True), *(perspectives.names(synthetic=True) * cfg.gate_knowledge)}


def _alpha_of_query(rows: pd.DataFrame, alpha: float, usual: float) -> np.ndarray:
    """α [N] of each row's query; see the setting alpha_per. Queries without a clicked video keep α. `usual`:
    mean θ of all clicked pairs.
    """
    clicked = rows[rows["perspective"] == perspectives.CLICK.name]
    ratio = (clicked.groupby("query")["theta"].mean() / usual).clip(0.5, 1.5)
    alphas: np.ndarray = alpha * rows["query"].map(ratio).fillna(1.0).to_numpy()
    return alphas


def _write(
    scratch: Path,
    folder: Path,
    texts: Mapping[str, str],
    truth: Path | None,
    cfg: DiscriminateConfig,
    lost: set[tuple[str, str]],
    cuts: _Cuts,
) -> tuple[Counter[str], dict[str, Any], dict[str, Any]]:
    """Writes `scored`; returns how many rows of each perspective are kept, and of the gated ones the tables
    of `kept`, by threshold and by band.
    """
    graded = grades.read(truth)
    kept: Counter[str] = Counter()
    tables = {name: tallies.Tables(cfg.alpha) for name in perspectives.names(gated=True)}
    batches = (batch for _path, batch in artifacts.batches(scratch, READ))
    with pieces.Writer(folder, records.SCORED) as scored:
        for piece in pieces.whole(batches, "query", rows=score.PIECE_ROWS):
            rows = piece.to_pandas()
            _decide(rows, cfg, cuts)
            if lost:
                named = zip(rows["query"], rows["doc_id"], strict=True)
                rows["kept"] &= ~np.array([pair in lost for pair in named], dtype=bool)
            kept.update(rows.loc[rows["kept"], "perspective"].value_counts().to_dict())
            for name, table in tables.items():
                # A pair counts once, whatever the later query was.
                own = rows[rows["perspective"] == name].drop_duplicates(["query", "doc_id"])
                relevant = None if graded is None else graded.relevant(own["query"], own["doc_id"])
                shared = chance.shared(own["query"].tolist(), own["doc_id"].map(texts).tolist())
                table.add(own["theta"].to_numpy(), shared, relevant)
            scored.add(piece.append_column("kept", pa.array(rows["kept"].to_numpy())))
    both = {name: table.rows() for name, table in tables.items()}
    return kept, {name: by[0] for name, by in both.items()}, {name: by[1] for name, by in both.items()}
