"""Search ids that any replica knows as its service's own: time, arm and chance, signed."""

import base64
import hashlib
import hmac
import secrets
import struct
from dataclasses import dataclass

from crops.arms import ARMS
from crops.secret import derived

TIME_BYTES, NOTE_BYTES, CHANCE_BYTES, SIGNATURE_BYTES = 8, 1, 7, 10
LENGTH = (TIME_BYTES + NOTE_BYTES + CHANCE_BYTES + SIGNATURE_BYTES) * 8 // 6 + 1  # base64 without padding
NOTES = (None, *ARMS)  # the byte in an id is a place in this list


class ForeignId(ValueError):
    """The id was not made with this secret."""


@dataclass(frozen=True, slots=True)
class Told:
    """What an id tells any replica: when the search was (Unix microseconds), and in which arm."""

    ts_us: int
    arm: str | None


def make(secret: bytes, ts_us: int, arm: str | None = None, *, chance: bytes | None = None) -> str:
    """A new id of the search at `ts_us` (Unix microseconds); 35 characters that are safe in URLs."""
    body = struct.pack(">QB", ts_us, NOTES.index(arm)) + (chance or secrets.token_bytes(CHANCE_BYTES))
    return base64.urlsafe_b64encode(body + _sign(secret, body)).decode().rstrip("=")


def verify(secret: bytes, search_id: str) -> Told:
    """What the id tells; ForeignId where it is not ours."""
    if len(search_id) != LENGTH or not search_id.isascii():
        raise ForeignId("not a search_id of this service")
    try:
        raw = base64.b64decode(search_id + "=" * (-len(search_id) % 4), altchars=b"-_", validate=True)
    except ValueError as error:
        raise ForeignId("not a search_id of this service") from error
    body, signature = raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:]
    # The last character holds two bits that no byte needs: another spelling of the same id is not the same
    # id.
    spelled = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    if not hmac.compare_digest(signature, _sign(secret, body)) or spelled != search_id:
        raise ForeignId("not a search_id of this service")
    ts_us, arm = struct.unpack(">QB", body[: TIME_BYTES + NOTE_BYTES])
    return Told(int(ts_us), NOTES[arm])


def when(search_id: str) -> int | None:
    """The time that an id tells (Unix microseconds), whoever made it; None where it has another form."""
    if len(search_id) != LENGTH or not search_id.isascii():
        return None
    try:
        return int.from_bytes(base64.b64decode(search_id[:12], altchars=b"-_", validate=True)[:TIME_BYTES])
    except ValueError:
        return None


def _sign(secret: bytes, body: bytes) -> bytes:
    return hmac.digest(derived(secret, "search ids"), body, hashlib.sha256)[:SIGNATURE_BYTES]
