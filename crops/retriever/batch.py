"""Batches: a few positives and lower samples per query, every distinct text once, and no false negatives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Samples by number: row i says that text `text[i]` has `label[i]` for query `query[i]`. Equal texts share a number."""

    queries: tuple[str, ...]
    texts: tuple[str, ...]
    query: np.ndarray  # int64 [N]
    text: np.ndarray  # int64 [N]
    label: np.ndarray  # int8 [N]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Numbers of the queries [Q] and of the distinct texts [D], and labels int8 [Q, D]: -1 for known but not drawn."""

    queries: np.ndarray
    texts: np.ndarray
    labels: np.ndarray


def pairs(rows: Sequence[tuple[str, str, int]]) -> Pairs:
    """From (query, text, label) in any order; of several labels of one (query, text) the highest stays. ValueError when empty."""
    best: dict[tuple[str, str], int] = {}
    for query, text, label in rows:
        best[query, text] = max(label, best.get((query, text), -1))
    if not best:
        raise ValueError("no samples: nothing to train on")
    ordered = sorted(best)
    queries, texts = sorted({q for q, _ in ordered}), sorted({t for _, t in ordered})
    of_query, of_text = {q: i for i, q in enumerate(queries)}, {t: i for i, t in enumerate(texts)}
    return Pairs(
        queries=tuple(queries), texts=tuple(texts), query=np.array([of_query[q] for q, _ in ordered]),
        text=np.array([of_text[t] for _, t in ordered]), label=np.array([best[key] for key in ordered], dtype=np.int8),
    )  # fmt: skip


class Batches:
    """Batch number `step` depends on nothing but the samples, the seed and the step: a resumed run draws the same ones."""

    def __init__(self, samples: Pairs, *, anchor_min: int, size: int, positives: int, lower: int, seed: int) -> None:
        self.samples, self.size, self.positives, self.lower, self.seed = samples, size, positives, lower, seed
        ends = np.flatnonzero(np.diff(samples.query)) + 1
        self._rows = np.split(np.arange(len(samples.query)), ends)  # rows of each query; the rows are sorted by query
        self.usable = np.array([q for q, rows in enumerate(self._rows) if samples.label[rows].max() >= anchor_min])
        if not len(self.usable):
            raise ValueError(f"no query has a sample with a label >= {anchor_min}: nothing to train on")

    @property
    def per_epoch(self) -> int:
        """Steps of one pass over the queries; those that do not fill a last batch wait for the next, shuffled pass."""
        return max(1, len(self.usable) // self.size)

    def at(self, step: int) -> Batch:
        """The batch of one step (0-based). ValueError where a query has no label-0 document in it."""
        epoch, place = divmod(step, self.per_epoch)
        order = np.random.default_rng((self.seed, 0, epoch)).permutation(self.usable)
        chance = np.random.default_rng((self.seed, 1, step))
        queries = order[place * self.size : (place + 1) * self.size]
        drawn = [self._draw(self._rows[q], chance) for q in queries]
        texts = np.unique(self.samples.text[np.concatenate(drawn)])
        labels = np.zeros((len(queries), len(texts)), dtype=np.int8)
        for row, (query, rows) in enumerate(zip(queries, drawn, strict=True)):
            known = self.samples.text[self._rows[query]]
            at = np.searchsorted(texts, known).clip(max=len(texts) - 1)
            labels[row, at[texts[at] == known]] = -1
            labels[row, np.searchsorted(texts, self.samples.text[rows])] = self.samples.label[rows]
        if len(empty := np.flatnonzero(~(labels == 0).any(axis=1))):
            name = self.samples.queries[queries[empty[0]]]
            raise ValueError(f"step {step}: query {name!r} has no label-0 document among {len(texts)}; raise batch_queries")
        return Batch(queries=queries, texts=texts, labels=labels)

    def _draw(self, rows: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        """At most `positives` rows with a label >= 4, and `lower` of each lower label."""
        label = self.samples.label[rows]
        groups = [(rows[label >= 4], self.positives)] + [(rows[label == k], self.lower) for k in (3, 2, 1)]
        return np.concatenate([g if len(g) <= n else chance.choice(g, n, replace=False) for g, n in groups])
