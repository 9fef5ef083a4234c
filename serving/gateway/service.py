"""What a gateway does, apart from HTTP: answer searches, take events, keep to the manifest."""

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from crops.arms import CONTROL, NONE
from crops.errors import CropsError
from crops.experiment import assign
from crops.long_play import LONG_PLAY_S, is_long
from crops.reformulation import Search
from crops.text import normalise_query
from serving import reformulation
from serving.events import ids
from serving.events.log import EventLog, EventLogError
from serving.events.records import Interaction, Record, Result, pseudonym
from serving.events.records import Search as Logged
from serving.gateway.drift import DEPTH
from serving.gateway.encoder import TritonEncoder
from serving.gateway.errors import ApiError, Overloaded, Unavailable, UnknownSearch
from serving.gateway.metrics import Metrics
from serving.gateway.releases import Holder, Served
from serving.gateway.search import Found, Searcher
from serving.gateway.settings import Settings

LOG = logging.getLogger("crops.gateway")
PROBE_EVERY_S = 60.0
PATH = "crops"  # the recall path that this service is, in `paths` of the event log


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a search is answered with."""

    search_id: str
    arm: str | None
    served: Served
    found: Found
    k: int
    took_s: float


class Service:
    """One gateway's state. Made inside the running event loop; `clock` gives Unix seconds."""

    def __init__(
        self,
        settings: Settings,
        *,
        secret: bytes,
        log: EventLog | None,
        reformulations: reformulation.Reformulations,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings, self.clock, self.metrics = settings, clock, Metrics()
        self.encoder = TritonEncoder(settings)
        self.searcher = Searcher(settings, self.encoder)
        self.holder = Holder(settings, self._encode, self._ensure)
        self._secret, self._log, self._reformulations = secret, log, reformulations
        self._exposures = assign.Exposures()
        self._assigner: assign.Assigner | None = None
        self._features_at: float | None = None
        self._durations = _durations(settings.videos)
        self._in_flight, self._probe_at = 0, 0.0
        self.draining = False

    async def search(self, query: str, user_id: str, k: int) -> Answer:
        """Answers one search; its record is durable before the answer goes out."""
        started_s = time.perf_counter()
        if self._in_flight >= self.settings.max_in_flight:
            raise Overloaded(f"{self._in_flight} searches are being answered")
        arm, served = self._served(user_id)
        label = arm or NONE
        self._in_flight += 1
        self.metrics.in_flight.inc()
        try:
            deadline = self.settings.deadline_s
            found = await asyncio.wait_for(
                self.searcher.search(served, query, k + self.settings.ranked_extra), deadline
            )
            search_id, ts_us = await self._logged(query, user_id, k, arm, served, found)
        except TimeoutError as error:
            self.metrics.requests.labels(label, "deadline").inc()
            raise Unavailable(f"not answered within {self.settings.deadline_s} s", code="deadline") from error
        except ApiError as error:
            self.metrics.requests.labels(label, error.code).inc()
            raise
        finally:
            self._in_flight -= 1
            self.metrics.in_flight.dec()
        took_s = time.perf_counter() - started_s
        await self._count(label, query, user_id, k, served, found, took_s, ts_us)
        return Answer(search_id=search_id, arm=arm, served=served, found=found, k=k, took_s=took_s)

    async def compare(self, query: str, k: int) -> dict[str, tuple[Served, Found]]:
        """The same query in every arm, for the console: nothing is logged or counted."""
        found = {
            arm: (served, await self.searcher.search(served, query, k))
            for arm, served in self.holder.arms.items()
        }
        if not found:
            raise Unavailable(self.holder.problem)
        return found

    async def take(self, events: Sequence[Interaction]) -> None:
        """Returns once all events are durable; UnknownSearch, and none is taken, where one is of a search
        that is not ours.
        """
        try:
            told = [ids.verify(self._secret, event.search_id) for event in events]
        except ids.ForeignId as error:
            raise UnknownSearch(str(error)) from error
        if self._log is None:
            raise Unavailable("this gateway keeps no event log", code="no_event_log")
        await self._append(events)
        for event, one in zip(events, told, strict=True):
            label = one.arm or NONE
            if event.type == "click":
                self.metrics.clicks.labels(label).inc()
            elif is_long(event.play_s or 0.0, self._durations.get(event.video_id, math.nan)):
                self.metrics.long_plays.labels(label).inc()

    async def keep_up(self) -> None:
        """Follows manifest and features until it is cancelled; whatever goes wrong is said and tried
        again.
        """
        while True:
            await self.look()
            self.metrics.event_lag.set(self._log.lag_s() if self._log else 0.0)
            self.metrics.breaker.set(self.encoder.breaker.open)
            await self._watch()
            await asyncio.sleep(self.settings.poll_s)

    async def _watch(self) -> None:
        """Where the queries lie, and once a minute whether the index still finds what it found when it was
        loaded.
        """
        arms = {NONE: self.holder.arms[CONTROL], **self.holder.arms} if CONTROL in self.holder.arms else {}
        for arm, served in arms.items():
            served.drift.report(self.metrics, arm)
        if time.monotonic() < self._probe_at:
            return
        self._probe_at = time.monotonic() + PROBE_EVERY_S
        for arm, served in arms.items():
            try:
                rows = await self.searcher.nearest(served, served.drift.probes, DEPTH)
                self.metrics.probe_recall.labels(arm).set(served.drift.recall(rows))
            except (
                CropsError,
                OSError,
                RuntimeError,
            ) as error:  # an index that does not answer finds nothing
                self.metrics.probe_recall.labels(arm).set(0.0)
                LOG.warning("the index does not answer its probes", extra={"why": str(error)})

    async def look(self) -> None:
        """One look at manifest and features."""
        try:
            before = self.holder.generation
            if (reason := await self.holder.look()) is not None:
                self.metrics.rejected.labels(reason).inc()
                LOG.warning("release refused", extra={"reason": reason, "why": self.holder.problem})
            elif self.holder.generation != before:
                self._swapped()
            self._read_features()
        except (CropsError, ApiError, OSError) as error:
            LOG.warning("manifest or features cannot be read", extra={"why": str(error)})
            self.holder.problem = self.holder.problem or str(error)

    async def ready(self) -> str | None:
        """None where every arm can be searched now, else what is missing."""
        if self.draining:
            return "shutting down"
        if not self.holder.arms:
            return self.holder.problem
        for arm, served in self.holder.arms.items():
            if not await self.encoder.ready(served.release.model):
                return f"{arm}: Triton has no model {served.release.model}"
        return None

    async def close(self) -> None:
        """Lets what is acknowledged be written, closes channels and threads."""
        if self._log is not None:
            await self._log.close()
        self.searcher.close()
        await self.encoder.close()

    def _served(self, user_id: str) -> tuple[str | None, Served]:
        arms = self.holder.arms
        if CONTROL not in arms:
            self.metrics.requests.labels(NONE, "no_release").inc()
            raise Unavailable(self.holder.problem or "no release is served")
        found = self._assigner.assign(user_id) if self._assigner is not None else assign.NOBODY
        # An experiment whose releases are not those in service counts for nothing: everybody gets the
        # champion.
        if found.arm is None or found.arm not in arms or arms[found.arm].release.uri != found.release:
            return None, arms[CONTROL]
        return found.counted_arm, arms[found.arm]

    async def _logged(
        self, query: str, user_id: str, k: int, arm: str | None, served: Served, found: Found
    ) -> tuple[str, int]:
        ts_us = int(self.clock() * 1e6)
        search_id = ids.make(self._secret, ts_us, arm)
        if self._log is not None:
            results = tuple(
                Result(
                    video_id=served.index.ids[row],
                    position=n if n < k else None,
                    score=round(score, 6),
                    paths=(PATH,),
                )
                for n, (row, score) in enumerate(zip(found.rows, found.scores, strict=True))
            )
            kept = pseudonym(self._secret, user_id) if self.settings.hash_users else user_id
            record = Logged(
                search_id=search_id,
                user_id=kept,
                ts_us=ts_us,
                query=query,
                arm=arm,
                release=served.release.uri,
                results=results,
            )
            await self._append([record])
        return search_id, ts_us

    async def _append(self, records: Sequence[Record]) -> None:
        assert self._log is not None
        try:
            await self._log.append(records)
        except EventLogError as error:
            self.metrics.events_lost.inc(len(records))
            raise Unavailable(f"the event log does not take it: {error}", code="event_log") from error

    async def _count(
        self,
        label: str,
        query: str,
        user_id: str,
        k: int,
        served: Served,
        found: Found,
        took_s: float,
        ts_us: int,
    ) -> None:
        metrics, shown = self.metrics, min(k, len(found.rows))
        metrics.requests.labels(label, "ok" if shown else "empty").inc()
        metrics.searches.labels(label).inc()
        metrics.impressions.labels(label).inc(shown)
        metrics.query_chars.labels(label).observe(len(query))
        if found.cached:
            metrics.cache_hits.labels(label).inc()
        if shown:
            metrics.top_score.labels(label).observe(found.scores[0])
        else:
            metrics.empty.labels(label).inc()
        served.drift.query(metrics, label, normalise_query(query), found.vector)
        for phase, seconds in (("encode", found.encode_s), ("retrieve", found.retrieve_s), ("total", took_s)):
            metrics.seconds.labels(label, phase).observe(seconds)
        try:
            search = Search(ts_us, label, normalise_query(query))
            for reformulated in await self._reformulations.reformulated(user_id, search):
                metrics.reformulations.labels(reformulated.arm).inc()
        except Exception as error:  # a Redis that is down must not cost an answer
            LOG.warning("reformulation state does not answer", extra={"why": type(error).__name__})

    def _swapped(self) -> None:
        arms = self.holder.arms
        self.searcher.forget([served.release.checksum for served in arms.values()])
        served = {arm: (s.release.uri, s.index_checksum, s.built_s) for arm, s in arms.items()}
        # Outside experiments everybody gets the champion.
        self.metrics.serve({NONE: served[CONTROL], **served}, self.holder.generation)
        LOG.info(
            "serving",
            extra={"generation": self.holder.generation, "releases": [s.release.uri for s in arms.values()]},
        )

    def _read_features(self) -> None:
        path = self.settings.features
        if path is None:
            return
        at = path.stat().st_mtime if path.exists() else 0.0
        if at != self._features_at:
            self._assigner = assign.load(path, exposures=self._exposures, clock=self.clock)
            self._features_at = at

    async def _encode(self, model: str, texts: list[str]) -> np.ndarray:
        return await self.encoder.encode(model, texts, timeout_s=self.settings.load_timeout_s)

    async def _ensure(self, model: str) -> None:
        await self.encoder.ensure(model, timeout_s=self.settings.load_timeout_s)


def _durations(folder: Path | None) -> dict[str, float]:
    """Seconds of the videos that are shorter than a long play: of those the whole counts."""
    short: dict[str, float] = {}
    for path in sorted(folder.rglob("*.parquet")) if folder else ():
        columns = ["video_id", "duration_s"]
        rows = pq.read_table(path, columns=columns, filters=[("duration_s", "<", LONG_PLAY_S)])
        short |= zip(*(rows[name].to_pylist() for name in columns), strict=True)
    return short


class JsonLines(logging.Formatter):
    """One JSON object a line; never a user id or a query."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        names = ("generation", "releases", "reason", "why", "request_id", "status", "path", "ms")
        more = {name: getattr(record, name) for name in names if hasattr(record, name)}
        return json.dumps(
            {
                "at": round(record.created, 3),
                "level": record.levelname,
                "message": record.getMessage(),
                **more,
            }
        )
