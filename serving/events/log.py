"""The event log: `append` returns when its records are on the disk. Many appends share one fsync, in a thread
of its own.

A segment exists for the writer once its header is durable, and is left for good at its first failure: what a
failed fsync has left in the page cache cannot be trusted, so the next record begins a new file.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Protocol

from serving.events import segments
from serving.events.files import Files
from serving.events.records import Record, encode

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class EventLogError(Exception):
    """The records are not durable and were not taken."""


class EventLogFull(EventLogError):
    """There is no room: on the disk, or among the records that wait for it."""


class EventLog(Protocol):
    """Where events go. What `append` has returned for is never lost."""

    async def append(self, records: Sequence[Record]) -> None:
        """Returns once all `records` are durable; an EventLogError where they are not."""

    async def close(self) -> None:
        """Lets what waits be written; nothing is taken afterwards."""

    def lag_s(self) -> float:
        """How long the oldest record has waited to become durable; 0 where none waits."""


class SegmentLog:
    """Segments in a local folder, of one replica; a second writer of the same name is refused.

    Records that failed to be written leave nothing behind: the segment is cut back to its last whole record.
    Where not even that succeeds, recovery does it, before the next segment is begun or at the next start.
    """

    def __init__(
        self,
        folder: Path,
        *,
        replica: str,
        max_bytes: int = 64 << 20,
        max_age_s: float = 300.0,
        max_waiting: int = 20_000,
        clock: Callable[[], float] = time.time,
        files: Files | None = None,
    ) -> None:
        """max_bytes, max_age_s: when a segment is finished and the next begun. max_waiting: records that may
        wait. cut_bytes, damaged_bytes: what recovery cut from, and what it could not read in, segments that
        were left open.
        """
        self.folder, self.replica, self.clock, self._files = folder, replica, clock, files or Files()
        self._max_bytes, self._max_age_s, self._max_waiting = max_bytes, max_age_s, max_waiting
        self._lock = _locked(folder / f".{replica}.lock")
        self.cut_bytes, self.damaged_bytes = 0, 0
        self._left = [p for p in segments.listed(folder) if self._own(p) and p.suffix == segments.OPEN]
        self._recover()
        self._pending: deque[tuple[float, list[bytes], Future[None]]] = deque()
        self._waiting, self._closing = 0, False
        self._wake = threading.Condition()
        self._file: int | None = None
        self._path, self._end, self._begun_s, self._number = folder, 0, 0.0, 0
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
        self._thread.start()

    async def append(self, records: Sequence[Record]) -> None:
        """See EventLog.append."""
        await asyncio.wrap_future(self.submit(records))

    def submit(self, records: Sequence[Record]) -> "Future[None]":
        """`append` for threads: a future that ends when the records are durable, or with an EventLogError."""
        return self.store([encode(record) for record in records])

    def store(self, payloads: Sequence[bytes]) -> "Future[None]":
        """`submit` for records that are encoded already, of whatever version."""
        frames = [segments.frame(payload) for payload in payloads]
        future: Future[None] = Future()
        with self._wake:
            if self._closing:
                raise EventLogError("the event log is closed")
            if self._waiting + len(frames) > self._max_waiting:
                raise EventLogFull(f"{self._waiting} events wait to be written")
            self._waiting += len(frames)
            self._pending.append((time.monotonic(), frames, future))
            self._wake.notify()
        return future

    async def close(self) -> None:
        """See EventLog.close."""
        await asyncio.to_thread(self.stop)

    def stop(self) -> None:
        """Writes what waits, finishes the segment, gives the folder back."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._lock.close()

    def lag_s(self) -> float:
        """See EventLog.lag_s."""
        with self._wake:
            return time.monotonic() - self._pending[0][0] if self._pending else 0.0

    def _own(self, path: Path) -> bool:
        return path.name.rpartition("-")[0].rpartition("-")[0] == self.replica

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._pending and not self._closing:
                    if not self._wake.wait(timeout=1.0):
                        break
                group = list(self._pending)
                closing = self._closing
            if group:
                self._commit(group)
            elif closing:
                self._finish()
                self._recover()
                return
            elif self._file is not None and self.clock() - self._begun_s > self._max_age_s:
                self._finish()

    def _commit(self, group: list[tuple[float, list[bytes], "Future[None]"]]) -> None:
        """One write and one fsync for all that waits; then all are told."""
        error = self._write(b"".join(piece for _, frames, _ in group for piece in frames))
        with self._wake:
            for _ in group:
                _since, frames, _future = self._pending.popleft()
                self._waiting -= len(frames)
        for _, _, future in group:
            if not future.set_running_or_notify_cancel():  # from here on nobody can cancel it
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def _write(self, data: bytes) -> EventLogError | None:
        try:
            if (
                self._file is None
                or self._end > self._max_bytes
                or self.clock() - self._begun_s > self._max_age_s
            ):
                self._finish()
                self._begin()
            assert self._file is not None
            self._files.put(self._file, data)
            self._files.fsync(self._file)
            self._end += len(data)
            return None
        except OSError as error:
            self._leave()
            if error.errno in FULL:
                return EventLogFull(f"{self.folder}: {os.strerror(error.errno)}")
            return EventLogError(f"{self.folder}: {error}")

    def _begin(self) -> None:
        begun_s = self.clock()
        self._number += 1
        path = self.folder / f"{self.replica}-{int(begun_s * 1e6):016d}-{self._number:06d}{segments.OPEN}"
        file = self._files.create(path)
        try:
            self._files.put(file, segments.MAGIC)
            self._files.fsync(file)
            self._files.sync_folder(self.folder)
        except OSError:
            self._files.close(file)
            with contextlib.suppress(OSError):
                self._files.unlink(path)
            raise
        self._file, self._path, self._end, self._begun_s = file, path, len(segments.MAGIC), begun_s
        self._recover()

    def _leave(self) -> None:
        """Gives a segment up after a failure; takes back what that left, so that no reader takes it for a
        record.
        """
        if self._file is None:
            return
        with contextlib.suppress(OSError):
            self._files.truncate(self._file, self._end)
            self._files.fsync(self._file)
        self._close()
        self._left.append(self._path)

    def _close(self) -> None:
        if self._file is not None:
            self._files.close(self._file)
        self._file = None

    def _finish(self) -> None:
        """Ends a segment. Its records are durable already: where it cannot be renamed, recovery does it."""
        if self._file is None:
            return
        self._close()
        try:
            if self._end <= len(segments.MAGIC):
                self._files.unlink(self._path)
            else:
                self._files.rename(self._path, self._path.with_suffix(segments.FINISHED))
            self._files.sync_folder(self.folder)
        except OSError:
            self._left.append(self._path)

    def _recover(self) -> None:
        """Finishes the segments that were left; those that still fail are tried again later."""
        paths, self._left = self._left, []
        for path in paths:
            if not path.exists():  # renamed, but not durably so
                continue
            try:
                recovered = segments.recover(path, self._files)
            except OSError:
                self._left.append(path)
            else:
                self.cut_bytes += recovered.torn_bytes
                self.damaged_bytes += recovered.damaged_bytes


def _locked(path: Path) -> IO[bytes]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise EventLogError(f"{path.parent}: the event log cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if not isinstance(error, BlockingIOError):
            raise EventLogError(f"{path.parent}: this file system takes no lock: {error.strerror}") from error
        raise EventLogError(
            f"{path.parent}: another process writes here as {path.name[1:-5]}; give each replica a name"
        ) from error
    return file
