"""All systems on all test sets: rankings over the whole catalogue, recall, nDCG, intervals, slices, the
bubble.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from crops import perspectives
from crops.config.evaluate import EvaluateConfig
from crops.errors import InputError
from crops.evaluation import metrics as evaluation
from crops.release import index
from crops.stages.base import StageReport
from crops.tables import artifacts, records
from crops.tables import grades as grading

SETS = ("ct", "qr", "qr_raw", "qr_relevant", "truth", "unseen", "no_click")
SLICES = ("head", "torso", "tail")
DIVERSITY_QUERIES = 500  # a mean over them is known to about 0.01
Rank = Callable[[list[str]], np.ndarray]
Relevant = dict[str, set[int]]


@dataclass(frozen=True, slots=True)
class Corpus:
    """The catalogue: ids, texts, and the row of each id."""

    ids: list[str]
    texts: list[str]
    row: dict[str, int]


def run(
    documents: Path,
    tests: Path,
    out: Path,
    cfg: EvaluateConfig,
    *,
    systems: dict[str, Path],
    logs: Path | None = None,
    truth: Path | None = None,
    champion: Path | None = None,
) -> StageReport:
    """Writes metrics.json and per_query.parquet. `documents`: augment's out; `tests`: discriminate's out
    (gated test_qr).
    """
    rows = artifacts.read(documents, records.DOCUMENTS)
    ids = rows["doc_id"].to_pylist()
    corpus = Corpus(ids, rows["text"].to_pylist(), {d: n for n, d in enumerate(ids)})
    grades, complete = _grades(truth, corpus), not (truth and (truth / grading.SAMPLE).exists())
    sets = _sets(documents, tests, grades, corpus, cfg)
    queries = sorted({q for relevant in sets.values() if relevant for q in relevant})
    if not queries:
        raise InputError(
            documents / "test_ct",
            "no test query at all: the held-out days hold neither clicks nor reformulations",
        )
    per_query: dict[str, dict[str, dict[str, tuple[float, float]]]] = {}
    graded: dict[str, dict[str, float]] = {}
    found: dict[str, float | None] = {}
    diversity: dict[str, float | None] = {}
    clicked: dict[str, dict[str, float]] = {}
    exposed = _exposed(documents, corpus)
    bags, place = _bags(corpus), {q: n for n, q in enumerate(queries)}
    some = np.random.default_rng(cfg.seed).permutation(len(queries))[:DIVERSITY_QUERIES]
    for name, rank in tqdm(
        _rankers(systems, champion, corpus, cfg).items(), desc="evaluating", unit="system", disable=None
    ):
        ranked = rank(queries)
        per_query[name] = {s: _recalls(r, ranked, place) for s, r in sets.items() if r}
        graded[name] = _ndcg(grades, ranked, place)
        found[name] = _never_exposed(sets.get("truth"), exposed, ranked, place)
        diversity[name] = _diversity(ranked[some], bags)
        for kind, share in _clicked_found(sets["ct"] or {}, grades, ranked, place, complete=complete).items():
            clicked.setdefault(kind, {})[name] = share
    metrics = _metrics(per_query, graded, sets, cfg)
    metrics |= {"never_exposed_found": found, "diversity_at_10": diversity, "ct_by_grade": clicked}
    with artifacts.replacing(out) as folder:
        artifacts.write_json(folder / "metrics.json", metrics)
        pq.write_table(_table(per_query, graded), folder / "per_query.parquet", compression="zstd")
    shown = metrics["recall_at_100"]["truth"] or metrics["recall_at_100"]["qr_raw"] or {}
    return StageReport(
        numbers={"queries": len(queries), **{f"recall_at_100_{s}": x for s, x in shown.items()}}
    )


def _grades(truth: Path | None, corpus: Corpus) -> dict[str, dict[int, int]] | None:
    known = grading.read(truth)
    if known is None:
        return None
    out: dict[str, dict[int, int]] = {}
    for row in known.table.to_dict("records"):
        if row["doc_id"] in corpus.row:
            out.setdefault(row["query"], {})[corpus.row[row["doc_id"]]] = int(row["grade"])
    return out


def _pairs(folder: Path, table: records.Table, corpus: Corpus) -> Relevant:
    out: Relevant = {}
    for row in artifacts.read(folder, table).to_pylist():
        if row["video_id"] in corpus.row:
            out.setdefault(row["query"], set()).add(corpus.row[row["video_id"]])
    return out


def _sets(
    documents: Path,
    tests: Path,
    grades: dict[str, dict[int, int]] | None,
    corpus: Corpus,
    cfg: EvaluateConfig,
) -> dict[str, Relevant | None]:
    """Set -> query -> relevant rows; None where the set needs grades that nobody has."""
    raw = _pairs(documents, records.TEST_QR, corpus)
    sets: dict[str, Relevant | None] = {
        "ct": _pairs(documents, records.TEST_CT, corpus),
        "qr": _pairs(tests, records.TEST_QR, corpus),
        "qr_raw": raw,
    }
    known = artifacts.read(documents, records.QUERIES).to_pylist()
    train = {r["query"]: r for r in known if r["split"] == "train"}
    test = [r["query"] for r in known if r["split"] == "test"]
    if grades is None:
        sets |= dict.fromkeys(("qr_relevant", "truth", "unseen", "no_click"))
    else:
        right = {q: {d for d, g in grades[q].items() if g >= records.RELEVANT_GRADE} for q in grades}
        truth = {q: right[q] for q in test if right.get(q)}
        sets["qr_relevant"] = {q: both for q, docs in raw.items() if (both := docs & right.get(q, set()))}
        sets["truth"] = truth
        sets["unseen"] = {q: r for q, r in truth.items() if q not in train}
        sets["no_click"] = {q: r for q, r in truth.items() if q in train and train[q]["clicks"] == 0}
    searches = {q: train[q]["searches"] if q in train else 0 for q in test}
    for name in SLICES:
        sets[f"qr_{name}"] = {q: r for q, r in raw.items() if _slice(searches.get(q, 0), cfg) == name}
    return {name: None if relevant is None else _capped(relevant, cfg) for name, relevant in sets.items()}


def _slice(searches: int, cfg: EvaluateConfig) -> str:
    return "head" if searches >= cfg.head_searches else "torso" if searches >= cfg.torso_searches else "tail"


def _capped(relevant: Relevant, cfg: EvaluateConfig) -> Relevant:
    names = sorted(relevant)
    if len(names) <= cfg.max_queries:
        return {q: relevant[q] for q in names}
    drawn = np.random.default_rng(cfg.seed).choice(len(names), cfg.max_queries, replace=False)
    return {names[i]: relevant[names[i]] for i in sorted(drawn.tolist())}


def _rankers(
    systems: dict[str, Path], champion: Path | None, corpus: Corpus, cfg: EvaluateConfig
) -> dict[str, Rank]:
    rankers: dict[str, Rank] = {"bm25": lambda queries: _bm25(queries, corpus, cfg.depth)}
    for name, folder in systems.items():
        rankers[name] = lambda queries, folder=folder: _trained(folder, queries, corpus, cfg.depth)  # type: ignore[misc]
    if champion is not None:
        rankers["champion"] = lambda queries: _released(champion, queries, corpus, cfg.depth)
    return rankers


def _bm25(queries: list[str], corpus: Corpus, depth: int) -> np.ndarray:
    import bm25s

    def tokens(texts: list[str]) -> list[list[str]]:
        return [text.replace("|", " ").replace(";", " ").replace(":", " ").split() for text in texts]

    model = bm25s.BM25()
    model.index(tokens(corpus.texts), show_progress=False)
    rows, scores = model.retrieve(tokens(queries), k=min(depth, len(corpus.ids)), show_progress=False)
    return np.where(scores > 0, rows, -1)  # what shares no word was not found


def _trained(folder: Path, queries: list[str], corpus: Corpus, depth: int) -> np.ndarray:
    from crops.retriever import encoder as encoders

    model = encoders.load(folder)
    found = index.exact(
        model.encode(corpus.texts, kind="document"), model.encode(queries, kind="query"), depth
    )
    return found[1]


def _released(folder: Path, queries: list[str], corpus: Corpus, depth: int) -> np.ndarray:
    from crops.release.encoder import OnnxEncoder

    model = OnnxEncoder(folder)
    return index.exact(
        model.encode(corpus.texts, kind="document"), model.encode(queries, kind="query"), depth
    )[1]


def _recalls(relevant: Relevant, ranked: np.ndarray, place: dict[str, int]) -> dict[str, tuple[float, float]]:
    names = list(relevant)
    rows = ranked[[place[q] for q in names]]
    sets = [relevant[q] for q in names]
    at_20, at_100 = (evaluation.recall_per_query(rows, sets, k) for k in (20, 100))
    return {q: (float(a), float(b)) for q, a, b in zip(names, at_20, at_100, strict=True)}


def _ndcg(
    grades: dict[str, dict[int, int]] | None, ranked: np.ndarray, place: dict[str, int]
) -> dict[str, float]:
    """Per query with at least one graded document; empty where nobody knows grades."""
    names = [q for q in place if grades and any(g > 0 for g in grades.get(q, {}).values())]
    if not names or grades is None:
        return {}
    values = evaluation.ndcg_per_query(ranked[[place[q] for q in names]], [grades[q] for q in names], 4)
    return dict(zip(names, values.tolist(), strict=True))


def _exposed(documents: Path, corpus: Corpus) -> Relevant:
    shown: Relevant = {}
    rows = artifacts.read(documents, records.CANDIDATES, ["query", "video_id", "perspective"])
    for query, video, perspective in zip(*(rows[c].to_pylist() for c in rows.column_names), strict=True):
        if perspective in perspectives.SHOWN and video in corpus.row:
            shown.setdefault(query, set()).add(corpus.row[video])
    return shown


def _never_exposed(
    truth: Relevant | None, exposed: Relevant, ranked: np.ndarray, place: dict[str, int]
) -> float | None:
    """The filter bubble: of the relevant documents never shown for the query in the training days, the share
    in the top 100.
    """
    hidden = {q: left for q, docs in (truth or {}).items() if (left := docs - exposed.get(q, set()))}
    if not hidden:
        return None
    found = [len(docs.intersection(ranked[place[q]][:100].tolist())) for q, docs in hidden.items()]
    return round(sum(found) / sum(len(docs) for docs in hidden.values()), 4)


def _diversity(ranked: np.ndarray, bags: np.ndarray) -> float | None:
    """Diversity of the first ten; None where no query found two documents."""
    if not (ranked[:, 1:2] >= 0).any():
        return None
    return round(evaluation.diversity_at_k(ranked, bags, 10), 4)


def _clicked_found(
    clicked: Relevant,
    grades: dict[str, dict[int, int]] | None,
    ranked: np.ndarray,
    place: dict[str, int],
    *,
    complete: bool,
) -> dict[str, float]:
    """CT counts every click as right. Share of its pairs in the top 100: of those that truth calls relevant,
    and of the rest.

    Where grades are a sample, only the judged pairs count.
    """
    found: dict[str, list[bool]] = {}
    for query in clicked.keys() & (grades or {}).keys():
        known, top = (grades or {})[query], set(ranked[place[query]][:100].tolist())
        for doc in clicked[query] if complete else clicked[query] & known.keys():
            kind = "relevant" if known.get(doc, 0) >= records.RELEVANT_GRADE else "not relevant"
            found.setdefault(kind, []).append(doc in top)
    return {kind: round(float(np.mean(hits)), 4) for kind, hits in sorted(found.items(), reverse=True)}


def _bags(corpus: Corpus, width: int = 128) -> np.ndarray:
    """Unit vectors of hashed words [D, 128]: a measure of diversity that belongs to no system."""
    import hashlib

    out = np.zeros((len(corpus.texts), width), dtype=np.float32)
    for row, text in enumerate(corpus.texts):
        for word in text.split():
            digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
            out[row, digest[0] % width] += 1.0 if digest[1] % 2 else -1.0
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    vectors: np.ndarray = out / np.maximum(norms, 1e-9)
    return vectors


PerQuery = dict[str, dict[str, dict[str, tuple[float, float]]]]


def _metrics(
    per_query: PerQuery, graded: dict[str, dict[str, float]], sets: dict[str, Any], cfg: EvaluateConfig
) -> dict[str, Any]:
    def mean(name: str, column: int) -> dict[str, float] | None:
        if not sets.get(name):
            return None
        return {
            s: round(float(np.mean([v[column] for v in r[name].values()])), 4) for s, r in per_query.items()
        }

    recalls = {
        at: {name: mean(name, column) for name in SETS}
        for at, column in (("recall_at_20", 0), ("recall_at_100", 1))
    }
    ndcg = {s: round(float(np.mean(list(v.values()))), 4) if v else None for s, v in graded.items()}
    return {
        "recall_at_100": recalls["recall_at_100"],
        "recall_at_20": recalls["recall_at_20"],
        "ndcg_at_4": ndcg,
        "intervals": {name: _intervals(name, per_query, cfg) for name in SETS if sets.get(name)},
        "slices": {name: mean(f"qr_{name}", 1) for name in SLICES},
        "counts": {name: None if r is None else len(r) for name, r in sets.items()},
    }


def _intervals(name: str, per_query: PerQuery, cfg: EvaluateConfig) -> dict[str, Any]:
    """Recall@100: an interval per system, and of `crops` minus each other system, paired over queries."""
    values = {s: np.array([v[1] for v in r[name].values()]) for s, r in per_query.items()}
    out: dict[str, Any] = {
        s: _rounded(evaluation.bootstrap(v, draws=cfg.bootstrap, seed=cfg.seed)) for s, v in values.items()
    }
    if "crops" in values:
        out["crops_minus"] = {
            s: {
                k: round(x, 4)
                for k, x in evaluation.compare(values["crops"], v, draws=cfg.bootstrap, seed=cfg.seed).items()
            }
            for s, v in values.items()
            if s != "crops"
        }
    return out


def _rounded(interval: tuple[float, float]) -> list[float]:
    return [round(x, 4) for x in interval]


def _table(per_query: PerQuery, graded: dict[str, dict[str, float]]) -> pa.Table:
    rows = [
        (name, system, query, at_20, at_100, graded[system].get(query))
        for system, by_set in sorted(per_query.items())
        for name, values in sorted(by_set.items())
        for query, (at_20, at_100) in values.items()
    ]
    kinds = [pa.string()] * 3 + [pa.float64()] * 3
    names = ("set", "system", "query", "recall_at_20", "recall_at_100", "ndcg_at_4")
    schema = pa.schema(list(zip(names, kinds, strict=True)))
    return pa.table({name: [row[n] for row in rows] for n, name in enumerate(names)}, schema=schema)
