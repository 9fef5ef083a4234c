"""Micro-batching without a timer: while all workers are busy, waiting items gather and go out together."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from serving.gateway.errors import Overloaded

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class Batcher(Generic[Item, Answer]):
    """Turns single `submit`s into calls of `work(items) -> answers`, at most `workers` at once and
    `max_batch` items each.

    An idle worker takes an item at once, so that nothing waits when there is little to do. At most
    `max_waiting` items wait; more are refused: a queue that only grows helps nobody.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        workers: int,
        max_batch: int,
        max_waiting: int,
    ) -> None:
        self._work, self._free, self._max_batch, self._max_waiting = work, workers, max_batch, max_waiting
        self._waiting: deque[tuple[Item, asyncio.Future[Answer]]] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item) -> Answer:
        """The answer for `item`; what `work` raised; Overloaded where too many wait already."""
        if len(self._waiting) >= self._max_waiting:
            raise Overloaded(f"{self._max_waiting} searches are waiting")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._dispatch()
        return await future

    def _dispatch(self) -> None:
        while self._free and (batch := self._take()):
            self._free -= 1
            task = asyncio.create_task(self._run(batch))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _take(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        batch: list[tuple[Item, asyncio.Future[Answer]]] = []
        while self._waiting and len(batch) < self._max_batch:
            item, future = self._waiting.popleft()
            if not future.done():  # whoever asked has given up
                batch.append((item, future))
        return batch

    async def _run(self, batch: list[tuple[Item, asyncio.Future[Answer]]]) -> None:
        try:
            answers = await self._work([item for item, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        except Exception as error:  # handed to every one who waits for it
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        finally:
            self._free += 1
            self._dispatch()
