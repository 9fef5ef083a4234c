"""Batches: a few positives and lower samples per query, every distinct text once, and no false negatives."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crops.perspectives import CLICK
from crops.retriever.duplicates import near_duplicates
from crops.retriever.errors import NoNegatives, NothingToTrainOn


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Samples by number: row i says that text `text[i]` has `label[i]` for query `query[i]`. Equal texts
    share a number. Labels from `positive_min` on are those of positives; -1: no sample, but not to be taken
    for irrelevant either. Sorted by query and text. `weight`: the chance of row i to be a sample when its
    query has its turn; None: each is. `theta`: what the discriminator says of row i, NaN where it was not
    asked. `home`: the folder that all of it is mapped from.
    """

    queries: Sequence[str]
    texts: Sequence[str]
    query: np.ndarray  # int [N]
    text: np.ndarray  # int [N]
    label: np.ndarray  # int8 [N]
    positive_min: int
    weight: np.ndarray | None = None  # float32 [N], 0..1
    theta: np.ndarray | None = None  # float32 [N], 0..1
    home: Path | None = None

    def starts(self) -> np.ndarray:
        """int [Q + 1]: the rows of query q begin at starts[q] and end before starts[q + 1]."""
        return np.searchsorted(self.query, np.arange(len(self.queries) + 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Numbers of the queries [Q] and of the distinct texts [D], and labels int8 [Q, D]: -1 for known but not
    drawn, and for what nobody knows to be irrelevant.
    """

    queries: np.ndarray
    texts: np.ndarray
    labels: np.ndarray


def pairs(
    rows: Sequence[tuple[str, str, int]],
    *,
    positive_min: int = CLICK.label,
    unknown: Iterable[tuple[str, str]] = (),
) -> Pairs:
    """From (query, text, label) in any order; of several labels of one (query, text) the highest stays.
    NothingToTrainOn when empty.

    unknown  (query, text) that are no samples, while nothing says that they are irrelevant: held out, or
             dropped by the discriminator; label -1, as the near-duplicates of a positive get. Those whose
             query or text no sample has can meet in no batch, and are left out.
    """
    best: dict[tuple[str, str], int] = {}
    for query, text, label in rows:
        best[query, text] = max(label, best.get((query, text), -1))
    if not best:
        raise NothingToTrainOn("no samples: nothing to train on")
    queries, texts = sorted({q for q, _ in best}), sorted({t for _, t in best})
    of_query, of_text = {q: i for i, q in enumerate(queries)}, {t: i for i, t in enumerate(texts)}
    alike = _alike(texts)
    near = ((q, t) for (q, own), n in best.items() if n >= positive_min for t in alike.get(own, ()))
    masked = [p for p in {*unknown, *near} if p not in best and p[0] in of_query and p[1] in of_text]
    best |= dict.fromkeys(masked, -1)
    ordered = sorted(best)
    return Pairs(
        queries=tuple(queries),
        texts=tuple(texts),
        query=np.array([of_query[q] for q, _ in ordered]),
        text=np.array([of_text[t] for _, t in ordered]),
        label=np.array([best[key] for key in ordered], dtype=np.int8),
        positive_min=positive_min,
    )


def _alike(texts: list[str]) -> dict[str, list[str]]:
    """text -> the texts that are nearly the same; texts without any are left out."""
    alike: dict[str, list[str]] = {}
    for i, j in near_duplicates(texts):
        alike.setdefault(texts[i], []).append(texts[j])
        alike.setdefault(texts[j], []).append(texts[i])
    return alike


class Batches:
    """Batch number `step` depends on nothing but the samples, the seed and the step: a resumed run draws the
    same ones.
    """

    def __init__(
        self,
        samples: Pairs,
        *,
        anchor_min: int,
        size: int,
        positives: int,
        lower: int,
        seed: int,
        turns: np.ndarray | None = None,
        rivals: np.ndarray | None = None,
    ) -> None:
        """turns: float [Q], how often a query has its turn, in proportion; None: once a pass. rivals: int
        [Q, K], texts that come into a query's batch with it; -1 is none.
        """
        self.turns, self.rivals, self.anchor_min = turns, rivals, anchor_min
        self.samples, self.size, self.positives, self.lower, self.seed = samples, size, positives, lower, seed
        self._starts = samples.starts()
        self.usable = np.flatnonzero(np.maximum.reduceat(samples.label, self._starts[:-1]) >= anchor_min)
        self._pass: tuple[int, np.ndarray] = -1, self.usable  # number and order of the one under way
        if not len(self.usable):
            raise NothingToTrainOn(f"no query has a sample with a label >= {anchor_min}: nothing to train on")

    def aim(self, *, turns: np.ndarray | None, rivals: np.ndarray | None) -> None:
        """Other turns and rivals from the next step on, where a pass is begun anew by them."""
        self.turns, self.rivals, self._pass = turns, rivals, (-1, self.usable)

    @property
    def per_epoch(self) -> int:
        """Steps of one pass over the queries; those that do not fill a last batch wait for the next, shuffled
        pass.
        """
        return max(1, len(self.usable) // self.size)

    def _rows(self, query: int) -> np.ndarray:
        return np.arange(self._starts[query], self._starts[query + 1])

    def _turn(self, step: int, of: np.ndarray) -> tuple[np.ndarray, np.random.Generator]:
        """The members of `of` whose turn it is, and the step's own stream of chance. `of`: the same at every
        step.
        """
        epoch, turn = divmod(step, self.per_epoch)
        order = self._order(epoch, of)
        return order[turn * self.size : (turn + 1) * self.size], np.random.default_rng((self.seed, 1, step))

    def _order(self, epoch: int, of: np.ndarray) -> np.ndarray:
        """`of` as this pass takes it: shuffled once, so that a batch costs the same however long the log."""
        number, order = self._pass
        if number != epoch:
            chance = np.random.default_rng((self.seed, 0, epoch))
            order = chance.permutation(of if self.turns is None else _turns(of, self.turns, chance))
            self._pass = epoch, order
        return order

    def at(self, step: int) -> Batch:
        """The batch of one step (0-based). NoNegatives if a query has no label-0 document in it."""
        queries, chance = self._turn(step, self.usable)
        drawn = [self._draw(self._present(self._rows(q), chance), chance) for q in queries]
        if self.samples.weight is not None and not self._anchored(drawn):
            drawn = [self._draw(self._rows(q), chance) for q in queries]
        texts, labels = self._matrix(queries, [(rows, self.samples.label[rows]) for rows in drawn])
        if len(empty := np.flatnonzero(~(labels == 0).any(axis=1))):
            name = self.samples.queries[queries[empty[0]]]
            raise NoNegatives(
                f"step {step}: query {name!r} has no label-0 document among {len(texts)}; raise batch_queries"
            )
        return Batch(queries=queries, texts=texts, labels=labels)

    def _matrix(
        self, queries: np.ndarray, drawn: Sequence[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The texts [D] of all drawn rows, and labels [Q, D]: as drawn with the rows of each query, -1 for
        its other samples, 0 for the rest.
        """
        texts = np.unique(
            np.concatenate([*(self.samples.text[rows] for rows, _ in drawn), *self._rivals_of(queries)])
        )
        labels = np.zeros((len(queries), len(texts)), dtype=np.int8)
        for row, (query, (rows, values)) in enumerate(zip(queries, drawn, strict=True)):
            at, here = placed(texts, self.samples.text[self._rows(query)])
            labels[row, at[here]] = -1
            labels[row, np.searchsorted(texts, self.samples.text[rows])] = values
        return texts, labels

    def _rivals_of(self, queries: np.ndarray) -> list[np.ndarray]:
        if self.rivals is None:
            return []
        texts = self.rivals[queries].ravel()
        return [texts[texts >= 0]]

    def _present(self, rows: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        """Those of `rows` that are samples this time, each with the chance that its weight says."""
        weight = self.samples.weight
        return rows if weight is None else rows[chance.random(len(rows)) < weight[rows]]

    def _anchored(self, drawn: Sequence[np.ndarray]) -> bool:
        return any((self.samples.label[rows] >= self.anchor_min).any() for rows in drawn)

    def _draw(self, rows: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        """At most `positives` rows of positives, and `lower` of each lower label."""
        label, border = self.samples.label[rows], self.samples.positive_min
        groups = [(rows[label >= border], self.positives)]
        groups += [(rows[label == k], self.lower) for k in range(border - 1, 0, -1)]
        return np.concatenate([_some(group, most, chance) for group, most in groups])


class AnchorBatches(Batches):
    """One anchor a pass: a row per (query, anchor) against the anchor's strictly lower samples and the batch.

    What InfoNCE does with several positives when it takes each apart (row 1 of the paper's Table 4, the
    likely reading). The anchor is graded 1 and its rivals 0; other known samples of the query are -1. A query
    stands in as many rows as it has anchors in the batch, and is encoded for each.
    """

    def __init__(self, samples: Pairs, *, anchor_min: int, **sizes: Any) -> None:
        super().__init__(samples, anchor_min=anchor_min, **sizes)
        self.anchors = np.flatnonzero(samples.label >= anchor_min)  # rows of `samples`

    @property
    def per_epoch(self) -> int:
        """Steps of one pass over the anchors."""
        return max(1, len(self.anchors) // self.size)

    def at(self, step: int) -> Batch:
        """The batch of one step (0-based)."""
        turn, chance = self._turn(step, self.anchors)
        anchors = self._present(turn, chance)
        if not len(anchors):
            anchors = turn
        queries = self.samples.query[anchors]
        drawn = [self._rivals(a, self._rows(q), chance) for a, q in zip(anchors, queries, strict=True)]
        texts, labels = self._matrix(queries, [(rows, rows == rows[-1]) for rows in drawn])
        return Batch(queries=queries, texts=texts, labels=labels)

    def _rivals(self, anchor: int, rows: np.ndarray, chance: np.random.Generator) -> np.ndarray:
        """At most `lower` rows of each label below the anchor's, then the anchor; a positive's rivals among
        the positives are at most as many.
        """
        label = self.samples.label
        groups = [rows[label[rows] == k] for k in range(1, label[anchor])]
        return np.array([*(row for g in groups for row in _some(g, self.lower, chance)), anchor])


def placed(texts: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place of each of `own` [N] in the sorted `texts` [D], int [N], and whether it is there, bool [N]."""
    at = np.searchsorted(texts, own).clip(max=len(texts) - 1)
    return at, texts[at] == own


def _turns(of: np.ndarray, weights: np.ndarray, chance: np.random.Generator) -> np.ndarray:
    """As many members of `of`, each as often as its weight says, rounded up or down by chance (systematic
    sampling).
    """
    shares = np.cumsum(weights[of]) / weights[of].sum()
    at = (np.arange(len(of)) + chance.random()) / len(of)
    return of[np.searchsorted(shares, at).clip(max=len(of) - 1)]


def _some(rows: np.ndarray, most: int, chance: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= most else chance.choice(rows, most, replace=False)


def anchors_per_step(samples: Pairs, *, anchor_min: int, size: int, positives: int, lower: int) -> float:
    """Mean number of anchors in a step of `Batches`: what one step of theirs is worth in steps of
    AnchorBatches, times `size`.
    """
    border = samples.positive_min
    highest = max(border, int(samples.label.max()))
    counts = np.zeros((len(samples.queries), highest + 1), dtype=np.int64)  # [query, label]
    labelled = samples.label >= 0
    np.add.at(counts, (samples.query[labelled], samples.label[labelled].astype(np.int64)), 1)
    drawn = np.minimum(counts[:, border:].sum(axis=1), positives)
    for label in range(anchor_min, border):
        drawn = drawn + np.minimum(counts[:, label], lower)
    return float(size * drawn[drawn > 0].mean())
