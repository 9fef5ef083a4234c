"""Embeddings of head queries, bounded: the least recently used goes first."""

from collections import OrderedDict

import numpy as np


class EmbeddingCache:
    """Normalised query -> float32 [H]. One per release: it goes with the encoder that made the vectors."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._held: OrderedDict[str, np.ndarray] = OrderedDict()

    def get(self, query: str) -> np.ndarray | None:
        """The vector, or None where it was never here or has gone."""
        vector = self._held.get(query)
        if vector is not None:
            self._held.move_to_end(query)
        return vector

    def put(self, query: str, vector: np.ndarray) -> None:
        """Keeps `vector`; at capacity 0 nothing is kept."""
        self._held[query] = vector
        self._held.move_to_end(query)
        while len(self._held) > self._capacity:
            self._held.popitem(last=False)

    def __len__(self) -> int:
        return len(self._held)
