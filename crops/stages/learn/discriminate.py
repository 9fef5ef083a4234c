"""Decides by θ which pairs are kept; the ladder's sample of the other pairs is scored on the way.

Rows come from the engine by query, a piece at a time, so that what is known of a query is in one piece, and
memory grows with the catalogue and not with the log.
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa

from crops import accelerator, base_model, perspectives
from crops.config.discriminate import DiscriminateConfig
from crops.discriminator import answers, chance, threshold
from crops.discriminator import kept as tallies
from crops.discriminator.score import remembering
from crops.engines import session
from crops.engines.warehouse import Warehouse
from crops.stages.base import StageReport
from crops.stages.learn import asking, score
from crops.stages.learn import theta as thetas
from crops.stages.plug import STAGE_FILE
from crops.tables import artifacts, grades, pieces, records


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
            rows = house.keep(asking.rows_of(house, candidates, written), "rows")
            counts = asking.counts_of(house, rows)
            embed, note = _embedder(champion, cfg)
            if embed is not None and not counts.get(perspectives.REFORMULATION.name, (0, 0))[0]:
                embed, note = None, "query similarity: no reformulation to measure"
            given = asking.Asking(
                judge, {**catalogue, **synthetic}, asking.drawn_of(counts, cfg), counts, embed
            )
            asking.read(house, rows, given, folder, scratch, cfg, scores)
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
    total = sum(number for name, (number, _support) in counts.items() if name != asking.TEST)
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


def _embedder(champion: Path | None, cfg: DiscriminateConfig) -> tuple[asking.Embed | None, str]:
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

    usual      mean θ of all clicked pairs, NaN where it was asked of none or is not wanted
    predicted  α by (query, perspective), of those that depart from the setting
    """

    usual: float
    predicted: pd.Series | None = None
    notes: tuple[str, ...] = ()


def _cuts(house: Warehouse, scratch: Path, cfg: DiscriminateConfig) -> _Cuts:
    if cfg.alpha_per == "log":
        return _Cuts(float("nan"))
    rows = house.read(scratch, asking.READ)
    if cfg.alpha_per == "predicted":
        frame = house.backend.to_pyarrow(rows.select(*threshold.READ)).to_pandas()
        return _Cuts(float("nan"), *threshold.of_queries(frame, cfg.alpha))
    clicks = rows.filter(rows["perspective"] == perspectives.CLICK.name)
    mean = house.fetch(clicks.agg(theta=clicks["theta"].cast("float64").mean()))[0]["theta"]
    return _Cuts(float("nan") if mean is None else mean)


def _decide(rows: pd.DataFrame, cfg: DiscriminateConfig, cuts: _Cuts) -> None:
    """Adds `kept`: θ > α for the gated perspectives, and for reformulations a similarity of at least β."""
    gated = rows["perspective"].isin(asking.gated(cfg)).to_numpy()
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
    rows = house.read(scratch, asking.READ)
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
    batches = (batch for _path, batch in artifacts.batches(scratch, asking.READ))
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
