"""Asks an OpenAI-compatible endpoint many questions at once; every answer is cached by content and never asked twice."""

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from crops.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, and what it cost. `cached`: it was known before. None as text: over budget, not asked."""

    text: str | None
    tokens: int
    cached: bool


class Busy(Exception):
    """The endpoint is overloaded or failing for now; `wait_s` is its Retry-After, where it gave one."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Cache:
    """Answers by the hash of the question, in SQLite: an answer is there whole or not at all, also after a kill."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.base = sqlite3.connect(path)
        self.base.execute("PRAGMA journal_mode=WAL")
        self.base.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT NOT NULL, tokens INTEGER NOT NULL)"
        )

    def get(self, key: str) -> tuple[str, int] | None:
        """Text and tokens, or None."""
        found: tuple[str, int] | None = self.base.execute("SELECT text, tokens FROM answers WHERE key = ?", (key,)).fetchone()
        return found

    def put(self, key: str, text: str, tokens: int) -> None:
        """Kept once this returns."""
        with self.base:
            self.base.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", (key, text, tokens))


def key_of(body: dict[str, Any]) -> str:
    """Hash of model, messages and settings; the address is not part of it."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def ask(
    url: str, bodies: Sequence[dict[str, Any]], *, cache: Path, concurrency: int, timeout_s: float, retries: int, budget: int,
    progress: Callable[[int], Any] = lambda _count: None,
) -> list[Answer]:  # fmt: skip
    """One answer per body, in their order. ServiceError where the endpoint stays down, refuses, or answers no chat completion."""
    try:
        return asyncio.run(_ask(url, bodies, Cache(cache), concurrency, timeout_s, retries, budget, progress))
    except Busy as error:
        raise ServiceError(f"{url}: {error} ({retries} tries); what was answered is kept, run it again") from error


async def _ask(
    url: str, bodies: Sequence[dict[str, Any]], cache: Cache, concurrency: int, timeout_s: float, retries: int, budget: int,
    progress: Callable[[int], Any],
) -> list[Answer]:  # fmt: skip
    keys = [key_of(body) for body in bodies]
    answers: list[Answer | None] = [None] * len(bodies)
    left = iter(range(len(bodies)))
    spent = 0

    async def worker(client: httpx.AsyncClient) -> None:
        nonlocal spent
        for i in left:
            known = cache.get(keys[i])
            if known is not None:
                answers[i] = Answer(known[0], known[1], cached=True)
            elif spent >= budget:
                answers[i] = Answer(None, 0, cached=False)
            else:
                text, tokens = await _one(client, bodies[i], retries)
                cache.put(keys[i], text, tokens)
                spent += tokens
                answers[i] = Answer(text, tokens, cached=False)
            progress(1)

    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(base_url=url.rstrip("/"), timeout=timeout_s, limits=limits) as client:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_quietly(worker(client))) for _ in range(concurrency)]
        for task in tasks:
            if (error := task.result()) is not None:
                raise error
    return [a for a in answers if a is not None]


async def _quietly(work: Any) -> Exception | None:
    """A task group wraps errors into groups; the first one itself is what the user should read."""
    try:
        await work
    except (Busy, ServiceError) as error:
        return error
    return None


async def _one(client: httpx.AsyncClient, body: dict[str, Any], retries: int) -> tuple[str, int]:
    exponential = wait_exponential_jitter(initial=0.2, max=20)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return error.wait_s if isinstance(error, Busy) and error.wait_s is not None else exponential(state)

    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(Busy), stop=stop_after_attempt(retries), wait=wait, reraise=True
    ):
        with attempt:
            return await _post(client, body)
    raise AssertionError("unreachable: the loop returns or raises")


async def _post(client: httpx.AsyncClient, body: dict[str, Any]) -> tuple[str, int]:
    try:
        reply = await client.post("/chat/completions", json=body)
    except httpx.TimeoutException as error:
        raise Busy("no answer in time") from error
    except httpx.TransportError as error:
        raise Busy(f"cannot be reached ({error or type(error).__name__})") from error
    if reply.status_code == 429 or reply.status_code >= 500:
        after = reply.headers.get("retry-after", "")
        raise Busy(f"answers {reply.status_code}", float(after) if after.replace(".", "", 1).isdigit() else None)
    if reply.status_code >= 400:
        raise ServiceError(f"{reply.request.url}: refuses with {reply.status_code}: {reply.text[:200]}")
    try:
        found = reply.json()
        text = found["choices"][0]["message"]["content"] or ""
        return str(text), int((found.get("usage") or {}).get("total_tokens") or len(text.split()))
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ServiceError(f"{reply.request.url}: not an OpenAI-compatible chat completion: {reply.text[:120]}") from error
