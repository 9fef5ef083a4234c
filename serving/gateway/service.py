"""What a gateway does, apart from HTTP: answer searches, take events, keep to the manifest."""

import asyncio
import contextlib
import gc
import json
import logging
import math
import time
import traceback
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from crops.arms import CONTROL, NONE
from crops.errors import CropsError, InputError
from crops.experiment import assign
from crops.long_play import LONG_PLAY_S, is_long
from crops.reformulation import Search
from crops.release import document
from crops.text import normalise_query, wording
from serving import reformulation
from serving.events import ids
from serving.events.log import EventLog, EventLogError
from serving.events.records import Interaction, Record, Result, exposed, pseudonym
from serving.events.records import Search as Logged
from serving.gateway.alternatives import Alternative
from serving.gateway.drift import DEPTH
from serving.gateway.encoder import TritonEncoder
from serving.gateway.errors import ApiError, Overloaded, Unavailable, UnknownSearch
from serving.gateway.metrics import PHASES, Metrics
from serving.gateway.releases import Holder, Served
from serving.gateway.search import Hits, Searcher
from serving.gateway.settings import Settings
from serving.shown import Kind, Shown

LOG = logging.getLogger("crops.gateway")
PROBE_EVERY_S = 60.0
PATH = "crops"  # the recall path that this service is, in `paths` of the event log


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a search is answered with."""

    search_id: str
    arm: str | None
    served: Served
    hits: Hits
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
        shown: Shown,
        alternatives: Mapping[str, Alternative] = MappingProxyType({}),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings, self.clock, self.metrics = settings, clock, Metrics()
        self.encoder = TritonEncoder(settings)
        self.searcher = Searcher(settings, self.encoder)
        self.holder = Holder(settings, self._encode, self._ensure)
        self._secret, self._log = secret, log
        self._reformulations, self._shown, self._alternatives = reformulations, shown, alternatives
        self.metrics.events_damaged.inc(getattr(log, "damaged_bytes", 0))
        self._assigner: assign.Assigner | None = None
        self._features_version: str | None = None
        self.features_problem = ""  # why the experiments stay as they were
        self._durations = _durations(settings.videos)
        self._in_flight, self._probe_at = 0, 0.0
        self._counting: set[asyncio.Task[None]] = set()
        self.draining = False

    async def search(self, query: str, user_id: str, k: int) -> Answer:
        """Answers one search; its record is durable before the answer goes out. Every outcome is counted."""
        started_s, label = time.perf_counter(), NONE
        try:
            with self._slot():
                arm, served, experiment = self._served(user_id)
                label = arm or NONE
                async with self._in_time():
                    arm, served, hits = await self._hits(arm, served, query, k)
                    label = arm or NONE
                    # What is on its way to the log arrives there, whether or not it is waited for.
                    record = self._record(query, user_id, k, arm, served, hits)
                    if self._log is not None:
                        await asyncio.shield(self._append([record]))
        except Exception as error:
            code = error.code if isinstance(error, ApiError) else ApiError.code
            self.metrics.requests.labels(label, code).inc()
            raise
        answer = Answer(
            search_id=record.search_id,
            arm=arm,
            served=served,
            hits=hits,
            k=k,
            took_s=time.perf_counter() - started_s,
        )
        self._count(label, query, answer)
        if arm is not None and experiment is not None:
            self.metrics.reach.add(experiment, arm, user_id)
        self._aside(self._shown.add(record.search_id, exposed(record)))
        self._aside(self._count_reformulated(user_id, Search(record.ts_us, label, wording(query))))
        return answer

    @contextlib.contextmanager
    def _slot(self) -> Iterator[None]:
        """One of the searches that are answered at a time."""
        if self._in_flight >= self.settings.max_in_flight:
            raise Overloaded(f"{self._in_flight} searches are being answered")
        self._in_flight += 1
        self.metrics.in_flight.inc()
        try:
            yield
        finally:
            self._in_flight -= 1
            self.metrics.in_flight.dec()

    @contextlib.asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Unavailable where what is waited for takes longer than an answer may."""
        try:
            async with asyncio.timeout(self.settings.deadline_s):
                yield
        except TimeoutError as error:
            raise Unavailable(f"not answered within {self.settings.deadline_s} s", code="deadline") from error

    async def _hits(
        self, arm: str | None, served: Served, query: str, k: int
    ) -> tuple[str | None, Served, Hits]:
        """What the arm finds. If its encoder does not answer, what the champion finds: the failure is the
        arm's, the search belongs to no experiment.
        """
        depth, champion = k + self.settings.ranked_extra, self.holder.arms[CONTROL]
        try:
            return arm, served, await self.searcher.search(served, query, depth)
        except Unavailable as error:
            if served is champion:
                raise
            self.metrics.requests.labels(arm or NONE, error.code).inc()
        return None, champion, await self.searcher.search(champion, query, depth)

    async def compare(self, query: str, k: int) -> dict[str, tuple[Served, Hits]]:
        """The same query in every arm and every alternative, for the console: nothing is logged, or counted
        as a search. The limits are a search's.
        """
        arms = self.holder.arms
        if not arms:
            raise Unavailable(self.holder.problem)
        with self._slot():
            async with self._in_time():
                answers = {arm: (s, await self.searcher.search(s, query, k)) for arm, s in arms.items()}
                for name, one in self._alternatives.items():
                    answers[name] = one.served, await asyncio.to_thread(one.search, query, k)
                return answers

    async def take(self, events: Sequence[Interaction]) -> None:
        """Returns once all events are durable; UnknownSearch, and none is taken, if one is of a search that
        is not ours. Those that are not durable in time may become so later: whoever sends them again changes
        nothing.
        """
        try:
            searches = {e.search_id: ids.verify(self._secret, e.search_id) for e in events}
        except ids.ForeignId as error:
            raise UnknownSearch(str(error)) from error
        oldest_us = int((self.clock() - self.settings.events_within_s) * 1e6)
        if any(search.ts_us < oldest_us for search in searches.values()):
            raise UnknownSearch(f"a search of more than {self.settings.events_within_s:.0f} s ago")
        if self._log is None:
            raise Unavailable("this gateway keeps no event log", code="no_event_log")
        async with self._in_time():
            await asyncio.shield(self._append(events))
        self._aside(self._count_events(events, searches))

    async def _count_events(self, events: Sequence[Interaction], searches: Mapping[str, ids.Told]) -> None:
        """Each once, and of shown videos alone: what is repeated or invented decides no rollout."""
        seen: dict[tuple[str, Kind], set[str]] = defaultdict(set)
        for event in events:
            if event.type == "click":
                seen[event.search_id, "click"].add(event.video_id)
            elif is_long(event.play_s or 0.0, self._durations.get(event.video_id, math.nan)):
                seen[event.search_id, "long play"].add(event.video_id)
        counters = {"click": self.metrics.clicks, "long play": self.metrics.long_plays}
        for (search_id, kind), videos in seen.items():
            new = await self._shown.count(search_id, kind, videos)
            counters[kind].labels(searches[search_id].arm or NONE).inc(new)

    async def keep_up(self) -> None:
        """Follows manifest and features until it is cancelled; whatever goes wrong is logged and tried
        again.
        """
        while True:
            try:
                await self._keep_up()
            except Exception:  # else this task would end, and nobody would see what is served for ever
                LOG.exception("a fault of this service: what it follows was not looked at")
            await asyncio.sleep(self.settings.poll_s)

    async def _keep_up(self) -> None:
        await self.look()
        self.metrics.event_lag.set(self._log.lag_s() if self._log else 0.0)
        models = {served.release.model for served in self.holder.arms.values()}
        self.metrics.breaker.set(any(self.encoder.breaker(model).open for model in models))
        await self._watch()

    async def _watch(self) -> None:
        """Where the queries lie, and once a minute whether the index still finds what it found when it was
        loaded.
        """
        arms = self._labelled()
        for arm, served in arms.items():
            served.drift.report(self.metrics, arm)
        if time.monotonic() < self._probe_at:
            return
        self._probe_at = time.monotonic() + PROBE_EVERY_S
        for arm, served in arms.items():
            try:
                rows = await self.searcher.nearest(served, served.drift.probes, DEPTH)
                self.metrics.probe_recall.labels(arm).set(served.drift.recall(rows))
            except (CropsError, OSError, RuntimeError) as error:
                # An index that does not answer finds nothing.
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
        except (CropsError, ApiError, OSError) as error:
            LOG.warning("the manifest cannot be read", extra={"why": str(error)})
            self.holder.problem = self.holder.problem or str(error)
        try:
            await self._read_features()
        except (CropsError, OSError, UnicodeDecodeError) as error:
            if self.features_problem != (problem := str(error)):
                LOG.warning("the features are refused", extra={"why": problem})
            self.features_problem = problem

    async def ready(self) -> str | None:
        """None if the champion can be searched now, else what is missing. It also serves the users of a
        treatment that fails, so a bad challenger takes no gateway out of service.
        """
        if self.draining:
            return "shutting down"
        if CONTROL not in self.holder.arms:
            return self.holder.problem
        model = self.holder.arms[CONTROL].release.model
        return None if await self.encoder.ready(model) else f"{CONTROL}: Triton encodes nothing by {model}"

    async def close(self) -> None:
        """Lets what is acknowledged be written and counted, closes channels and threads."""
        if self._counting:
            await asyncio.wait(self._counting, timeout=1.0)
        if self._log is not None:
            await self._log.close()
        self.searcher.close()
        await self.encoder.close()

    def _served(self, user_id: str) -> tuple[str | None, Served, str | None]:
        """The arm that counts, what is served, and the experiment."""
        arms = self.holder.arms
        if CONTROL not in arms:
            raise Unavailable(self.holder.problem or "no release is served")
        assigned = self._assigner.assign(user_id) if self._assigner is not None else assign.NOBODY
        served = arms.get(assigned.arm or NONE)
        # An experiment whose releases are not those in service counts for nothing: everybody gets the
        # champion.
        if served is None or served.release.uri != assigned.release:
            return None, arms[CONTROL], None
        return assigned.counted_arm, served, assigned.experiment

    def _record(
        self, query: str, user_id: str, k: int, arm: str | None, served: Served, hits: Hits
    ) -> Logged:
        ts_us = int(self.clock() * 1e6)
        results = tuple(
            Result(
                video_id=served.index.ids[row],
                position=n if n < k else None,
                score=round(score, 6),
                paths=(PATH,),
            )
            for n, (row, score) in enumerate(zip(hits.rows, hits.scores, strict=True))
        )
        return Logged(
            search_id=ids.make(self._secret, ts_us, arm),
            user_id=pseudonym(self._secret, user_id) if self.settings.hash_users else user_id,
            ts_us=ts_us,
            query=query,
            arm=arm,
            release=served.release.uri,
            results=results,
        )

    async def _append(self, records: Sequence[Record]) -> None:
        assert self._log is not None
        try:
            await self._log.append(records)
        except EventLogError as error:
            self.metrics.events_lost.inc(len(records))
            raise Unavailable(f"the event log does not take it: {error}", code="event_log") from error

    def _count(self, label: str, query: str, answer: Answer) -> None:
        metrics, hits = self.metrics, answer.hits
        shown = min(answer.k, len(hits.rows))
        metrics.requests.labels(label, "ok" if shown else "empty").inc()
        metrics.searches.labels(label).inc()
        metrics.impressions.labels(label).inc(shown)
        metrics.query_chars.labels(label).observe(len(query))
        if hits.cached:
            metrics.cache_hits.labels(label).inc()
        if shown:
            metrics.top_score.labels(label).observe(hits.scores[0])
        else:
            metrics.empty.labels(label).inc()
        answer.served.drift.query(metrics, label, normalise_query(query), hits.vector)
        for phase, seconds in zip(PHASES, (hits.encode_s, hits.retrieve_s, answer.took_s), strict=True):
            metrics.seconds.labels(label, phase).observe(seconds)
        if answer.served.reranker is not None:
            metrics.rerank_seconds.labels(label).observe(hits.rerank_s)
            metrics.rerank_kept.labels(label).inc(hits.kept)

    def _aside(self, counting: Coroutine[Any, Any, None]) -> None:
        """Runs it beside the answers; a store that hangs keeps at most as many as there may be answers."""
        if len(self._counting) >= 2 * self.settings.max_in_flight:
            counting.close()
            return
        task = asyncio.create_task(self._tried(counting))
        self._counting.add(task)
        task.add_done_callback(self._counting.discard)

    async def _tried(self, counting: Coroutine[Any, Any, None]) -> None:
        try:
            await counting
        except Exception as error:  # a Redis that is down costs no answer
            LOG.warning("the state of what is counted does not answer", extra={"why": type(error).__name__})

    async def _count_reformulated(self, user_id: str, search: Search) -> None:
        for reformulated in await self._reformulations.reformulated(user_id, search):
            self.metrics.reformulations.labels(reformulated.arm).inc()

    def _swapped(self) -> None:
        releases, generation = [s.release for s in self.holder.arms.values()], self.holder.generation
        self.searcher.forget([release.checksum for release in releases])
        self.encoder.forget({release.model for release in releases})
        served = {
            label: (s.release.uri, s.index_checksum, s.built_s) for label, s in self._labelled().items()
        }
        self.metrics.serve(served, generation)
        # A full collection of garbage looks at all that lives, modules and releases (80 ms without any
        # release), while nobody is answered. What stays is put out of its sight; a release that is served no
        # more goes with its last reference.
        gc.freeze()
        LOG.info("serving", extra={"generation": generation, "releases": [r.uri for r in releases]})

    def _labelled(self) -> dict[str, Served]:
        """By the label of metrics: outside experiments everybody gets the champion."""
        arms = self.holder.arms
        return {NONE: arms[CONTROL], **arms} if arms else {}

    async def _read_features(self) -> None:
        if (url := self.settings.features) is None:
            return
        file = await asyncio.to_thread(document.read, url)
        if file.version != self._features_version:
            self._assigner = assign.load(url, clock=self.clock, before=self._assigner, file=file)
            self._features_version = file.version
            self.metrics.reach.keep([one.name for one in self._assigner.experiments])
        self.features_problem = ""

    async def _encode(self, model: str, texts: list[str]) -> np.ndarray:
        return await self.encoder.encode(model, texts, timeout_s=self.settings.load_timeout_s)

    async def _ensure(self, model: str) -> None:
        await self.encoder.ensure(model, timeout_s=self.settings.load_timeout_s)


def _durations(folder: Path | None) -> dict[str, float]:
    """Seconds of the videos that are shorter than a long play: of those the whole counts. An InputError where
    the table is not there.
    """
    if folder is None:
        return {}
    short: dict[str, float] = {}
    columns = ["video_id", "duration_s"]
    if not (paths := sorted(folder.rglob("*.parquet"))):
        raise InputError(folder, "holds no Parquet file, expected the table videos")
    for path in paths:
        try:
            rows = pq.read_table(path, columns=columns, filters=[("duration_s", "<", LONG_PLAY_S)])
        except (ValueError, TypeError, NotImplementedError) as error:
            raise InputError(path, f"expected {' and '.join(columns)}: {error}") from error
        short |= zip(*(rows[name].to_pylist() for name in columns), strict=True)
    return short


def _trace(record: logging.LogRecord) -> dict[str, str]:
    """Type and place of an exception; its words may hold what a user typed."""
    kind, _, trace = record.exc_info or (None, None, None)
    return {"trace": f"{kind.__name__}\n{''.join(traceback.format_tb(trace))}"} if kind else {}


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
                **_trace(record),
            }
        )
