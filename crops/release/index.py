"""The document index: FAISS behind `search(vectors, k) -> (scores, rows)`, with exact search as the
oracle.
"""

from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import pyarrow.parquet as pq

from crops.errors import ConfigError, InputError
from crops.release import layout
from crops.tables import artifacts

# Vectors that an index learns its lists and codes from: 256 for each of 4,096 lists, as many as FAISS takes.
TRAINED_ON = 1 << 20
ADDED_AT_ONCE = 100_000
# Scores held at once by exact search: 64 MiB of float32, and as much again for the positions of the best.
EXACT_SCORES = 1 << 24


def exact(
    documents: np.ndarray, queries: np.ndarray, k: int, *, scores_at_once: int = EXACT_SCORES
) -> tuple[np.ndarray, np.ndarray]:
    """Inner products and rows, best first, both [Q, min(k, D)]; ties go to the lower row.

    documents float32 [D, H], queries float32 [Q, H]; at most `scores_at_once` scores (one query at least) are
    in memory.
    """
    if k < 1:
        raise ValueError(f"k is {k}, expected >= 1")
    k, step = min(k, len(documents)), max(1, scores_at_once // max(1, len(documents)))
    scores = np.empty((len(queries), k), dtype=np.result_type(queries, documents))
    rows = np.empty((len(queries), k), dtype=np.int64)
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        scores[part], rows[part] = _best(queries[part] @ documents.T, k)
    return scores, rows


def _best(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k highest of each row of scores [Q, D] and their columns, both [Q, k]; equal scores in the order of
    the columns.
    """
    rows = np.argpartition(scores, scores.shape[1] - k, axis=1)[
        :, scores.shape[1] - k :
    ]  # [Q, k], in no order
    last = np.take_along_axis(scores, rows, axis=1).min(axis=1, keepdims=True)  # [Q, 1]
    # Where more documents than fit share the last score, the partition took any of them: take the lowest rows
    # instead.
    for q in np.flatnonzero((scores >= last).sum(axis=1) > k):
        above, level = np.flatnonzero(scores[q] > last[q]), np.flatnonzero(scores[q] == last[q])
        rows[q] = np.concatenate([above, level[: k - len(above)]])
    rows.sort(axis=1)
    best = np.take_along_axis(scores, rows, axis=1)
    order = np.argsort(-best, axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1), np.take_along_axis(rows, order, axis=1)


def factory_for(rows: int, sizes: dict[int, str]) -> str:
    """The factory string of the smallest size in `sizes` (most rows -> string) that holds `rows`, else of the
    largest.
    """
    fitting = [limit for limit in sorted(sizes) if rows <= limit]
    return sizes[fitting[0] if fitting else max(sizes)]


def bytes_each(factory: str, width: int) -> int:
    """What an index of that kind holds of each vector at least; 0 where FAISS does not say, or does not know
    the kind.
    """
    try:
        inner = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
        return int(getattr(inner, "storage", inner).sa_code_size())  # a graph keeps its vectors apart
    except RuntimeError:
        return 0


@dataclass(frozen=True, slots=True)
class Index:
    """A FAISS index over unit vectors by inner product. `ids[row]` is the document of a row."""

    inner: faiss.Index
    ids: tuple[str, ...]

    @property
    def width(self) -> int:
        """H of its vectors."""
        return int(self.inner.d)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 and rows int64, both [Q, k], best first; row -1 where fewer were found."""
        if queries.ndim != 2 or queries.shape[1] != self.inner.d:
            raise ValueError(f"queries have shape {queries.shape}, expected [Q, {self.inner.d}]")
        return self.inner.search(np.ascontiguousarray(queries, dtype=np.float32), min(k, self.inner.ntotal))


def build(
    vectors: np.ndarray,
    ids: tuple[str, ...],
    *,
    factory: str,
    nprobe: int,
    ef_search: int,
    refine_factor: int = 1,
) -> Index:
    """Trains the index on some of the vectors and adds all of them, a part at a time; a ConfigError where
    FAISS has no such kind, or not for so many documents. vectors float32 [D, H], unit length, in the order
    of `ids`; they may be mapped from a file.
    """
    if len(vectors) != len(ids) or not len(ids):
        raise ValueError(
            f"{len(vectors)} vectors for {len(ids)} documents, expected as many and at least one"
        )
    learnt = vectors[:: max(1, len(vectors) // TRAINED_ON)]
    try:
        inner = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        inner.train(np.ascontiguousarray(learnt, dtype=np.float32))
        for start in range(0, len(vectors), ADDED_AT_ONCE):
            inner.add(np.ascontiguousarray(vectors[start : start + ADDED_AT_ONCE], dtype=np.float32))
    except RuntimeError as error:
        what = f"{len(ids):,} documents of width {vectors.shape[1]}"
        reason = str(error).rsplit("failed: ", 1)[-1].rsplit("cpp:", 1)[-1]
        raise ConfigError(f"index.factories: {factory!r} does not fit {what}: FAISS: {reason}") from error
    space = faiss.ParameterSpace()
    for name, value in (("nprobe", nprobe), ("efSearch", ef_search), ("k_factor_rf", refine_factor)):
        try:
            space.set_index_parameter(inner, name, value)
        except RuntimeError:  # this kind of index has no such parameter
            continue
    return Index(inner, ids)


def extended(path: Path, ids: tuple[str, ...], vectors: np.ndarray, new: tuple[str, ...]) -> Index:
    """The index at `path`, whose documents are `ids`, with `vectors` float32 [N, H] of `new` behind them;
    read into memory.
    """
    inner = faiss.read_index(str(path))
    inner.add(np.ascontiguousarray(vectors, dtype=np.float32))
    return Index(inner, (*ids, *new))


def save(index: Index, path: Path) -> str:
    """Writes the index; returns its sha256."""
    faiss.write_index(index.inner, str(path))
    return layout.sha256(path)


def load(path: Path, ids: tuple[str, ...], *, checksum: str, width: int) -> Index:
    """Memory-mapped; an InputError where the checksum, the width or the number of documents is another."""
    if not path.exists():
        raise InputError(path, "no such file, expected a FAISS index")
    if (actual := layout.sha256(path)) != checksum:
        raise InputError(
            path, f"sha256 is {actual[:12]}…, expected {checksum[:12]}…: not the index that was registered"
        )
    try:
        # IO_FLAG_MMAP would map inverted lists only, and read Flat, HNSW and refined indexes into memory.
        inner = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        raise InputError(
            path, f"not a readable FAISS index ({' '.join(str(error).split())[-120:]})"
        ) from error
    if inner.d != width or inner.ntotal != len(ids):
        expected = f"{len(ids)} vectors of width {width}"
        raise InputError(path, f"holds {inner.ntotal} vectors of width {inner.d}, expected {expected}")
    return Index(inner, ids)


def ids_of(release: Path) -> tuple[str, ...]:
    """The documents of a release's index, by row."""
    return tuple(pq.read_table(release / layout.DOC_IDS)["doc_id"].to_pylist())


def of_release(release: Path) -> Index:
    """The index of a release; an InputError if it is not what the release's other files say."""
    width = int(artifacts.read_json(release / layout.ENCODER)["width"])
    facts = artifacts.read_json(release / layout.INDEX_FACTS)
    return load(release / layout.INDEX, ids_of(release), checksum=facts["sha256"], width=width)
