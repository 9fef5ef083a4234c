"""Recall on held-out pairs while training: over the catalogue, or over a fixed sample of a large one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from crops.retriever.choice import Choice, choose
from crops.retriever.encoder import Encoder
from crops.retriever.ranks import ALONE, Ranks

SCORES = 1 << 24  # held at once: 64 MB
NEAREST = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Queries, the catalogue's texts, and per query the rows of the catalogue that are relevant (none empty).

    people: per query a number that those share which the same people asked; empty: each is alone. Without any
    query there is nothing to choose by: the last step is kept.
    counts: of a sample, how many documents of the catalogue each text stands for; None: it is the catalogue.
    """

    queries: Sequence[str]
    texts: Sequence[str]
    relevant: Sequence[frozenset[int]]
    people: tuple[int, ...] = ()
    counts: np.ndarray | None = None

    def choose(self, recalls: Sequence[Sequence[Any]], *, safe: int) -> Choice:
        """See crops.retriever.choice; float [C, S, Q]."""
        people = np.array(self.people or range(len(self.queries)))
        return choose(np.asarray(recalls, dtype=np.float64), safe=safe, people=people)

    def recall(self, encoder: Encoder, k: int = NEAREST, *, ranks: Ranks = ALONE) -> float | None:
        """Mean share of a query's relevant documents among its k nearest; exact search. None without
        queries.
        """
        if not self.queries:
            return None
        return float(self.recalls(encoder, k, ranks=ranks).mean())

    def recalls(self, encoder: Encoder, k: int = NEAREST, *, ranks: Ranks = ALONE) -> np.ndarray:
        """float64 [Q]: the same of each query; of a sample what it says of the catalogue. Each of the ranks
        encodes its part, and all get what the first makes of it.
        """
        queries, texts = self._vectors(encoder, ranks)
        return ranks.from_first(lambda: self._hit(_scores(queries, texts), k))

    def _hit(self, scored: Iterator[np.ndarray], k: int) -> np.ndarray:
        if self.counts is None:
            k = min(k, len(self.texts))
            tops = (np.argpartition(-scores, k - 1)[:k] for scores in scored)
            hits = [len(r & set(top.tolist())) for r, top in zip(self.relevant, tops, strict=True)]
        else:
            # A document's place: how many of the catalogue stand above it, by those of the sample that do.
            hits = [
                sum(self.counts[scores > scores[row]].sum() < k for row in r)
                for r, scores in zip(self.relevant, scored, strict=True)
            ]
        return np.array([hit / len(r) for hit, r in zip(hits, self.relevant, strict=True)])

    def sampled(self, encoder: Encoder, *, most: int, seed: int, ranks: Ranks = ALONE) -> "Validation":
        """Over at most about `most` documents: all that is relevant for any query; in up to half of the room
        the nearest of each query by this encoder, of every query as many; and others by chance, each for as
        many as were left out beside it (Horvitz and Thompson 1952: the expected place is that in the
        catalogue).
        """
        from crops.release.index import exact  # not at the top: most trainings need no FAISS

        certain = set[int]().union(*self.relevant)
        queries, texts = self._vectors(encoder, ranks)
        tops = ranks.from_first(lambda: exact(texts, queries, NEAREST)[1])
        for depth in (NEAREST, 50, 25, 12, 6, 3, 1):
            near = certain | set(np.unique(tops[:, :depth]).tolist())
            if len(near) <= most / 2:
                certain = near
                break
        others = np.setdiff1d(np.arange(len(self.texts)), sorted(certain))
        drawn = np.random.default_rng(seed).permutation(others)[: max(1, most - len(certain))]
        kept = np.concatenate([np.array(sorted(certain)), np.sort(drawn)]).tolist()
        counts = np.ones(len(kept))
        counts[len(certain) :] = len(others) / max(1, len(drawn))
        place = {row: number for number, row in enumerate(kept)}
        relevant = tuple(frozenset(place[row] for row in each) for each in self.relevant)
        return replace(self, texts=[self.texts[row] for row in kept], relevant=relevant, counts=counts)

    def _vectors(self, encoder: Encoder, ranks: Ranks) -> tuple[np.ndarray, np.ndarray]:
        """[Q, H] and [D, H]."""
        return encoder.encode(self.queries, kind="query"), _encoded(encoder, self.texts, ranks)


def _scores(queries: np.ndarray, texts: np.ndarray) -> Iterator[np.ndarray]:
    """float [D] of each query."""
    step = max(1, SCORES // max(1, len(texts)))
    for start in range(0, len(queries), step):
        yield from queries[start : start + step] @ texts.T


def _encoded(encoder: Encoder, texts: Sequence[str], ranks: Ranks) -> np.ndarray:
    """float32 [D, H] of documents, each encoded on one of the ranks."""
    if ranks.count == 1:
        return encoder.encode(texts, kind="document")
    shares = ranks.shares([len(text) for text in texts])
    own = encoder.encode([texts[row] for row in shares[ranks.rank]], kind="document")
    whole: np.ndarray = ranks.gather(torch.from_numpy(own).to(encoder.device), shares).cpu().numpy()
    return whole
