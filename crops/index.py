"""The document index: FAISS behind `search(vectors, k) -> (scores, rows)`, with exact search as the oracle."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from crops.errors import InputError


def exact(documents: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Inner products and rows, best first, both [Q, min(k, D)]; ties go to the lower row.

    documents float32 [D, H], queries float32 [Q, H]
    """
    k = min(k, len(documents))
    scores = queries @ documents.T
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, rows, axis=1), rows


def factory_for(rows: int, sizes: dict[int, str]) -> str:
    """The factory string of the smallest size in `sizes` (most rows -> string) that holds `rows`, else of the largest."""
    fitting = [limit for limit in sorted(sizes) if rows <= limit]
    return sizes[fitting[0] if fitting else max(sizes)]


@dataclass(frozen=True, slots=True)
class Index:
    """A FAISS index over unit vectors by inner product. `ids[row]` is the document of a row."""

    inner: faiss.Index
    ids: tuple[str, ...]

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 and rows int64, both [Q, k], best first; row -1 where fewer were found."""
        if queries.ndim != 2 or queries.shape[1] != self.inner.d:
            raise ValueError(f"queries have shape {queries.shape}, expected [Q, {self.inner.d}]")
        return self.inner.search(np.ascontiguousarray(queries, dtype=np.float32), min(k, self.inner.ntotal))


def build(vectors: np.ndarray, ids: tuple[str, ...], *, factory: str, nprobe: int, ef_search: int) -> Index:
    """Trains and fills the index. vectors float32 [D, H], unit length, in the order of `ids`."""
    if len(vectors) != len(ids) or not len(ids):
        raise ValueError(f"{len(vectors)} vectors for {len(ids)} documents, expected as many and at least one")
    inner = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    inner.train(vectors)
    inner.add(vectors)
    space = faiss.ParameterSpace()
    for name, value in (("nprobe", nprobe), ("efSearch", ef_search)):
        try:
            space.set_index_parameter(inner, name, value)
        except RuntimeError:  # this kind of index has no such parameter
            continue
    return Index(inner, ids)


def save(index: Index, path: Path) -> str:
    """Writes the index; returns its sha256."""
    faiss.write_index(index.inner, str(path))
    return sha256(path)


def load(path: Path, ids: tuple[str, ...], *, checksum: str, width: int) -> Index:
    """Memory-mapped; an InputError where the checksum, the width or the number of documents is another."""
    if not path.exists():
        raise InputError(path, "no such file, expected a FAISS index")
    if (found := sha256(path)) != checksum:
        raise InputError(path, f"sha256 is {found[:12]}…, expected {checksum[:12]}…: not the index that was registered")
    inner = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    if inner.d != width or inner.ntotal != len(ids):
        expected = f"{len(ids)} vectors of width {width}"
        raise InputError(path, f"holds {inner.ntotal} vectors of width {inner.d}, expected {expected}")
    return Index(inner, ids)


def sha256(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
