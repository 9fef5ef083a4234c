"""Rankings of the whole catalogue: by shared words, and the vectors that diversity is measured in."""

import hashlib
from collections.abc import Sequence

import numpy as np


def bm25(queries: Sequence[str], texts: Sequence[str], depth: int) -> np.ndarray:
    """int [Q, min(depth, D)]: rows of `texts`, best first; -1 for what shares no word with the query."""
    import bm25s

    def tokens(texts: Sequence[str]) -> list[list[str]]:
        return [text.replace("|", " ").replace(";", " ").replace(":", " ").split() for text in texts]

    model = bm25s.BM25()
    model.index(tokens(texts), show_progress=False)
    rows, scores = model.retrieve(tokens(queries), k=min(depth, len(texts)), show_progress=False)
    return np.where(scores > 0, rows, -1)


def bags(texts: Sequence[str], width: int = 128) -> np.ndarray:
    """Unit vectors of hashed words [D, 128]: a measure of diversity that belongs to no system."""
    out = np.zeros((len(texts), width), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in text.split():
            digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
            out[row, digest[0] % width] += 1.0 if digest[1] % 2 else -1.0
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    vectors: np.ndarray = out / np.maximum(norms, 1e-9)
    return vectors
