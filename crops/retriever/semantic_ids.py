"""Semantic ids: documents as short rows of digits, near vectors with a common beginning; and the trie of
them.
"""

from dataclasses import dataclass
from itertools import pairwise

import faiss
import numpy as np

BRANCHES = 32  # children of a cluster; with 16, and a digit more, it found less. DSI: 10
ROUNDS = 20  # of k-means


def made(vectors: np.ndarray, *, branches: int = BRANCHES, seed: int = 0) -> np.ndarray:
    """int32 [D, L]: the id of each document by hierarchical k-means (DSI, arXiv 2202.06991, section 3.2).

    Every digit but the last is the number of a cluster within the one before it, below `branches`. The last
    one tells the members of a cluster apart, in the order of their rows, and goes as far as the largest
    cluster asks. A cluster of at most `branches` documents is not cut again: its further digits are 0. L is
    the least with branches ** L >= D. ValueError without a document or with fewer than 2 branches.

    vectors  float [D, H]
    """
    if len(vectors) < 1 or branches < 2:
        raise ValueError(f"{len(vectors)} vectors, {branches} branches: expected at least 1 and 2")
    levels = 1
    while branches**levels < len(vectors):
        levels += 1
    ids = np.zeros((len(vectors), levels), dtype=np.int32)
    chance = np.random.default_rng(seed)
    open_ = [np.arange(len(vectors))]
    for level in range(levels - 1):
        parts = list[np.ndarray]()
        for rows in open_:
            small = len(rows) <= branches
            ids[rows, level] = 0 if small else _clusters(vectors[rows], branches, chance)
            parts += [rows[ids[rows, level] == digit] for digit in range(branches)]
        open_ = [rows for rows in parts if len(rows)]
    for rows in open_:
        ids[rows, -1] = np.arange(len(rows))
    return ids


def _clusters(vectors: np.ndarray, count: int, chance: np.random.Generator) -> np.ndarray:
    """int [N]: the cluster of each of `vectors`, N > count."""
    means = faiss.Kmeans(
        vectors.shape[1], count, niter=ROUNDS, seed=int(chance.integers(1 << 31)), min_points_per_centroid=1
    )
    rows = np.ascontiguousarray(vectors, dtype=np.float32)
    means.train(rows)
    nearest: np.ndarray = means.index.search(rows, 1)[1][:, 0]
    return nearest


@dataclass(frozen=True, slots=True)
class Trie:
    """The ids that exist. A node is a beginning of ids, the root 0, and each level's come after those of the
    level before.

    ids       int32 [D, L]
    nodes     int32 [D, L]: the node before each digit of each document's id
    children  int32 [N, W]: from a node and a digit to the next node, and from a node of the last level to the
              document's row; -1 where no document goes on so
    """

    ids: np.ndarray
    nodes: np.ndarray
    children: np.ndarray


def trie(ids: np.ndarray) -> Trie:
    """Of ids int [D, L]; ValueError where two documents have one id."""
    levels, width = ids.shape[1], int(ids.max()) + 1
    nodes, starts = [np.zeros(len(ids), dtype=np.int64)], [0, 1]
    for level in range(levels):
        within = (nodes[-1] - starts[-2]) * width + ids[:, level]
        numbers = np.unique(within, return_inverse=True)[1]
        nodes.append(numbers + starts[-1])
        starts.append(starts[-1] + int(numbers.max()) + 1)
    if starts[-1] - starts[-2] < len(ids):
        raise ValueError(f"{len(ids)} documents share {starts[-1] - starts[-2]} ids, expected one each")
    nodes[-1] = np.arange(len(ids))
    children = np.full((starts[-2], width), -1, dtype=np.int32)
    for level, (before, after) in enumerate(pairwise(nodes)):
        children[before, ids[:, level]] = after
    return Trie(ids.astype(np.int32), np.stack(nodes[:-1], axis=1).astype(np.int32), children)
