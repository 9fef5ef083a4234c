"""All systems on all test sets: rankings over the whole catalogue, recall, nDCG, intervals, slices, the
bubble.
"""

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crops import accelerator, memory, perspectives, progress
from crops.config.evaluate import EvaluateConfig
from crops.discriminator import rerank
from crops.discriminator.joined import Discriminator
from crops.engines import session
from crops.errors import InputError
from crops.evaluation import beir, rank, sets, trial
from crops.release import index, layout
from crops.release.encoder import OnnxEncoder
from crops.retriever import encoder as encoders
from crops.retriever import generative
from crops.retriever.systems import (
    BASE,
    BM25,
    CHALLENGER,
    CHAMPION,
    LOG_ONLY,
    cut,
    fused_of,
    generative_fused,
    generative_of,
    reranked_of,
)
from crops.stages.base import StageReport
from crops.stages.learn import theta
from crops.tables import artifacts, records
from crops.tables import grades as grading
from crops.text import words

# Whatever is registered: runs with and without an extension have one cold-start set.
OF_THE_LOG = {p.name for p in perspectives.PAPER if not p.synthetic}
BEIR = "beir"  # the folder for other programs


def run(
    documents: Path,
    tests: Path,
    out: Path,
    cfg: EvaluateConfig,
    *,
    systems: Mapping[str, Path],
    truth: Path | None = None,
    champion: Path | None = None,
    fuse: str = CHALLENGER,
) -> StageReport:
    """Writes metrics.json, per_query.parquet, the pool that people are asked about, the first results of all
    systems and, where the setting says so, beir/.

    documents: augment's out; tests: discriminate's out (gated test_qr)
    fuse: the system that the settings `fusion` and `rerank` are for
    truth: the complete truth, or the folder that `crops judge read` wrote, of which only the pool measures.
    """
    ids, texts = (artifacts.read(documents, records.DOCUMENTS)[c].to_pylist() for c in ("doc_id", "text"))
    measures = _measures(
        documents,
        tests,
        truth,
        {d: n for n, d in enumerate(ids)},
        rank.bags(texts),
        cfg,
        foreign=_foreign(systems[BASE], cfg) if BASE in systems else None,
    )
    if not measures.queries:
        raise InputError(
            documents / "test_ct",
            "no test query at all: the held-out days hold neither clicks nor reformulations",
        )
    loaders: dict[str, Any] = {name: partial(_loaded, folder) for name, folder in systems.items()}
    if champion is not None:
        loaders[CHAMPION] = partial(OnnxEncoder, champion, providers=accelerator.providers())
    second = {
        name: partial(generative.load, folder / generative.FOLDER, texts)
        for name, folder in systems.items()
        if (folder / generative.FOLDER).is_dir()
    }
    judge = partial(theta.load, tests / "theta")
    rankings = _rankings(measures.queries, texts, loaders, second, judge, cfg, fuse=fuse)
    total = len(loaders) + 1 + cfg.fusion + bool(cfg.rerank) + 2 * len(second)
    bar = progress.bar(rankings, total=total, desc="evaluating", unit="system")
    scores, pool = {}, _consumed(documents, set(measures.queries), set(ids))
    kept: dict[str, np.ndarray] = {}
    tops = []
    for name, ranked in bar:
        scores[name] = measures.scores(ranked)
        tops.append(measures.tops(name, ranked[:, : cfg.tops], ids))
        if cfg.write_beir:
            kept[name] = ranked.astype(np.int32)
        for query, row in zip(measures.queries, ranked[:, : cfg.pool_depth].tolist(), strict=True):
            for place, document in enumerate(row, start=1):
                if document >= 0:
                    pair = query, ids[document]
                    pool[pair] = min(place, pool.get(pair, place))
    ours = CHALLENGER, LOG_ONLY
    metrics = trial.summary(
        scores, measures.sets, ours=ours, draws=cfg.bootstrap, seed=cfg.seed, chains=measures.chains
    )
    grades = None if measures.grades is None else "complete" if measures.complete else "pool"
    metrics["grades"] = grades
    with artifacts.replacing(out) as folder:
        artifacts.write_json(folder / "metrics.json", metrics)
        pq.write_table(
            trial.per_query(scores, measures.chains), folder / "per_query.parquet", compression="zstd"
        )
        rows = [(query, doc_id, rank) for (query, doc_id), rank in sorted(pool.items())]
        columns = dict(zip(records.POOL.schema.names, zip(*rows, strict=True), strict=True))
        artifacts.write(folder, records.POOL, pa.table(columns, schema=records.POOL.schema))
        artifacts.write(folder, records.TOPS, pa.concat_tables(tops))
        if cfg.write_beir:
            judged = beir.judgements(measures.sets, measures.grades)
            documents_by_id = dict(zip(ids, texts, strict=True))
            beir.write_trial(folder / BEIR, documents_by_id, measures.queries, judged, kept)
    main = "truth" if metrics["recall_at_100"]["truth"] else "qr_raw"
    shown = metrics["recall_at_100"][main] or {}
    return StageReport(
        numbers={"queries": len(measures.queries), **{f"recall_at_100_{s}": x for s, x in shown.items()}},
        notes=(*_cuts(shown, main), *(() if champion is None else _knows(champion, documents))),
    )


def _loaded(folder: Path) -> encoders.Encoder:
    return encoders.load(folder).to(accelerator.device())


def _cuts(shown: Mapping[str, float], main: str) -> list[str]:
    """A note per system that is the challenger cut short."""
    return [
        f"{system}, the first numbers of each vector alone: recall@100 on {main} {x:.3f}, "
        f"{shown[CHALLENGER]:.3f} whole"
        for system, x in shown.items()
        if system.startswith(cut(CHALLENGER, ""))
    ]


def _knows(champion: Path, documents: Path) -> tuple[str, ...]:
    """A note where the champion has learnt from the days that it is measured on."""
    day = artifacts.read_json(champion / layout.ENCODER).get(layout.LAST_FIT)
    days = artifacts.read_json(documents / "augment.json")["days"] if day else {}
    if not day or day < (first := days["test"][0]):
        return ()
    return (
        f"champion: its last fit learnt from days until {day}, and the test begins on {first}: its figures "
        "are too high here, and the gate is too hard on the challenger; a log that has gone on measures both",
    )


def _foreign(base: Path, cfg: EvaluateConfig) -> Callable[[str], bool]:
    """Whether a query is in words that the base hardly knows: its tokenizer has no piece for them, or needs
    many.
    """
    tokenizer = encoders.load(base).tokenizer

    def unknown(word: str) -> bool:
        pieces = tokenizer.tokenize(word)
        return len(pieces) >= cfg.foreign_pieces or tokenizer.unk_token in pieces

    def foreign(query: str) -> bool:
        tokens = words(query)
        return bool(tokens) and sum(map(unknown, tokens)) >= cfg.foreign_share * len(tokens)

    return foreign


def _consumed(documents: Path, queries: set[str], ids: set[str]) -> dict[tuple[str, str], int]:
    """(query, doc_id) -> 0 of what was consumed after a reformulation: in the pool whatever a system says."""
    rows = artifacts.read(documents, records.TEST_QR)
    pairs = zip(rows["query"].to_pylist(), rows["video_id"].to_pylist(), strict=True)
    return {(query, doc_id): 0 for query, doc_id in pairs if query in queries and doc_id in ids}


def _measures(
    documents: Path,
    tests: Path,
    truth: Path | None,
    row: Mapping[str, int],
    bags: np.ndarray,
    cfg: EvaluateConfig,
    *,
    foreign: Callable[[str], bool] | None,
) -> trial.Trial:
    graded = grading.measuring(truth)
    grades: sets.Grades | None = None if graded is None else {}
    if graded is not None and grades is not None:
        for query, doc_id, grade in graded.table[["query", "doc_id", "grade"]].itertuples(index=False):
            if doc_id in row:
                grades.setdefault(query, {})[row[doc_id]] = int(grade)

    def pairs(folder: Path, table: records.Table) -> sets.Relevant:
        held_out = artifacts.read(folder, table)
        return sets.grouped(zip(*(held_out[c].to_pylist() for c in ("query", "video_id")), strict=True), row)

    def slice_of(searches: int) -> str:
        limits = (cfg.head_searches, "head"), (cfg.torso_searches, "torso"), (0, "tail")
        return next(name for least, name in limits if searches >= least)

    built = sets.build(
        pairs(documents, records.TEST_QR),
        grades,
        artifacts.read(documents, records.QUERIES).to_pylist(),
        slice_of=slice_of,
        foreign=foreign,
        ct=pairs(documents, records.TEST_CT),
        qr=pairs(tests, records.TEST_QR),
    )
    had, shown = _of_training(documents, (built["truth"] or {}).keys())
    if cfg.cold_start:
        complete = graded is not None and graded.complete
        wanted = ("truth",) if complete else ("ct", "qr_raw")
        rows = {row[video] for video in had if video in row}
        built[sets.COLD_START] = sets.cold_start(rows, *(built[name] for name in wanted))
    return trial.Trial(
        {
            name: None if of is None else sets.capped(of, cfg.max_queries, seed=cfg.seed)
            for name, of in built.items()
        },
        grades,
        graded is None or graded.complete,
        sets.grouped(shown, row),
        bags,
        cfg.seed,
        sets.chains(artifacts.read(documents, records.TEST_QR).to_pylist()),
    )


def _of_training(documents: Path, queries: Collection[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The videos that had a positive of any query, and (query, video_id) that was shown for one of `queries`:
    from the engine, because candidates are as many as the log makes them.
    """
    with (
        tempfile.TemporaryDirectory(prefix="crops-evaluate-") as scratch,
        session.opened("duckdb", scratch=Path(scratch)) as house,
    ):
        mined = house.read(documents, records.CANDIDATES)
        asked = house.put(pa.table({"query": pa.array(sorted(queries), pa.string())}), "asked")
        positives = mined.filter(mined["perspective"].isin(sorted(OF_THE_LOG)))
        seen = mined.filter(mined["perspective"].isin(perspectives.SHOWN)).semi_join(asked, "query")
        had = house.fetch(positives.select("video_id").distinct())
        shown = house.fetch(seen.select("query", "video_id").distinct())
    return [r["video_id"] for r in had], [(r["query"], r["video_id"]) for r in shown]


def _rankings(
    queries: list[str],
    texts: list[str],
    loaders: Mapping[str, Callable[[], Any]],
    second: Mapping[str, Callable[[], Any]],
    judge: Callable[[], Discriminator],
    cfg: EvaluateConfig,
    *,
    fuse: str,
) -> Iterator[tuple[str, np.ndarray]]:
    """Name and int [Q, K] of each system, one model in memory at a time; one of them also fused with BM25
    and re-ranked by θ, and the challenger at every width that it was trained for.

    loaders: by system, of what has `encode`. second: by system, of what ranks the catalogue itself, by
    `rank(vectors of the queries, depth)`: measured alone, and fused with the system's own ranking.
    """
    depth = cfg.depth
    by_words = rank.bm25(queries, texts, depth)
    yield BM25, by_words
    for name, load in loaders.items():
        model = load()
        held = f"{len(texts):,} vectors of width {model.width}"
        memory.refuse(f"evaluate {name}", held, 4 * len(texts) * model.width)
        vectors, asked = model.encode(texts, kind="document"), model.encode(queries, kind="query")
        cosines, ranked = index.exact(vectors, asked, depth)
        yield name, ranked
        if name == fuse and cfg.fusion:
            yield fused_of(name), rank.fused(ranked, by_words)
        if name == fuse and cfg.rerank:
            tau = float(model.log_tau.detach().exp())
            ordered = rerank.by_theta(judge(), queries, texts, ranked, cosines, cfg.rerank, temperature=tau)
            yield reranked_of(name), ordered
        if name in second:
            other = second[name]().rank(asked, depth)
            yield generative_of(name), other
            yield generative_fused(name), rank.fused(ranked, other)
        for width in model.widths if name == CHALLENGER else ():
            short = [x[:, :width] for x in (vectors, asked)]
            short = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in short]
            yield cut(name, width), index.exact(short[0], short[1], depth)[1]
