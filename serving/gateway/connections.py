"""What one peer may cost the others: heads and bodies of bounded size and time, a bounded number of
connections.

uvicorn with httptools bounds none of these. A connection that owes bytes (a head, a body, the reading of its
answer) is cut when it is late, and before that where a new one needs its place: whoever sends a request at
once never owes for long.
"""

import asyncio
import json
import logging
import math
import resource
from collections import Counter, deque
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.gateway.errors import Overloaded, TooLarge
from serving.gateway.settings import Settings

LOG = logging.getLogger("crops.gateway")
LOOK_S = 0.5  # between two looks for what is late
LINGER_S = 1.0  # for taking the answer that says why a connection is cut
SPARE_FILES = 256  # for everything else that is open: the event log, Triton, releases
FRAME = (
    8  # a body in chunks of one byte comes as 6 bytes for each; with more frame than that it is no request
)
FIELDS = 100  # headers of a request, trailers included
AT_ONCE = 20  # connections that are cut before others have their turn
PIPELINED = 16  # requests that may wait behind the one that is answered
LATE, CROWD = "timeout", Overloaded.code


class Connections:
    """All connections of one gateway; what uvicorn takes for its protocol class."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.most = _room(settings.max_connections)
        self.open: set[Connection] = set()
        self.owing: dict[Connection, float] = {}  # -> late at, by the loop's clock; oldest first
        self._cut: Counter[str] = Counter()
        self._looks = False
        self._waiting = deque[Connection]()  # whose next request came before the last one was answered

    def __call__(self, **uvicorn: Any) -> "Connection":
        """The protocol of a new connection."""
        return Connection(self, **uvicorn)

    def admit(self, one: "Connection") -> bool:
        """Whether there is room for it, made at the cost of the one that has owed for longest."""
        if len(self.open) >= self.most and (oldest := next(iter(self.owing), None)) is not None:
            self._cut[CROWD] += 1
            self.gone(oldest)
            oldest.transport.abort()
        if len(self.open) >= self.most:
            return False
        self.open.add(one)
        if not self._looks:
            self._looks = True
            one.loop.call_later(LOOK_S, self._look, one.loop, one.loop.time() + LOOK_S)
        return True

    def owes(self, one: "Connection", seconds: float) -> None:
        """From now on it owes something, for `seconds` at most."""
        self.owing.pop(one, None)
        if one in self.open:
            self.owing[one] = one.loop.time() + seconds

    def paid(self, one: "Connection") -> None:
        """It owes nothing."""
        self.owing.pop(one, None)

    def gone(self, one: "Connection") -> None:
        """It is closed."""
        self.owing.pop(one, None)
        self.open.discard(one)

    def wait(self, one: "Connection") -> None:
        """Its next request is begun when the loop has come round: of those that came before they could be
        answered, one in a turn. Thousands at once would hold up whoever asks for one thing at a time.
        """
        self._waiting.append(one)
        if len(self._waiting) == 1:
            one.loop.call_soon(self._begin, one.loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        one = self._waiting.popleft()
        if self._waiting:
            loop.call_soon(self._begin, loop)
        one.begin_next()

    def cut(self, reason: str) -> None:
        """Counts one that was ended for `reason`."""
        self._cut[reason] += 1

    def _look(self, loop: asyncio.AbstractEventLoop, due_s: float = math.inf) -> None:
        """Ends what is late. What this process stood still, and could read nothing, is nobody's delay."""
        if (still_s := loop.time() - due_s) > LOOK_S:
            self.owing = {one: late_at_s + still_s for one, late_at_s in self.owing.items()}
        late = [one for one, late_at_s in self.owing.items() if late_at_s <= loop.time()]
        for one in late[:AT_ONCE]:
            one.end(HTTPStatus.REQUEST_TIMEOUT, LATE, "the request did not come in time")
        if len(late) > AT_ONCE:  # a thousand that came together are late together
            loop.call_soon(self._look, loop)
            return
        if self._cut:
            LOG.warning("connections were cut", extra={"cut": dict(self._cut), "open": len(self.open)})
            self._cut.clear()
        self._looks = bool(self.open)
        if self._looks:
            loop.call_later(LOOK_S, self._look, loop, loop.time() + LOOK_S)


class Connection(HttpToolsProtocol):
    """One connection: uvicorn's, with limits."""

    def __init__(self, among: Connections, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._among, self._limits = among, among.settings
        self._in_head, self._parts = False, 0  # whether a head is being read; heads and bodies that ended
        self._raw_bytes = 0  # of what is being read, as it came
        self._head_bytes = self._fields = 0  # of its headers and trailers
        self._ended = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        if self._among.admit(self):
            self._among.owes(self, self._limits.head_timeout_s)
        else:
            self.end(HTTPStatus.SERVICE_UNAVAILABLE, CROWD, "there are too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._among.gone(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._ended:
            return
        parts = self._parts
        super().data_received(data)
        self._raw_bytes = len(data) + (self._raw_bytes if self._parts == parts else 0)
        if self._in_head and self._raw_bytes > self._limits.max_head_bytes:
            self._head_too_large()
        elif self._raw_bytes > FRAME * self._limits.max_body_bytes:
            most = self._limits.max_body_bytes
            self.end(TooLarge.status, TooLarge.code, f"the body has more than {most} bytes")

    def on_message_begin(self) -> None:
        """See httptools."""
        super().on_message_begin()
        self._in_head, self._head_bytes, self._fields = True, 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools. Thousands may come in one piece, and as a trailer behind the body."""
        self._head_bytes += len(name) + len(value) + 4
        self._fields += 1
        if self._head_bytes > self._limits.max_head_bytes or self._fields > FIELDS:
            self._head_too_large()
            raise ValueError("the head is too large")  # ends the parser
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._in_head, self._parts = False, self._parts + 1
        if len(self.pipeline) >= PIPELINED:
            self.end(
                Overloaded.status, Overloaded.code, f"more than {PIPELINED} requests wait in one connection"
            )
            raise ValueError("too many requests wait")
        self._among.owes(self, self._limits.body_timeout_s)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See httptools."""
        self._parts += 1
        super().on_message_complete()
        if self.cycle.response_complete:  # it was refused before its body had come
            self._among.owes(self, self._limits.head_timeout_s)
        else:
            self._among.paid(self)

    def on_response_complete(self) -> None:
        """See uvicorn."""
        if self.pipeline:
            self._among.owes(self, math.inf)  # never late, but the first to go where there is a crowd
            self._among.wait(self)
        else:
            self.begin_next()

    def begin_next(self) -> None:
        """Goes on with the next request, if there is one."""
        super().on_response_complete()
        if self.cycle.response_complete:  # else the next one is under way
            self._among.owes(self, self._limits.head_timeout_s)
        else:
            self._among.paid(self)

    def pause_writing(self) -> None:
        """See asyncio.Protocol: the peer does not read its answer."""
        super().pause_writing()
        self._among.owes(self, self._limits.head_timeout_s)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        if self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete:
            self._among.paid(self)

    def send_400_response(self, msg: str) -> None:
        """See uvicorn, which calls it for what is no HTTP, and for what was refused while it was parsed."""
        self.end(HTTPStatus.BAD_REQUEST, "malformed", msg)

    def end(self, status: int, code: str, message: str) -> None:
        """Closes it with an answer that says why; at the second call without waiting for that to be read."""
        running = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if self._ended or running or self.transport.is_closing():
            self.transport.abort()
            return
        self._ended = True
        self._among.cut(code)
        self._among.owes(self, LINGER_S)
        # Between two requests it would be taken for the answer to the next one.
        if self._in_head or (self.cycle is not None and not self.cycle.response_complete):
            body = json.dumps({"error": {"code": code, "message": message}}).encode()
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode("ascii") + body)
        self.transport.close()

    def _head_too_large(self) -> None:
        most = self._limits.max_head_bytes
        self.end(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            TooLarge.code,
            f"the head has more than {most} bytes or {FIELDS} fields",
        )


def _room(wanted: int) -> int:
    """Connections that this process may hold open: `wanted`, or fewer where it may not open so many files;
    the soft limit of these is raised.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    return max(1, min(wanted, max(soft, needed) - SPARE_FILES))
