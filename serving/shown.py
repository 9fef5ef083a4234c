"""What each search has shown, so that an event counts once per (search, video, kind), and only of a shown
video.

The counters decide rollouts: an event that is repeated, invented or late is logged (the compaction and the
readout count by the tables) but moves no counter. The state is bounded in time and, in a process, in number:
events of a forgotten search are not counted, for either arm.
"""

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal, Protocol

from crops import secret as secrets

Kind = Literal["click", "long play"]
KINDS: tuple[Kind, ...] = ("click", "long play")


class Shown(Protocol):
    """Is told of every search and of every event."""

    async def add(self, search_id: str, videos: Sequence[str]) -> None:
        """The search has shown these."""

    async def count(self, search_id: str, kind: Kind, videos: Collection[str]) -> int:
        """How many of `videos` the search has shown and were not counted as `kind` before; now they are."""


class InProcess:
    """Of this process alone; past `capacity` searches the oldest is forgotten: 200,000 with 20 results each
    take some 90 MB.
    """

    def __init__(
        self, *, within_s: float, capacity: int = 200_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._within_s, self._capacity, self._clock = within_s, capacity, clock
        # search -> when, its videos, (kind, video) that were counted
        self._held: OrderedDict[str, tuple[float, tuple[str, ...], frozenset[tuple[Kind, str]]]] = (
            OrderedDict()
        )

    async def add(self, search_id: str, videos: Sequence[str]) -> None:
        """See Shown."""
        now_s = self._clock()
        self._held[search_id] = (now_s, tuple(videos), frozenset())
        while self._held:
            oldest = next(iter(self._held))
            if len(self._held) <= self._capacity and now_s - self._held[oldest][0] <= self._within_s:
                return
            del self._held[oldest]

    async def count(self, search_id: str, kind: Kind, videos: Collection[str]) -> int:
        """See Shown."""
        at_s, shown, counted = self._held.get(search_id, (0.0, (), frozenset()))
        if self._clock() - at_s > self._within_s:
            return 0
        new = {(kind, video) for video in videos if video in shown} - counted
        if new:
            self._held[search_id] = (at_s, shown, counted | new)
        return len(new)


class InRedis:
    """Of all replicas. A search is a set of what may still count, which expires; its key tells nobody the
    search's id.
    """

    def __init__(self, client: Any, *, within_s: float, secret: bytes) -> None:
        """client: redis.asyncio.Redis."""
        self._client, self._expiry_ms = client, int(within_s * 1000)
        self._key = secrets.derived(secret, "shown")

    async def add(self, search_id: str, videos: Sequence[str]) -> None:
        """See Shown."""
        if not videos:
            return
        key = self._of(search_id)
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.sadd(key, *(f"{kind} {video}" for kind in KINDS for video in videos))
            pipe.pexpire(key, self._expiry_ms)
            await pipe.execute()

    async def count(self, search_id: str, kind: Kind, videos: Collection[str]) -> int:
        """See Shown: who takes a member out of the set counts it."""
        if not videos:
            return 0
        return int(await self._client.srem(self._of(search_id), *(f"{kind} {video}" for video in videos)))

    def _of(self, search_id: str) -> str:
        return f"crops:shown:{hmac.new(self._key, search_id.encode(), hashlib.sha256).hexdigest()[:32]}"
