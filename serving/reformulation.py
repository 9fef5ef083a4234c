"""Reformulations while they happen: another normalised query of the same user within the window (no
similarity test).

The state is the last search of each user, for as long as the window: in this process, or in Redis for several
replicas.
"""

import hashlib
import hmac
import json
from collections import OrderedDict
from typing import Any, Protocol

NONE = "none"  # the arm of everybody outside experiments

# One step for Redis: read the last search, put this one in its place for as long as the window.
_SWAP = """
local before = redis.call('GET', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return before
"""


class Reformulations(Protocol):
    """Told of every search; says which arm's search it reformulates."""

    async def seen(self, user_id: str, arm: str, query: str, now_s: float) -> str | None:
        """`query` (normalised) at `now_s`: the arm of the user's search before it, where that asked something
        else within the window; None otherwise.
        """


class InProcess:
    """Of this process alone; past `capacity` users the longest silent is forgotten."""

    def __init__(self, *, window_s: float, capacity: int = 200_000) -> None:
        self._window_s, self._capacity = window_s, capacity
        self._last: OrderedDict[str, tuple[float, str, str]] = OrderedDict()

    async def seen(self, user_id: str, arm: str, query: str, now_s: float) -> str | None:
        """See Reformulations.seen."""
        before = self._last.pop(user_id, None)
        self._last[user_id] = (now_s, arm, query)
        while len(self._last) > self._capacity:
            self._last.popitem(last=False)
        return _reformulated(before, query, now_s, self._window_s)


class InRedis:
    """Of all replicas. Keys are keyed hashes of user ids and expire with the window; a Redis that is down
    counts nothing.
    """

    def __init__(self, client: Any, *, window_s: float, secret: bytes) -> None:
        """client: redis.asyncio.Redis."""
        self._window_s, self._secret = window_s, secret
        self._swap = client.register_script(_SWAP)

    async def seen(self, user_id: str, arm: str, query: str, now_s: float) -> str | None:
        """See Reformulations.seen."""
        digest = hmac.new(self._secret, user_id.encode(), hashlib.sha256).hexdigest()[:32]
        # A hash of the query as well: what people search is not left in a cache.
        asked = hashlib.sha256(query.encode()).hexdigest()[:32]
        value = json.dumps([now_s, arm, asked])
        held = await self._swap(keys=[f"crops:last:{digest}"], args=[value, int(self._window_s * 1000)])
        before = tuple(json.loads(held)) if held else None
        return _reformulated(before, asked, now_s, self._window_s)


def _reformulated(
    before: tuple[float, str, str] | None, query: str, now_s: float, window_s: float
) -> str | None:
    if before is None:
        return None
    then_s, arm, asked = before
    return arm if 0 < now_s - then_s <= window_s and asked != query else None
