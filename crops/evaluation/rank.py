"""Rankings of the whole catalogue: by words, two as one; and the vectors that diversity is measured in."""

import hashlib
from collections.abc import Sequence

import numpy as np

from crops.release import lexical
from crops.text import words


def bm25(queries: Sequence[str], texts: Sequence[str], depth: int) -> np.ndarray:
    """int [Q, min(depth, D)]: rows of `texts`, best first; -1 for what shares no word with the query."""
    return lexical.build(texts).search(queries, depth)


def fused(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """int [Q, K] of two rankings [Q, K1] and [Q, K2] by reciprocal rank, K the larger of both depths; -1 is
    padding.
    """
    depth = max(first.shape[1], second.shape[1])
    out = np.full((len(first), depth), -1)
    for q, both in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        rows, _ = lexical.fused(both, depth)
        out[q, : len(rows)] = rows
    return out


def bags(texts: Sequence[str], width: int = 128) -> np.ndarray:
    """Unit vectors of hashed words [D, 128]: a measure of diversity that belongs to no system."""
    out = np.zeros((len(texts), width), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in words(text):
            digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
            out[row, digest[0] % width] += 1.0 if digest[1] % 2 else -1.0
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    vectors: np.ndarray = out / np.maximum(norms, 1e-9)
    return vectors
