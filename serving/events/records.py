"""What the event log holds: a search with all that it retrieved, and what users did with what they were
shown.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from crops.arms import ARMS
from crops.secret import derived

Kind = Literal["click", "like", "play"]
KINDS: tuple[Kind, ...] = ("click", "like", "play")
INF = float("inf")
LATEST_US, LARGEST_POSITION = 1 << 62, 1 << 31


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
    try:
        raw = json.loads(payload)
        kind = raw.pop("kind")
        if kind == "search":
            results = tuple(Result(**{**r, "paths": tuple(r["paths"])}) for r in raw.pop("results"))
            record: Record = Search(**raw, results=results)
        elif kind == "interaction":
            record = Interaction(**raw)
        else:
            raise ValueError(f"kind of event is {kind!r}, expected search or interaction")
        if not _fits_the_tables(record):
            raise ValueError(f"a value of this {kind} is none of its column")
        if b"\\u" in payload:  # half a character, perhaps, which no table can hold
            encode(record)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not an event: {error}") from error
    return record


def _fits_the_tables(record: Record) -> bool:
    """Whether each value is what its column holds: a topic of Kafka may have other writers."""
    if type(record.ts_us) is not int or abs(record.ts_us) >= LATEST_US:
        return False
    if isinstance(record, Interaction):
        texts: tuple[Any, ...] = (record.search_id, record.video_id, record.type)
        played = record.play_s is None or (type(record.play_s) in (int, float) and 0 <= record.play_s < INF)
        return all(map(_is_text, texts)) and record.type in KINDS and played
    texts = (record.search_id, record.user_id, record.query, record.release)
    return (
        all(map(_is_text, texts))
        and (record.arm is None or record.arm in ARMS)
        and all(
            _is_text(one.video_id)
            and (one.position is None or (type(one.position) is int and 0 <= one.position < LARGEST_POSITION))
            and all(map(_is_text, one.paths))
            for one in record.results
        )
    )


def _is_text(value: Any) -> bool:
    return type(value) is str


def pseudonym(secret: bytes, user_id: str) -> str:
    """A keyed hash of a user id: the same for the same secret, so that the event log and a feed can be joined
    without ids. HMAC-SHA256 by the secret's key for "user ids" (crops.secret.derived), 32 hexadecimal digits.
    """
    return hmac.new(derived(secret, "user ids"), user_id.encode(), hashlib.sha256).hexdigest()[:32]


def exposed(search: Mapping[str, Any] | Search) -> Sequence[str]:
    """Ids of the exposed videos, in their order."""
    results = search.results if isinstance(search, Search) else search["results"]
    return [r.video_id for r in results if r.position is not None]
