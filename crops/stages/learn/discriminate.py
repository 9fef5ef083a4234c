"""Decides by θ which pairs are kept; the ladder's sample of the other pairs is scored on the way."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from crops import base_model, perspectives, progress
from crops.config.discriminate import DiscriminateConfig
from crops.discriminator import answers, chance, joined, threshold
from crops.stages.base import StageReport
from crops.stages.learn import score
from crops.stages.learn import theta as thetas
from crops.stages.plug import STAGE_FILE
from crops.tables import artifacts, grades, records

THRESHOLDS = (0.5, 0.6, 0.7, 0.8)
# A gate is silent where it keeps less than a tenth of at least 20 relevant pairs that θ itself expects.
SILENT_FROM, SILENT_SHARE = 20, 0.1
Embed = Callable[[list[str]], np.ndarray]


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
    texts = artifacts.texts(candidates)
    written = _written(knowledge)
    rows = _rows(candidates, written, texts)
    synthetic = dict(zip(written["doc_id"].to_pylist(), written["text"].to_pylist(), strict=True))
    judge, facts = thetas.load(theta), artifacts.read_json(theta / thetas.FACTS)
    _score(rows, judge, {**texts, **synthetic}, cfg, scores=_scores(scores))
    similarity, note = _similarity(rows, champion, cfg)
    cuts = _decide(rows, similarity, cfg)
    proven = _prove(rows, synthetic, texts, cfg)
    test = artifacts.read(candidates, records.TEST_QR)
    test = test.filter(pa.array([d in texts for d in test["video_id"].to_pylist()], pa.bool_()))
    test_theta = _test(test, rows, judge, texts)
    report = {
        **facts,
        "alpha": cfg.alpha,
        "beta": cfg.beta,
        "similarity": note,
        **_tables(rows, truth, cfg, texts),
    }
    with artifacts.replacing(out) as folder:
        artifacts.write(folder, records.SCORED, pa.Table.from_pandas(rows, preserve_index=False))
        artifacts.write(folder, records.KNOWLEDGE, written)
        artifacts.write(folder, records.TEST_QR, test.filter(pa.array(test_theta > cfg.alpha)))
        shutil.copytree(theta, folder / "theta", ignore=shutil.ignore_patterns(".*", STAGE_FILE))
        artifacts.write_json(folder / "discriminate.json", report)
    numbers = {
        f"kept_{p}": int(rows.loc[rows["perspective"] == p, "kept"].sum())
        for p in perspectives.names(positive=True)
    }
    return StageReport(
        numbers={"pairs": len(rows), **numbers, "auc": facts["auc"], "ece": facts["ece"]},
        notes=(note, *cuts, *proven, *_silent(report["bands"], cfg.alpha)),
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


def _rows(candidates: Path, written: pa.Table, texts: dict[str, str]) -> pd.DataFrame:
    mined = thetas.learnable(candidates, texts).rename(columns={"video_id": "doc_id"})
    extra = (
        written.select(["query", "doc_id"])
        .to_pandas()
        .assign(perspective=perspectives.KNOWLEDGE.name, support=1)
    )
    rows = pd.concat([mined, extra], ignore_index=True) if len(extra) else mined.reset_index(drop=True)
    rows["support"] = rows["support"].astype("int64")
    return rows.sort_values(["query", "doc_id", "perspective", "later_query"], ignore_index=True)


def _score(
    rows: pd.DataFrame,
    judge: joined.Discriminator,
    texts: dict[str, str],
    cfg: DiscriminateConfig,
    *,
    scores: dict[tuple[str, str], tuple[float, float]],
) -> None:
    """Adds `theta`, as it holds for the row's perspective: for all gated rows, and for a sample of the others
    for the ladder.

    scores  (query, doc_id) -> θ by the texts alone and the nearest clicked text, of pairs that were scored
            before
    """
    whole = _gated(cfg) | ({perspectives.CLICK.name} if cfg.alpha_per == "query" else set())
    drawn = rows["perspective"].isin(whole).to_numpy()
    rng = np.random.default_rng(cfg.seed)
    for perspective in sorted(set(rows["perspective"]) - set(perspectives.names(gated=True))):
        own = np.flatnonzero(rows["perspective"] == perspective)
        drawn[rng.permutation(own)[: cfg.ladder_pairs]] = True
    asked = rows.loc[drawn, ["query", "doc_id", "perspective", "support"]]
    pairs = list(zip(asked["query"], asked["doc_id"], strict=True))
    left = [pair for pair in dict.fromkeys(pairs) if pair not in scores]
    with progress.bar(total=len(left), desc="scoring", unit="pair") as bar:
        read = judge.read(
            [q for q, _ in left], [texts[d] for _, d in left], _clicked(rows, texts), progress=bar.update
        )
    scores = scores | dict(zip(left, np.stack(read, axis=1).tolist(), strict=True))
    values = np.array([scores[pair] for pair in pairs], dtype=np.float64).reshape(-1, 2)
    asked["theta"], asked["nearest"] = values[:, 0], values[:, 1]
    for perspective in set(asked["perspective"]):
        own = asked["perspective"] == perspective
        asked.loc[own, "theta"] = thetas.held(judge, asked[own], perspective, texts, mined=asked[own])
    theta = np.full(len(rows), np.nan, dtype=np.float32)
    theta[drawn] = asked["theta"]
    rows["theta"] = theta


def _clicked(rows: pd.DataFrame, texts: dict[str, str]) -> dict[str, list[str]]:
    return thetas.clicked(rows.rename(columns={"doc_id": "video_id"}), texts)


def _test(
    test: pa.Table, rows: pd.DataFrame, judge: joined.Discriminator, texts: dict[str, str]
) -> np.ndarray:
    """θ [N] of the held-out reformulations, by what the training days say of them."""
    asked = test.select(["query", "video_id"]).to_pandas().rename(columns={"video_id": "doc_id"})
    queries, read = asked["query"].tolist(), [texts[d] for d in asked["doc_id"]]
    theta, nearest = judge.read(queries, read, _clicked(rows, texts))
    name = perspectives.REFORMULATION.name
    mined = rows[rows["perspective"] == name]
    return thetas.held(judge, asked.assign(theta=theta, nearest=nearest), name, texts, mined=mined)


def _scores(folders: Sequence[Path]) -> dict[tuple[str, str], tuple[float, float]]:
    rows = (row for folder in folders for row in artifacts.read(folder, records.SCORES).to_pylist())
    return {
        (row["query"], row["doc_id"]): (row["theta"], np.nan if row["nearest"] is None else row["nearest"])
        for row in rows
    }


def _similarity(
    rows: pd.DataFrame, champion: Path | None, cfg: DiscriminateConfig
) -> tuple[np.ndarray | None, str]:
    """Cosine of the first and the later query of each row (NaN without a later query), or None if there is no
    encoder.
    """
    embed, note = _embedder(champion, cfg)
    if embed is None:
        return None, note
    both = rows[rows["perspective"] == perspectives.REFORMULATION.name]
    names = sorted(set(both["query"]) | set(both["later_query"].dropna()))
    if not names:
        return None, "query similarity: no reformulation to measure"
    vectors, row = embed(names), {q: i for i, q in enumerate(names)}
    first, later = (vectors[both[column].map(row)] for column in ("query", "later_query"))
    out = np.full(len(rows), np.nan)
    out[both.index.to_numpy()] = (first * later).sum(axis=1)
    return out, note


def _embedder(champion: Path | None, cfg: DiscriminateConfig) -> tuple[Embed | None, str]:
    if champion is not None:
        from crops.release.encoder import OnnxEncoder

        release = OnnxEncoder(champion)
        return (lambda texts: release.encode(texts, kind="query")), "query similarity: the champion's encoder"
    if not base_model.shallow(cfg.base):
        from crops.retriever import encoder as encoders

        base = encoders.from_base(cfg.base, [])
        return (lambda texts: base.encode(texts, kind="query")), f"query similarity: {cfg.base}"
    return None, "query similarity: off (no champion, and token vectors alone are no judge of queries)"


def _decide(rows: pd.DataFrame, similarity: np.ndarray | None, cfg: DiscriminateConfig) -> tuple[str, ...]:
    """Adds `kept`: θ > α for the gated perspectives, and for reformulations a similarity of at least β;
    returns notes.
    """
    gated = rows["perspective"].isin(_gated(cfg)).to_numpy()
    alpha, notes = np.full(len(rows), cfg.alpha), tuple[str, ...]()
    if cfg.alpha_per == "query":
        alpha = _alpha_of_query(rows, cfg.alpha)
    elif cfg.alpha_per == "predicted":
        alpha, notes = threshold.of_rows(rows, cfg.alpha)
    rows["kept"] = ~gated | (rows["theta"].to_numpy() > alpha)
    if similarity is not None:
        rows["kept"] &= ~(similarity < cfg.beta)
    return notes


def _prove(
    rows: pd.DataFrame, synthetic: dict[str, str], texts: dict[str, str], cfg: DiscriminateConfig
) -> tuple[str, ...]:
    """Takes `kept` from LLM answers that do not find what was clicked for their query, or repeat another."""
    own = rows.index[rows["perspective"].isin(perspectives.names(synthetic=True)) & rows["kept"]]
    if not len(own) or (cfg.round_trip is None and cfg.most_alike == 1):
        return ()
    from crops.retriever import encoder as encoders

    encoder = encoders.from_base(cfg.base, [*texts.values()])
    written = [synthetic[name] for name in rows.loc[own, "doc_id"]]
    queries = rows.loc[own, "query"].tolist()
    right = np.ones(len(own), dtype=bool)
    if cfg.round_trip is not None:
        row_of = {name: row for row, name in enumerate(texts)}
        clicked = rows[rows["perspective"] == perspectives.CLICK.name].groupby("query")["doc_id"].agg(list)
        relevant = [frozenset(row_of[d] for d in clicked.get(query, ())) for query in queries]
        answered = encoder.encode(written, kind="query")
        catalogue = encoder.encode([*texts.values()], kind="document")
        right = answers.round_trip(answered, catalogue, relevant, depth=cfg.round_trip)
    lost = int((~right).sum())
    kept = np.flatnonzero(right)
    vectors = encoder.encode([written[i] for i in kept], kind="document")
    right[kept] = answers.distinct(vectors, [queries[i] for i in kept], most_alike=cfg.most_alike)
    rows.loc[own, "kept"] = right
    return (
        f"knowledge: of {len(own):,} answers {lost:,} do not find what was clicked, "
        f"{int((~right).sum()) - lost:,} repeat another",
    )


def _gated(cfg: DiscriminateConfig) -> set[str]:
    return {*perspectives.names(gated=True), *(perspectives.names(synthetic=True) * cfg.gate_knowledge)}


def _alpha_of_query(rows: pd.DataFrame, alpha: float) -> np.ndarray:
    """α [N] of each row's query; see the setting alpha_per. Queries without a clicked video keep α."""
    clicked = rows[rows["perspective"] == perspectives.CLICK.name]
    ratio = (clicked.groupby("query")["theta"].mean() / clicked["theta"].mean()).clip(0.5, 1.5)
    alphas: np.ndarray = alpha * rows["query"].map(ratio).fillna(1.0).to_numpy()
    return alphas


def _tables(
    rows: pd.DataFrame, truth: Path | None, cfg: DiscriminateConfig, texts: dict[str, str]
) -> dict[str, Any]:
    """Kept and dropped per gated perspective, by threshold and by how many of the query's words the text has,
    and how right that is if there are grades.
    """
    graded = grades.read(truth)
    thresholds: dict[str, Any] = {}
    bands: dict[str, Any] = {}
    for perspective in perspectives.names(gated=True):
        # A pair counts once, whatever the later query was.
        part = rows[rows["perspective"] == perspective].drop_duplicates(["query", "doc_id"])
        theta = part["theta"].to_numpy()
        relevant = None if graded is None else graded.relevant(part["query"], part["doc_id"])
        thresholds[perspective] = {
            f"{level:.1f}": _threshold(theta > level, relevant) for level in sorted({*THRESHOLDS, cfg.alpha})
        }
        shared = chance.shared(part["query"].tolist(), [texts[d] for d in part["doc_id"]])
        of_pair = chance.bands(shared)
        bands[perspective] = {
            band: _threshold(theta[here] > cfg.alpha, None if relevant is None else relevant[here])
            | {
                "expected": round(float(theta[here].sum()), 1),
                "expected_kept": round(float(theta[here][theta[here] > cfg.alpha].sum()), 1),
            }
            for band in chance.BANDS
            if (here := of_pair == band).any()
        }
    return {"thresholds": thresholds, "bands": bands}


def _silent(bands: dict[str, Any], alpha: float) -> list[str]:
    """A note for each band of which the gate keeps next to nothing, while θ expects many of it to be
    relevant.
    """
    return [
        f"{perspective}: θ > {alpha} keeps {row['kept']} of {row['kept'] + row['dropped']} pairs that share "
        f"{band} of their query's words, where θ expects {row['expected']:.0f} relevant ones"
        for perspective, rows in bands.items()
        for band, row in rows.items()
        if row["expected"] >= SILENT_FROM and row["expected_kept"] < SILENT_SHARE * row["expected"]
    ]


def _threshold(kept: np.ndarray, relevant: np.ndarray | None) -> dict[str, float | int | None]:
    row: dict[str, float | int | None] = {"kept": int(kept.sum()), "dropped": int((~kept).sum())}
    row |= {"precision": None, "recall": None, "raw": None}
    if relevant is None or not (certain := ~np.isnan(relevant)).any():
        return row
    good, share = relevant[certain] > 0, kept[certain]
    row["raw"] = round(float(good.mean()), 4)
    row["precision"] = round(float(good[share].mean()), 4) if share.any() else None
    row["recall"] = round(float(share[good].mean()), 4) if good.any() else None
    return row
