"""The document index in any engine, behind the same `search` as crops.release.index: a plug-in connects to it
and says, for vectors, which documents are nearest. docs/engines has one for each of several engines.

A plug-in is "module:function". The function is called once per release with the checksum of its files, for
whoever keeps a collection for each, and returns the one function that searches.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from crops.errors import ConfigError, CropsError, ServiceError

# Of vectors float32 [Q, H] and k: for each query at most k documents with their scores (inner product), best
# first.
Nearest = Callable[[np.ndarray, int], Sequence[Sequence[tuple[str, float]]]]


@dataclass(frozen=True, slots=True)
class PluggedIndex:
    """Searches by `nearest`. `ids[row]` is the document of a row."""

    nearest: Nearest
    ids: tuple[str, ...]
    width: int
    rows: Mapping[str, int] = field(repr=False)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 and rows int64, both [Q, k], best first; row -1 where fewer were found. queries
        float32 [Q, H].

        A document that the release does not know is left out; a ServiceError where the engine fails.
        """
        if queries.ndim != 2 or queries.shape[1] != self.width:
            raise ValueError(f"queries have shape {queries.shape}, expected [Q, {self.width}]")
        k = min(k, len(self.ids))
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        rows = np.full((len(queries), k), -1, dtype=np.int64)
        try:
            answers = self.nearest(np.ascontiguousarray(queries, dtype=np.float32), k)
            for q, hits in enumerate(answers):
                best = [(self.rows[doc_id], score) for doc_id, score in hits if doc_id in self.rows][:k]
                for rank, (row, score) in enumerate(best):
                    rows[q, rank], scores[q, rank] = row, score
        except CropsError:
            raise
        except Exception as error:  # whatever an engine's client raises
            raise ServiceError(f"the index's plug-in failed: {_reason(error)}") from error
        return scores, rows


def load(plugin: str, checksum: str, ids: tuple[str, ...], *, width: int) -> PluggedIndex:
    """The index of the release whose files have this checksum, by the plug-in "module:function".

    A ConfigError where there is no such function, a ServiceError where it cannot connect.
    """
    module, _, name = plugin.partition(":")
    try:
        connect = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"index_plugin is {plugin!r}: {_reason(error)}") from error
    try:
        nearest = connect(checksum)
    except Exception as error:  # whatever an engine's client raises
        raise ServiceError(f"the index's plug-in {plugin} cannot connect: {_reason(error)}") from error
    return PluggedIndex(nearest, ids, width, {doc_id: row for row, doc_id in enumerate(ids)})


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
