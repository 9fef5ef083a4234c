"""The simulated world's people before a live gateway: they type, look from the top, click what fits, watch,
rephrase or leave.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np

from crops.world import simulate, users

EXPOSED = 10


class People:
    """Sessions of the world's users at a given rate. Delays of the model are divided by `compression`.

    A person's need decides what is relevant to them, not the words they typed; nothing here knows which arm
    they are in.
    """

    def __init__(
        self, world: Path, url: str, *, compression: float, sessions_per_s: float, seed: int
    ) -> None:
        self.world = simulate.load(world / "world.json")
        self.url, self.compression, self.rate = url, compression, sessions_per_s
        self.rng = np.random.default_rng(seed)
        self.row = {video: n for n, video in enumerate(self.world.videos.ids)}
        self.searches = self.failed = 0
        scale, settings = self.world.scale, self.world.settings
        activity = (np.arange(scale.users) + settings.activity_offset) ** -settings.activity_exponent
        self.activity = activity / activity.sum()

    def run(self, stop: Callable[[], bool]) -> None:
        """Until `stop`; for a thread of its own."""
        asyncio.run(self._run(stop))

    async def _run(self, stop: Callable[[], bool]) -> None:
        running: set[asyncio.Task[None]] = set()
        async with httpx.AsyncClient(
            base_url=self.url, timeout=10, limits=httpx.Limits(max_connections=100)
        ) as client:
            due_s = time.monotonic()
            while not stop():
                due_s += float(self.rng.exponential(1 / self.rate))
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                if len(running) < 500:  # people who find a closed door do not queue for ever
                    task = asyncio.create_task(self._session(client))
                    running.add(task)
                    task.add_done_callback(running.discard)
            await asyncio.gather(*running, return_exceptions=True)

    async def _session(self, client: httpx.AsyncClient) -> None:
        world, rng = self.world, self.rng
        user = f"u{rng.choice(len(self.activity), p=self.activity)}"
        intent = int(rng.choice(len(world.popularity), p=world.popularity))
        text = int(world.queries.draw(np.array([intent]), rng)[0])
        for _ in range(world.settings.max_rounds):
            satisfied = await self._search(client, user, intent, world.queries.texts[text])
            if satisfied is None:
                return
            step = int(users.decide(np.array([satisfied]), world.settings, rng)[0])
            if step == users.LEAVE:
                return
            await asyncio.sleep(float(users.gaps_s(1, world.settings, rng)[0]) / self.compression)
            if step == users.NEW_NEED:
                intent = int(rng.choice(len(world.popularity), p=world.popularity))
            avoid = np.array([text if step == users.REPHRASE else -1])
            text = int(world.queries.draw(np.array([intent]), rng, avoid=avoid)[0])

    async def _search(self, client: httpx.AsyncClient, user: str, intent: int, query: str) -> bool | None:
        """Whether the person found what they came for; None where search did not answer."""
        self.searches += 1
        try:
            answer = await client.post("/v1/search", json={"query": query, "user_id": user, "k": EXPOSED})
            if answer.status_code != 200:
                self.failed += 1
                return None
            found = answer.json()
            videos = np.array([[self.row[r["video_id"]] for r in found["results"]]])
            if not videos.size:
                return False
            grades = self.world.videos.grades(np.array([intent]), videos)
            reaction = users.react(
                grades, self.world.videos.duration_s[videos], self.world.settings, self.rng
            )
            events = self._events(found, reaction)
            if events and (await client.post("/v1/events", json=events)).status_code != 202:
                self.failed += 1
            return bool(reaction.satisfied[0])
        except httpx.HTTPError:
            self.failed += 1
            return None

    @staticmethod
    def _events(found: dict, reaction: users.Reaction) -> list[dict]:
        now, events = datetime.now(UTC).isoformat(), []
        for place in np.flatnonzero(reaction.clicked[0]):
            one = {
                "search_id": found["search_id"],
                "video_id": found["results"][place]["video_id"],
                "ts": now,
            }
            events += [
                {**one, "type": "click"},
                {**one, "type": "play", "play_s": float(reaction.play_s[0, place])},
            ]
            if reaction.liked[0, place]:
                events.append({**one, "type": "like"})
        return events
