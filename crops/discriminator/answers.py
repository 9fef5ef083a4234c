"""LLM answers with proof: those that find what answers the query, and of like ones the first."""

from collections.abc import Sequence

import numpy as np

ROWS = 512  # answers whose scores are held at once


def round_trip(
    answers: np.ndarray, documents: np.ndarray, relevant: Sequence[frozenset[int]], *, depth: int
) -> np.ndarray:
    """bool [A]: whether the catalogue's `depth` nearest documents to an answer hold one of those that are
    relevant to what was asked (consistency filter: Dai et al., arXiv 2209.11755). True where none is known:
    that is no evidence against it.

    answers, documents  float32 [A, H], [D, H], rows of length 1
    relevant            A sets of rows of `documents`
    """
    passed = np.ones(len(answers), dtype=bool)
    asked = np.array([i for i, rows in enumerate(relevant) if rows], dtype=np.int64)
    for first in range(0, len(asked), ROWS):
        own = asked[first : first + ROWS]
        scores = answers[own] @ documents.T  # [ROWS, D]
        for answer, row in zip(own.tolist(), scores, strict=True):
            best = row[list(relevant[answer])].max()
            passed[answer] = (row > best).sum() < depth
    return passed


def distinct(vectors: np.ndarray, groups: Sequence[str], *, most_alike: float) -> np.ndarray:
    """bool [A]: whether an answer is at most `most_alike` near to all of its group that are kept before it.

    vectors  float32 [A, H], rows of length 1
    """
    kept = np.zeros(len(vectors), dtype=bool)
    before: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        own = before.setdefault(group, [])
        if not own or (vectors[own] @ vectors[row]).max() <= most_alike:
            own.append(row)
            kept[row] = True
    return kept
