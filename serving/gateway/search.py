"""One search: query to vector at Triton, vector to documents in the index, with batches on both ways."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from crops.errors import ServiceError
from crops.release import lexical
from crops.text import normalise_query
from serving.gateway.batcher import Batcher
from serving.gateway.encoder import TritonEncoder
from serving.gateway.errors import Unavailable
from serving.gateway.releases import Reranker, Served
from serving.gateway.settings import Settings

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hits:
    """Rows and scores (inner products, or where words are asked too the sums of reciprocal ranks), best
    first, and what the phases took, seconds.
    """

    rows: tuple[int, ...]
    scores: tuple[float, ...]
    vector: np.ndarray  # float32 [H], of the query
    encode_s: float
    retrieve_s: float
    cached: bool
    rerank_s: float = 0.0
    kept: bool = False  # the dense order, although a re-ranker was to be asked


# Of queries to vectors, and of (vector, k) to (scores, rows).
Batchers = tuple[Batcher[str, np.ndarray], Batcher[tuple[np.ndarray, int], tuple[np.ndarray, np.ndarray]]]


class Searcher:
    """Searches any release that is served; batchers are kept per release and go with it."""

    def __init__(self, settings: Settings, encoder: TritonEncoder) -> None:
        self._settings, self._encoder = settings, encoder
        self._pool = ThreadPoolExecutor(settings.search_threads, thread_name_prefix="index")
        self._batchers: dict[str, Batchers] = {}

    async def search(self, served: Served, query: str, k: int) -> Hits:
        """The k nearest documents (fewer where the catalogue is smaller)."""
        started_s = time.perf_counter()
        encode, retrieve = self._of(served)
        normal = normalise_query(query)
        vector = served.cache.get(normal)
        cached = vector is not None
        if vector is None:
            vector = await encode.submit(normal)
            served.cache.put(normal, vector)
        encoded_s = time.perf_counter()
        try:
            scores, rows = await retrieve.submit((vector, k))
        except ServiceError as error:  # of an engine outside of this process
            raise Unavailable("the index does not answer", code="index_unavailable") from error
        real = rows >= 0
        best, values = rows[real].tolist(), scores[real].tolist()
        if served.by_words is not None:
            second = await self._in_pool(served.by_words.search, [normal], k)
            best, values = lexical.fused([best, second[0].tolist()], k)
        retrieved_s = time.perf_counter()
        kept = False
        if served.reranker is not None and best:
            left_s = self._settings.deadline_s - (retrieved_s - started_s)
            order = await self._reranked(served, served.reranker, normal, best, values, left_s)
            kept = order is None
            if order is not None:
                best, values = ([of[n] for n in order] + of[len(order) :] for of in (best, values))
        return Hits(
            rows=tuple(best),
            scores=tuple(values),
            vector=vector,
            encode_s=encoded_s - started_s,
            retrieve_s=retrieved_s - encoded_s,
            cached=cached,
            rerank_s=time.perf_counter() - retrieved_s,
            kept=kept,
        )

    async def _reranked(
        self,
        served: Served,
        reranker: Reranker,
        query: str,
        rows: Sequence[int],
        scores: Sequence[float],
        left_s: float,
    ) -> list[int] | None:
        """Places of the first results in their new order; None where it comes too late for the deadline, of
        which half is kept for the log.
        """
        first, timeout_s = rows[: self._settings.rerank], min(self._settings.rerank_timeout_s, left_s / 2)
        if timeout_s <= 0:
            return None
        texts = [reranker.texts[row] for row in first]
        logits = await self._encoder.logits(served.release.model, query, texts, timeout_s=timeout_s)
        return None if logits is None else reranker.order(logits, scores[: len(first)])

    async def nearest(self, served: Served, vectors: np.ndarray, k: int) -> np.ndarray:
        """int [N, k], the rows nearest to float32 [N, H], in the index threads."""
        return (await self._search(served, vectors, k))[1]

    async def _search(self, served: Served, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return await self._in_pool(served.index.search, vectors, k)

    async def _in_pool(self, ask: Callable[..., Answer], *asked: Any) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._pool, ask, *asked)

    def forget(self, kept: Sequence[str]) -> None:
        """Lets go of all releases but those with these checksums."""
        self._batchers = {name: pair for name, pair in self._batchers.items() if name in kept}

    def close(self) -> None:
        """Ends the index threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _of(self, served: Served) -> Batchers:
        key = served.release.checksum
        if key not in self._batchers:
            limits = {"max_batch": self._settings.max_batch, "max_waiting": self._settings.max_in_flight}

            async def encode(texts: Sequence[str]) -> Sequence[np.ndarray]:
                return list(await self._encoder.encode(served.release.model, texts))

            async def retrieve(
                wanted: Sequence[tuple[np.ndarray, int]],
            ) -> Sequence[tuple[np.ndarray, np.ndarray]]:
                vectors, depths = zip(*wanted, strict=True)
                scores, rows = await self._search(served, np.stack(vectors), max(depths))
                return [(scores[n, :k], rows[n, :k]) for n, k in enumerate(depths)]

            self._batchers[key] = (
                Batcher(encode, workers=self._settings.encode_workers, **limits),
                Batcher(retrieve, workers=self._settings.search_threads, **limits),
            )
        return self._batchers[key]
