"""Whether what users type, and what the release makes of it, is still what the release was made for.

Per arm: the share of words that the release has never seen, the norm of query vectors, where they lie as a
whole, and whether the index still finds what it found when it was loaded. Queries and users never leave this
module; only sums do.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from crops.text import words
from serving.gateway.metrics import Metrics

DEPTH = 10
# The running mean of query vectors forgets half of itself in 700 queries: calm enough, and an hour's shift
# shows.
KEPT = 0.999
FIRST = 100  # queries before the mean says anything


def vocabulary(texts: Iterable[str]) -> frozenset[str]:
    """The words of documents and training queries (crops.text.words)."""
    return frozenset(word for text in texts for word in words(text))


@dataclass(slots=True, kw_only=True)
class Drift:
    """One release's watch.

    words      the release's vocabulary
    probes     float32 [P, H]: the vectors of its fingerprint, queries of the log it was made from; their mean
               is the reference
    found      int [P, k]: what the index gave for them when it was loaded
    """

    words: frozenset[str]
    probes: np.ndarray
    found: np.ndarray
    _mean: np.ndarray | None = field(default=None, init=False)
    _seen: int = field(default=0, init=False)

    def query(self, metrics: Metrics, arm: str, normal: str, vector: np.ndarray) -> None:
        """Counts one search: its normalised text and float32 [H]."""
        typed = words(normal)
        metrics.words.labels(arm).inc(len(typed))
        metrics.unknown_words.labels(arm).inc(sum(word not in self.words for word in typed))
        metrics.vector_norm.labels(arm).observe(float(np.sqrt(vector @ vector)))
        self._mean = vector.copy() if self._mean is None else KEPT * self._mean + (1 - KEPT) * vector
        self._seen += 1

    def report(self, metrics: Metrics, arm: str) -> None:
        """Sets the gauge of the cosine between the mean of the queries and that of the release's own."""
        if self._mean is not None and self._seen >= FIRST:
            reference = self.probes.mean(axis=0)
            lengths = float(np.linalg.norm(reference) * np.linalg.norm(self._mean))
            metrics.centroid.labels(arm).set(float(reference @ self._mean) / lengths if lengths else 0.0)

    def recall(self, rows: np.ndarray) -> float:
        """Share of what the index found at load that `rows` (int [P, k], the same search now) still has."""
        hits = sum(
            len(set(now) & set(then)) for now, then in zip(rows.tolist(), self.found.tolist(), strict=True)
        )
        return hits / max(1, self.found.size)
