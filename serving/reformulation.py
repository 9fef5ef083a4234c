"""Counting reformulations while they happen (crops.reformulation says what one is).

The state is the last searches of each user, for as long as the window: in this process, or in Redis for
several replicas.
"""

import hashlib
import hmac
import json
from collections import OrderedDict
from typing import Any, Protocol

from crops.reformulation import Search, fold
from crops.secret import derived

# One step for Redis: puts the new state in the place of the one that was read, or says what is there instead.
_SWAP = """
local held = redis.call('GET', KEYS[1]) or ''
if held ~= ARGV[1] then return held end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return false
"""


class Reformulations(Protocol):
    """Is told of every search."""

    async def reformulated(self, user_id: str, search: Search) -> tuple[Search, ...]:
        """The user's searches that `search` reformulates and that no search before it did."""


class InProcess:
    """Of this process alone; past `capacity` users the one who was silent longest is forgotten."""

    def __init__(self, *, window_s: float, capacity: int = 200_000) -> None:
        self._window_s, self._capacity = window_s, capacity
        self._waiting: OrderedDict[str, tuple[Search, ...]] = OrderedDict()

    async def reformulated(self, user_id: str, search: Search) -> tuple[Search, ...]:
        """See Reformulations."""
        self._waiting[user_id], again = fold(self._waiting.pop(user_id, ()), search, self._window_s)
        while len(self._waiting) > self._capacity:
            self._waiting.popitem(last=False)
        return again


class InRedis:
    """Of all replicas. Keys are keyed hashes of user ids and expire with the window."""

    def __init__(self, client: Any, *, window_s: float, secret: bytes) -> None:
        """client: redis.asyncio.Redis."""
        self._window_s, self._key = window_s, derived(secret, "reformulations")
        self._swap = client.register_script(_SWAP)

    async def reformulated(self, user_id: str, search: Search) -> tuple[Search, ...]:
        """See Reformulations. If another replica moved the state on since it was read, it is read again."""
        digest = hmac.new(self._key, user_id.encode(), hashlib.sha256).hexdigest()[:32]
        # A hash of the wording as well: what people search is not left in a cache.
        search = search._replace(wording=hashlib.sha256(search.wording.encode()).hexdigest()[:32])
        before: bytes | None = b""
        while before is not None:
            state = before
            waiting = tuple(Search(*one) for one in json.loads(state or "[]"))
            after, again = fold(waiting, search, self._window_s)
            # Redis counts the window by its own clock: a second more than the searches can need.
            expiry_ms = int(self._window_s * 1000) + 1000
            before = await self._swap(
                keys=[f"crops:searches:{digest}"], args=[state, json.dumps(after), expiry_ms]
            )
        return again
