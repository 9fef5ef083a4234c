"""The catalogue by its words: BM25 beside the vectors, and the two rankings as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crops.text import words

# Cormack, Clarke and Büttcher (2009): a document counts 1 / (60 + its rank) in each ranking.
RANK_CONSTANT = 60


@dataclass(frozen=True, slots=True)
class LexicalIndex:
    """BM25 over `size` texts; in memory about as large as the texts."""

    inner: Any  # bm25s.BM25, which takes no corpus without a word: None there
    size: int

    def search(self, queries: Sequence[str], k: int) -> np.ndarray:
        """int64 [Q, min(k, size)]: rows, best first; -1 for what shares no word with the query
        (crops.text.words: characters and pairs of them in scripts without spaces).
        """
        if self.inner is None or not len(queries):
            return np.full((len(queries), min(k, self.size)), -1)
        asked = [words(query) for query in queries]
        rows, scores = self.inner.retrieve(asked, k=min(k, self.size), show_progress=False)
        ranked: np.ndarray = np.where(scores > 0, rows, -1)
        return ranked


def build(texts: Sequence[str]) -> LexicalIndex:
    """The index of `texts`, at least one, whose positions are the rows."""
    import bm25s

    read = [words(text) for text in texts]
    if not any(read):
        return LexicalIndex(None, len(texts))
    inner = bm25s.BM25()
    inner.index(read, show_progress=False)
    return LexicalIndex(inner, len(texts))


def fused(rankings: Sequence[Sequence[int]], k: int) -> tuple[list[int], list[float]]:
    """The rows of all `rankings` (best first; -1 is padding) by reciprocal rank fusion, at most k, and their
    scores; of equal ones the row that an earlier ranking has higher comes first.

    >>> fused([[7, 8], [8, -1]], 2)[0]
    [8, 7]
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for rank, row in enumerate(ranking, start=1):
            if row >= 0:
                scores[row] = scores.get(row, 0.0) + 1 / (RANK_CONSTANT + rank)
    best = sorted(scores.items(), key=lambda pair: -pair[1])[:k]
    return [row for row, _ in best], [score for _, score in best]
