"""People who search and click, and what they were told: the other side's account of an event log. No test in
here.
"""

import random
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from crops.arms import CONTROL
from crops.tables import artifacts, records
from tests.crops.stages import toy_release as toy

PERSON, PERSONS = "person", 200
# Of a search and of events: done, and "not now" in its two forms. Any other answer is a fault.
EXPECTED = {
    httpx.codes.OK,
    httpx.codes.ACCEPTED,
    httpx.codes.TOO_MANY_REQUESTS,
    httpx.codes.SERVICE_UNAVAILABLE,
}
# Ten deadlines: an answer that takes so long waited for something that no deadline covers.
PATIENCE_S = 10.0
WAIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Told:
    """One acknowledged search."""

    user: str
    query: str
    arm: str | None
    release: str
    videos: tuple[str, ...]


class Ledger:
    """Searches and events as people sent them and as they were acknowledged.

    arm_of(user): the arm that the experiment gives a user; releases: arm -> the release it serves
    """

    def __init__(self, arm_of: Callable[[str], str | None], releases: dict[str, str]) -> None:
        self._arm_of, self._releases, self._lock = arm_of, releases, threading.Lock()
        self.searches: dict[str, Told] = {}
        self.sent: Counter[tuple[str, str]] = Counter()  # (user, query)
        # (search, video) -> type -> what was sent and what was acknowledged; seconds of plays, else 0.
        self.events: dict[tuple[str, str], dict[str, tuple[set[float], set[float]]]] = defaultdict(dict)
        self.answers: Counter[str] = Counter()
        self.took_s: list[float] = []
        self.wrong: list[str] = []

    def people(self, address: str, count: int, seed: int, end: threading.Event) -> list[threading.Thread]:
        """`count` of them, at work until `end`."""
        threads = [
            threading.Thread(target=self._live, args=(address, random.Random(f"{seed} {n}"), end))
            for n in range(count)
        ]
        for thread in threads:
            thread.start()
        return threads

    def wait_told(self, arms: Iterable[str], count: int) -> None:
        """Returns once so many searches were acknowledged in each of `arms`."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            with self._lock:
                told = Counter(search.arm for search in self.searches.values())
            if all(told[arm] >= count for arm in arms):
                return
            time.sleep(0.1)
        raise AssertionError(f"{dict(self.answers)} after {WAIT_S} s: {told}")

    def _live(self, address: str, rng: random.Random, end: threading.Event) -> None:
        with httpx.Client(base_url=address, timeout=PATIENCE_S) as client:
            while not end.is_set():
                user, query = f"{PERSON}{rng.randrange(PERSONS)}", f"subject{rng.randrange(toy.TOPICS)}"
                if rng.random() < 0.7:  # one that no cache knows
                    query += f" {rng.getrandbits(48):x}"
                with self._lock:
                    self.sent[user, query] += 1
                body = {"query": query, "user_id": user, "k": rng.randint(1, 8)}
                answer = self._ask(client, "/v1/search", body)
                if answer is None or answer.status_code != httpx.codes.OK:
                    end.wait(0.05)
                    continue
                told = answer.json()
                search = Told(
                    user, query, told["arm"], told["release"], tuple(r["video_id"] for r in told["results"])
                )
                self._check_arm(search)
                with self._lock:
                    if told["search_id"] in self.searches:
                        self.wrong.append(f"two searches are called {told['search_id']}")
                    self.searches[told["search_id"]] = search
                self._act(client, rng, told["search_id"], search.videos)
                end.wait(rng.expovariate(1 / 0.02))

    def _check_arm(self, search: Told) -> None:
        wanted = self._arm_of(search.user)
        arm = search.arm or CONTROL  # whom the challenger does not answer, the champion does, outside of it
        if search.arm not in (wanted, None) or search.release != self._releases[arm]:
            self.wrong.append(f"{search.user} of {wanted} was told {search.arm}, {search.release}")

    def _act(self, client: httpx.Client, rng: random.Random, search_id: str, videos: tuple[str, ...]) -> None:
        batch = [
            (rng.choice(videos), rng.choice(("click", "like", "play")), float(rng.randrange(1, 90)))
            for _ in range(rng.randrange(4) if videos else 0)
        ]
        events: list[dict[str, Any]] = [
            {"search_id": search_id, "video_id": video, "type": kind, "ts": datetime.now(UTC).isoformat()}
            | ({"play_s": play_s} if kind == "play" else {})
            for video, kind, play_s in batch
        ]
        for _ in range(1 + (rng.random() < 0.2)):  # some send again what was taken, or what was not
            if events:
                self._note(batch, search_id, 0)
                answer = self._ask(client, "/v1/events", events)
                if answer is not None and answer.status_code == httpx.codes.ACCEPTED:
                    self._note(batch, search_id, 1)

    def _note(self, batch: list[tuple[str, str, float]], search_id: str, column: int) -> None:
        with self._lock:
            for video, kind, play_s in batch:
                noted = self.events[search_id, video].setdefault(kind, (set(), set()))
                noted[column].add(play_s if kind == "play" else 0.0)

    def _ask(self, client: httpx.Client, path: str, body: object) -> httpx.Response | None:
        began_s = time.monotonic()
        try:
            answer = client.post(path, json=body)
        except httpx.TransportError as error:  # the process that was asked has died, or is stopped
            with self._lock:
                self.answers[f"{path} {type(error).__name__}"] += 1
            time.sleep(0.05)
            return None
        with self._lock:
            self.took_s.append(time.monotonic() - began_s)
            self.answers[f"{path} {answer.status_code}"] += 1
            if answer.status_code not in EXPECTED:
                self.wrong.append(f"{path}: {answer.status_code} {answer.text[:200]}")
        return answer

    def faults(self, tables: Path) -> list[str]:
        """What the tables under `tables` do not have as it was told, have twice, or have of nobody."""
        searches = artifacts.read(tables, records.SEARCHES).to_pylist()
        searches = [s for s in searches if s["user_id"].startswith(PERSON)]  # others watch
        results = artifacts.read(tables, records.RESULTS).to_pylist()
        times, rows = Counter(s["search_id"] for s in searches), defaultdict(dict)
        faults = [f"{name} stands {n} times in searches" for name, n in times.items() if n > 1]
        for row in results:
            if row["video_id"] in rows[row["search_id"]]:
                faults.append(f"{row['search_id']} has {row['video_id']} twice")
            rows[row["search_id"]][row["video_id"]] = row
        logged = {s["search_id"]: s for s in searches}
        for search_id, told in self.searches.items():
            if (search := logged.get(search_id)) is None:
                faults.append(f"{search_id} was told and is lost")
                continue
            faults += self._differs(search_id, told, search, rows[search_id])
        more = Counter((s["user_id"], s["query"]) for s in searches) - self.sent
        faults += [
            f"{user} searched {query!r} {n} times less often than is logged"
            for (user, query), n in more.items()
        ]
        faults += [
            f"{s['user_id']} is logged in {s['arm']}"
            for s in searches
            if s["arm"] not in (self._arm_of(s["user_id"]), None)
        ]
        return faults + self.wrong

    def _differs(
        self, search_id: str, told: Told, search: dict[str, Any], rows: dict[str, dict[str, Any]]
    ) -> list[str]:
        shown = sorted((r for r in rows.values() if r["position"] is not None), key=lambda r: r["position"])
        pairs = {
            "user": (told.user, search["user_id"]),
            "query": (told.query, search["query"]),
            "arm": (told.arm, search["arm"]),
            "videos": (told.videos, tuple(r["video_id"] for r in shown)),
            "places": (list(range(len(told.videos))), [r["position"] for r in shown]),
        }
        faults = [
            f"{search_id}: {name} told {one}, logged {other}"
            for name, (one, other) in pairs.items()
            if one != other
        ]
        for row in shown:
            noted = self.events.get((search_id, row["video_id"]), {})
            logged = {
                "click": {0.0} if row["clicked"] else set(),
                "like": {0.0} if row["liked"] else set(),
                "play": {row["play_s"]} - {None},
            }
            for kind, values in logged.items():
                sent, taken = noted.get(kind, (set(), set()))
                lost = taken and max(values, default=-1.0) < max(taken)
                if lost or values - sent:
                    said = f"sent {sent}, taken {taken}, logged {values}"
                    faults.append(f"{search_id}: {kind} of {row['video_id']}: {said}")
        return faults
