"""Asks an OpenAI-compatible endpoint many questions at once; every answer is cached by content and never
asked twice.
"""

import asyncio
import hashlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential_jitter,
)

from crops.errors import InputError, ServiceError

# An endpoint that asks for more patience than this is not waited for: better one line now than silence.
MAX_WAIT_S = 300.0
EXPONENTIAL = wait_exponential_jitter(initial=0.2, max=20)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, and what it cost. `cached`: it was known before. None as text: over budget, not
    asked.
    """

    text: str | None
    tokens: int
    cached: bool


class Busy(Exception):
    """The endpoint is overloaded or failing for now; `wait_s` is its Retry-After, where it gave one."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Cache:
    """Answers by the hash of the question, in SQLite: an answer is there whole or not at all, also after a
    kill.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.base = sqlite3.connect(path)
        try:
            self.base.execute("PRAGMA journal_mode=WAL")
            self.base.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT NOT NULL, tokens "
                "INTEGER NOT NULL)"
            )
        except sqlite3.DatabaseError as error:
            raise InputError(path, f"not a cache of answers ({error}); remove it to ask again") from error

    def close(self) -> None:
        """Leaves one file: the write-ahead log is folded in."""
        self.base.close()

    def forget(self, keys: Sequence[str]) -> None:
        """These answers will be asked again."""
        with self.base:
            self.base.executemany("DELETE FROM answers WHERE key = ?", [(key,) for key in keys])

    def get(self, key: str) -> tuple[str, int] | None:
        """Text and tokens, or None."""
        answer: tuple[str, int] | None = self.base.execute(
            "SELECT text, tokens FROM answers WHERE key = ?", (key,)
        ).fetchone()
        return answer

    def put(self, key: str, text: str, tokens: int) -> None:
        """Kept once this returns."""
        with self.base:
            self.base.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, text, tokens))


def body(
    messages: list[dict[str, str]],
    *,
    name: str,
    schema: Mapping[str, Any],
    model: str,
    temperature: float,
    max_tokens: int,
) -> dict[str, Any]:
    """A question, to be answered with JSON of `schema`; name: the schema's, for the endpoint."""
    form = {"name": name, "schema": schema, "strict": True}
    return {
        "model": model,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "messages": messages,
        "response_format": {"type": "json_schema", "json_schema": form},
    }


def key_of(body: dict[str, Any]) -> str:
    """Hash of model, messages and settings; the address is not part of it."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def recall(cache: Path, answers: Mapping[str, str]) -> None:
    """Puts texts by key into the cache that other runs have paid for: they cost nothing here."""
    with closing(Cache(cache)) as here:
        for key in [key for key in answers if here.get(key) is None]:
            here.put(key, answers[key], 0)


def forget(cache: Path, bodies: Sequence[dict[str, Any]]) -> None:
    """Takes the answers to `bodies` out of the cache, so that another try does not meet them again."""
    with closing(Cache(cache)) as answers:
        answers.forget([key_of(body) for body in bodies])


def refuse_rubbish(
    url: str, bodies: Sequence[dict[str, Any]], faults: Sequence[str | None], *, cache: Path, most: float
) -> None:
    """ServiceError where more than the share `most` of the answers were of no use. Kept, they would fail
    every later try as well, even with another model behind the same name: they are forgotten first.

    faults  per body why nothing of its answer could be used, "" where something could, None: not asked
    """
    asked = [fault for fault in faults if fault is not None]
    reasons = [fault for fault in asked if fault]
    if not asked or len(reasons) / len(asked) <= most:
        return
    forget(cache, [body for body, fault in zip(bodies, faults, strict=True) if fault])
    common, _count = Counter(reasons).most_common(1)[0]
    raise ServiceError(f"{url}: {len(reasons)} of {len(asked)} answers were rejected, most of them: {common}")


def ask(
    url: str,
    bodies: Sequence[dict[str, Any]],
    *,
    cache: Path,
    concurrency: int,
    timeout_s: float,
    retries: int,
    budget: int,
    progress: Callable[[int], Any] = lambda _count: None,
) -> list[Answer]:
    """One answer per body, in their order. ServiceError where the endpoint stays down, refuses, or answers no
    chat completion.

    `budget`: tokens in all, those of cached answers included, so that a restart spends no more than a run
    without one.
    """
    with closing(Cache(cache)) as answers:
        work = _Work(bodies, answers, retries=retries, timeout_s=timeout_s, budget=budget, progress=progress)
        try:
            return asyncio.run(work.run(url, concurrency))
        except Busy as error:
            raise ServiceError(
                f"{url}: {error} ({retries} tries); what was answered is kept, run it again"
            ) from error
        except httpx.InvalidURL as error:
            raise ServiceError(f"{url}: not a URL ({error}), expected http://HOST:PORT/v1") from error


class _Work:
    """The questions, the answers so far, and what was spent; the workers share it on one event loop."""

    def __init__(
        self,
        bodies: Sequence[dict[str, Any]],
        cache: Cache,
        *,
        retries: int,
        timeout_s: float,
        budget: int,
        progress: Callable[[int], Any],
    ) -> None:
        self.bodies, self.cache, self.progress = bodies, cache, progress
        self.retries, self.timeout_s, self.budget = retries, timeout_s, budget
        self.keys = [key_of(body) for body in bodies]
        self.answers: list[Answer | None] = [None] * len(bodies)
        self.failed: Exception | None = None
        self.spent = 0

    async def run(self, url: str, concurrency: int) -> list[Answer]:
        """All answers; raises the first error, after the questions under way have ended."""
        open_ = []
        for i, key in enumerate(self.keys):
            if (cached := self.cache.get(key)) is None:
                open_.append(i)
                continue
            self._settle(i, Answer(cached[0], cached[1], cached=True))
        waiting = iter(open_)
        limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
        async with httpx.AsyncClient(
            base_url=url.rstrip("/"), timeout=self.timeout_s, limits=limits
        ) as client:
            await asyncio.gather(
                *(self._worker(client, waiting) for _ in range(min(concurrency, len(open_))))
            )
        if self.failed is not None:
            raise self.failed
        return [a for a in self.answers if a is not None]

    def _settle(self, i: int, answer: Answer) -> None:
        self.answers[i] = answer
        self.spent += answer.tokens
        self.progress(1)

    async def _worker(self, client: httpx.AsyncClient, waiting: Iterator[int]) -> None:
        for i in waiting:
            if self.failed is not None:
                return
            if self.spent >= self.budget:
                self._settle(i, Answer(None, 0, cached=False))
                continue
            try:
                text, tokens = await self._one(client, self.bodies[i])
            except (Busy, ServiceError) as error:
                self.failed = self.failed or error
                return
            self.cache.put(self.keys[i], text, tokens)
            self._settle(i, Answer(text, tokens, cached=False))

    async def _one(self, client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[str, int]:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(Busy),
            stop=stop_after_attempt(self.retries),
            wait=_wait,
            reraise=True,
        )
        async for attempt in retrying:
            with attempt:
                return await _post(client, body, self.timeout_s)
        raise AssertionError("unreachable: the loop returns or raises")


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, Busy) and error.wait_s is not None:
        return error.wait_s
    return EXPONENTIAL(state)


async def _post(client: httpx.AsyncClient, body: dict[str, Any], timeout_s: float) -> tuple[str, int]:
    try:
        # httpx's own timeout starts anew with every byte: an endpoint that trickles would never run out of
        # it.
        async with asyncio.timeout(timeout_s):
            reply = await client.post("/chat/completions", json=body)
    except (httpx.TimeoutException, TimeoutError) as error:
        raise Busy(f"no answer within {timeout_s:g} s") from error
    except httpx.RequestError as error:
        raise Busy(f"cannot be reached ({str(error) or type(error).__name__})") from error
    if reply.status_code in (408, 429) or reply.status_code >= 500:
        raise Busy(f"answers {reply.status_code}", _retry_after_s(reply))
    if reply.status_code >= 400:
        raise ServiceError(f"{reply.request.url}: refuses with {reply.status_code}: {reply.text[:200]}")
    try:
        parsed = reply.json()
        text = parsed["choices"][0]["message"]["content"] or ""
        return str(text), int((parsed.get("usage") or {}).get("total_tokens") or len(str(text).split()))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise ServiceError(
            f"{reply.request.url}: not an OpenAI-compatible chat completion: {reply.text[:120]}"
        ) from error


def _retry_after_s(reply: httpx.Response) -> float | None:
    """Seconds or a date (RFC 9110, 10.2.3); None where it is neither. ServiceError where it is longer than
    anybody waits.
    """
    header = reply.headers.get("retry-after", "").strip()
    try:
        wait_s = (
            float(header) if header.isdigit() else parsedate_to_datetime(header).timestamp() - time.time()
        )
    except ValueError:
        return None
    if wait_s > MAX_WAIT_S:
        raise ServiceError(
            f"{reply.request.url}: answers {reply.status_code} and asks to come back in {wait_s:.0f} s"
        )
    return max(0.0, wait_s)
