"""A drift alert starts a training: takes Alertmanager's webhook, calls a CI's workflow, at most once in a
while.

Alertmanager repeats itself and alerts flap; a start is written down before it is asked for, so neither a
repetition nor a restart starts it twice. A call that the CI refuses is taken back and answered 502, and
Alertmanager tries again.
"""

import hmac
import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx

from crops.errors import ConfigError
from serving import listening

LOG = logging.getLogger("crops.retrain")
LARGEST_BODY = 1 << 20
CALL_S = 20.0


class Hook:
    """url, headers, body: the CI's call. every_s: least time between two. state: file of the last one. clock:
    Unix seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: dict[str, str],
        body: Any,
        state: Path,
        every_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url, self._headers, self._body = url, headers, body
        self._state, self._every_s, self._clock = state, every_s, clock
        self._lock = threading.Lock()

    def take(self, alerts: list[dict[str, Any]]) -> tuple[int, str]:
        """The HTTP status and what to say for the alerts of one call."""
        names = sorted(
            {
                str(alert.get("labels", {}).get("alertname", "?"))
                for alert in alerts
                if alert.get("status") == "firing"
            }
        )
        if not names:
            return 200, "nothing fires"
        with self._lock:
            try:
                now_s, before = self._clock(), self._last()
            except OSError as error:
                return 503, f"{self._state}: cannot be read, nothing is started: {error.strerror}"
            if 0 <= now_s - before["at"] < self._every_s:  # one of the future: the clock has been put back
                return 200, f"a training was started {now_s - before['at']:.0f} s ago, by {before['why']}"
            try:
                self._write({"at": now_s, "why": ", ".join(names)})
            except OSError as error:
                return 503, f"{self._state}: cannot be written, nothing is started: {error.strerror}"
            try:
                httpx.post(
                    self._url, headers=self._headers, json=self._body, timeout=CALL_S
                ).raise_for_status()
            except Exception as error:  # an address or a token that cannot be sent, too: nothing was started
                told = f"the CI does not take it: {type(error).__name__} {error}"
                try:
                    self._write(before)
                except OSError as full:
                    told += f"; and {self._state} cannot be written: {full.strerror}: remove it, or for "
                    told += f"{self._every_s:.0f} s no training is started"
                return 502, told
        return 202, f"a training is started, by {', '.join(names)}"

    def _last(self) -> dict[str, Any]:
        try:
            last: dict[str, Any] = json.loads(self._state.read_text(encoding="utf-8"))
            if math.isfinite(at := float(last["at"])):
                return {"at": at, "why": str(last["why"])}
        except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError):
            pass
        return {"at": float("-inf"), "why": ""}

    def _write(self, value: dict[str, Any]) -> None:
        if value["at"] == float("-inf"):
            self._state.unlink(missing_ok=True)
            return
        partial = self._state.with_name(f".{self._state.name}.new")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._state)


def server(hook: Hook, host: str, port: int, *, token: str) -> listening.Server:
    """POST / with `Authorization: Bearer token` is Alertmanager; GET /healthz is a probe. A ConfigError where
    the token is empty: anybody could start trainings.
    """
    if not token.strip():
        raise ConfigError("the hook's token is empty")

    class Handler(BaseHTTPRequestHandler):
        timeout = CALL_S  # for whoever sends half a request

        def do_GET(self) -> None:
            self._say(*(200, "alive") if self.path == "/healthz" else (404, "not found"))

        def do_POST(self) -> None:
            bearer = self.headers.get("authorization", "").removeprefix("Bearer ")
            told = self.headers.get("content-length", "0").strip()
            length = int(told) if told.isascii() and told.isdigit() and len(told) < 10 else LARGEST_BODY + 1
            if not hmac.compare_digest(bearer.encode(), token.encode()):
                self._say(401, "this call needs the token")
                return
            if length > LARGEST_BODY:
                self._say(413, "too large")
                return
            try:
                alerts = json.loads(self.rfile.read(length))["alerts"]
                status, answer = hook.take(alerts)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                status, answer = 400, f"not a call of Alertmanager: {type(error).__name__}"
            LOG.info("%d %s", status, answer)
            self._say(status, answer)

        def _say(self, status: int, text: str) -> None:
            body = json.dumps({"message": text}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """What matters is logged above."""

    return listening.Server(host, port, Handler)
