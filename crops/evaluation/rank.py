"""Rankings of the whole catalogue: by shared words, and the vectors that diversity is measured in."""

import hashlib
from collections.abc import Sequence

import numpy as np

from crops.text import words


def bm25(queries: Sequence[str], texts: Sequence[str], depth: int) -> np.ndarray:
    """int [Q, min(depth, D)]: rows of `texts`, best first; -1 for what shares no word with the query
    (crops.text.words: characters and pairs of them in scripts without spaces).
    """
    import bm25s

    model = bm25s.BM25()
    model.index([words(text) for text in texts], show_progress=False)
    asked = [words(query) for query in queries]
    rows, scores = model.retrieve(asked, k=min(depth, len(texts)), show_progress=False)
    return np.where(scores > 0, rows, -1)


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
