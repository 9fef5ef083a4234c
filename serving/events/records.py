"""What the event log holds: a search with all that it retrieved, and what users did with what they were
shown.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from crops.secret import derived

Kind = Literal["click", "like", "play"]
KINDS: tuple[Kind, ...] = ("click", "like", "play")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One retrieved video. position: 0-based where it was exposed, None where it was only ranked. paths: what
    brought it.
    """

    video_id: str
    position: int | None
    score: float
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One answered search. ts_us: Unix microseconds, UTC; arm: control, treatment, or None outside
    experiments.
    """

    search_id: str
    user_id: str
    ts_us: int
    query: str
    arm: str | None
    release: str
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interaction:
    """A click, like or play of one exposed video. play_s: seconds, of plays only."""

    search_id: str
    video_id: str
    type: Kind
    play_s: float | None
    ts_us: int


Record = Search | Interaction


def encode(record: Record) -> bytes:
    """One line of JSON; the same record gives the same bytes."""
    kind = "search" if isinstance(record, Search) else "interaction"
    return json.dumps({"kind": kind, **asdict(record)}, ensure_ascii=False, separators=(",", ":")).encode()


def decode(payload: bytes) -> Record:
    """What `encode` wrote; a ValueError where it is anything else."""
    raw = json.loads(payload)
    try:
        kind = raw.pop("kind")
        if kind == "search":
            results = tuple(Result(**{**r, "paths": tuple(r["paths"])}) for r in raw.pop("results"))
            return Search(**raw, results=results)
        if kind == "interaction":
            return Interaction(**raw)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an event: {error}") from error
    raise ValueError(f"kind of event is {kind!r}, expected search or interaction")


def pseudonym(secret: bytes, user_id: str) -> str:
    """A keyed hash of a user id: the same for the same secret, so that the event log and a feed can be joined
    without ids. HMAC-SHA256 by the secret's key for "user ids" (crops.secret.derived), 32 hexadecimal digits.
    """
    return hmac.new(derived(secret, "user ids"), user_id.encode(), hashlib.sha256).hexdigest()[:32]


def exposed(search: Mapping[str, Any] | Search) -> Sequence[str]:
    """Ids of the exposed videos, in their order."""
    results = search.results if isinstance(search, Search) else search["results"]
    return [r.video_id for r in results if r.position is not None]
