"""Where an encoder is wrong: queries whose positives it ranks low, and what it finds instead."""

from dataclasses import dataclass

import numpy as np

from crops.retriever.batch import Pairs
from crops.retriever.encoder import Encoder

ROWS = 512  # queries whose scores are held at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Focus:
    """What an encoder gets wrong about the samples.

    lost    float64 [Q]     mean over a query's positives of log2(1 + texts, no positives of it, that stand
                            before it); 0: all of them come first
    rivals  int64 [Q, K]    numbers of the texts that it ranks highest and nothing is known of, best first; -1
                            where there are fewer
    """

    lost: np.ndarray
    rivals: np.ndarray


def focus(encoder: Encoder, samples: Pairs, *, rivals: int, margin: float) -> Focus:
    """Ranks all texts of the samples for all of their queries, exactly.

    A text is a rival of a query only where its cosine is below `margin` times the mean of the query's
    positives: what is as near as they are may well be relevant (positive-aware mining, arXiv 2407.15831).
    Known pairs, whatever their label, and what nobody knows to be irrelevant (-1) are none.
    """
    queries = encoder.encode(samples.queries, kind="query")
    texts = encoder.encode(samples.texts, kind="document")
    lost = np.zeros(len(queries))
    rival = np.full((len(queries), rivals), -1, dtype=np.int64)
    starts = samples.starts()
    for first in range(0, len(queries), ROWS):
        scores = queries[first : first + ROWS] @ texts.T  # [ROWS, D]
        for query, row in enumerate(scores, start=first):
            own = slice(starts[query], starts[query + 1])
            positives = samples.text[own][samples.label[own] >= samples.positive_min]
            if not len(positives):
                continue
            near = row[positives]
            others = np.sort(np.delete(row, positives))
            lost[query] = np.log2(1 + len(others) - np.searchsorted(others, near, side="right")).mean()
            limit = margin * near.mean()
            row[samples.text[own]] = -np.inf
            row[row >= limit] = -np.inf
            best = np.argsort(-row, kind="stable")[:rivals]
            rival[query, : len(best)] = np.where(np.isfinite(row[best]), best, -1)
    return Focus(lost=lost, rivals=rival)
