"""The writer's side of one promise: whatever single call fails below the log, what was acknowledged is read
back. The ledger is the list of acknowledged ids; nothing of the log is asked for it.
"""

import errno
import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from serving.events import log, segments
from serving.events.compact import read_all
from serving.events.files import Files
from tests.serving.events.test_event_log import ROOT, search

CALLS = ("create", "open", "write", "fsync", "truncate", "rename", "unlink", "sync_folder")


class Failing(Files):
    """Calls number `first` to `last` fail with `code`; of a write, half is taken where `short`."""

    def __init__(self, first=0, last=0, code=errno.EIO, *, short=False):
        self.first, self.last, self.code, self.short = first, last, code, short
        self.count, self.failed = 0, Counter()

    def fails(self):
        self.count += 1
        return self.first <= self.count <= self.last

    def write(self, file, data):
        if not self.fails():
            return super().write(file, data)
        self.failed["write"] += 1
        taken = super().write(file, data[: len(data) // 2]) if self.short and len(data) > 1 else 0
        if taken and self.last == self.first:
            return taken  # a short write alone is no error
        raise OSError(self.code, os.strerror(self.code))


def failing(name):
    def call(self, *args):
        if self.fails():
            self.failed[name] += 1
            raise OSError(self.code, os.strerror(self.code))
        # The disk itself is not asked: a thousand lives of a writer need no real fsync.
        return None if "sync" in name else getattr(super(Failing, self), name)(*args)

    return call


for _name in CALLS:
    if _name != "write":
        setattr(Failing, _name, failing(_name))


def live(folder, files, ledger, first):
    """A writer's life: segments rotate by size and by age; what is acknowledged goes into the ledger."""
    now = [1_000.0 + first]
    made = log.SegmentLog(folder, replica="a", max_bytes=900, max_age_s=60, clock=lambda: now[0], files=files)
    for n in range(first, first + 9):
        now[0] += 61 if n % 4 == 3 else 1
        try:
            made.submit([search(n), search(n + 1000)]).result(timeout=10)
        except log.EventLogError:
            continue
        ledger += [f"s{n}", f"s{n + 1000}"]
    return made


def left_open(folder):
    """As after SIGKILL: a segment in writing, with the beginning of a record behind it."""
    folder.mkdir()
    frames = segments.frame(b'{"kind":"') + segments.frame(log.encode(search(500)))
    whole = segments.MAGIC + segments.frame(log.encode(search(400)))
    (folder / f"a-{1:016d}-000001.open").write_bytes(whole + frames[17:60])


def check(folder, ledger, when):
    there = Counter(r.search_id for r in read_all(folder))
    assert {name: there[name] for name in ledger} == dict.fromkeys(ledger, 1), when


def lives(folder, *args, **kwargs):
    left_open(folder)
    files, ledger = Failing(*args, **kwargs), ["s400"]
    made = live(folder, files, ledger, 0)
    check(folder, ledger, "while it runs")
    made.stop()
    check(folder, ledger, "after it has stopped")
    again = live(folder, files, ledger, 100)
    again.stop()
    log.SegmentLog(folder, replica="a", files=Failing()).stop()  # a start without any fault finishes all
    check(folder, ledger, "after it was opened again")
    damage = [p for path in segments.listed(folder) for p in segments.pieces(path) if p.payload is None]
    assert not damage, "what a failed write left is no damage"
    assert {p.suffix for p in segments.listed(folder)} == {".seg"}
    return files, ledger


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize(
    "length", [1, pytest.param(2, marks=pytest.mark.slow), 3, pytest.param(7, marks=pytest.mark.slow), 1000]
)
@pytest.mark.parametrize("short", [False, True])
def test_whatever_call_fails_what_was_acknowledged_is_read_back(tmp_path, code, length, short):
    """One call, or several in a row, from the first to the last that two lives of a writer make."""
    total, ledger = lives(tmp_path / "whole")
    assert len(ledger) == 37, "without a fault all is acknowledged"
    failed = Counter()
    for first in range(1, total.count + 1):
        files, ledger = lives(tmp_path / str(first), first, first + length - 1, code, short=short)
        failed += files.failed
    assert failed.keys() == set(CALLS), "every kind of call has failed"


def test_a_full_disk_at_rotation_then_room(tmp_path):
    """Acknowledged before, while and after the disk is full at the moment a segment is begun."""
    now, files, ledger = [1000.0], Failing(code=errno.ENOSPC), []

    def put(made, n):
        made.submit([search(n)]).result(timeout=10)
        ledger.append(f"s{n}")

    made = log.SegmentLog(tmp_path, replica="a", clock=lambda: now[0], files=files)
    for n in range(3):
        put(made, n)
    now[0] += 301
    files.first, files.last = files.count + 4, 10**9  # renamed and created; its header meets the full disk
    for n in range(3, 6):
        with pytest.raises(log.EventLogFull, match="No space left"):
            put(made, n)
    files.last = 0
    for n in range(6, 9):
        put(made, n)
    check(tmp_path, ledger, "while it runs")
    made._lock.close()  # as after SIGKILL
    log.SegmentLog(tmp_path, replica="a").stop()
    check(tmp_path, ledger, "after a restart")
    assert len(ledger) == 6
    assert all(path.read_bytes().startswith(segments.MAGIC) for path in segments.listed(tmp_path))


def test_what_is_longer_than_a_header_is_never_removed(tmp_path):
    for name, content in (("000001", b"CROPSEV2" + b"x" * 50), ("000002", bytes(4096)), ("000003", b"C")):
        (tmp_path / f"a-{0:016d}-{name}.open").write_bytes(content)
    made = log.SegmentLog(tmp_path, replica="a")
    made.stop()
    assert [p.name[-10:] for p in segments.listed(tmp_path)] == ["000001.seg", "000002.seg"]
    assert made.damaged_bytes == 58 + 4096
    assert sum(p.stat().st_size for p in (tmp_path / "damaged").iterdir()) == 58 + 4096


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(log.EventLogError, match="the event log cannot be opened"):
        log.SegmentLog(tmp_path / "file" / "events", replica="a")


def test_a_request_that_is_cancelled_leaves_the_writer_alive(tmp_path):
    made = log.SegmentLog(tmp_path, replica="a")
    for n in range(200):
        made.submit([search(n)]).cancel()
    made.submit([search(500)]).result(timeout=10)
    made.stop()
    assert "s500" in {r.search_id for r in read_all(tmp_path)}


def test_a_second_gateway_on_the_same_log_ends_with_one_sentence(tmp_path):
    first = log.SegmentLog(tmp_path / "events", replica="a")
    settings = {
        "manifest": str(tmp_path / "manifest.json"),
        "events": str(tmp_path / "events"),
        "replica": "a",
    }
    (tmp_path / "gateway.json").write_text(json.dumps({**settings, "state": str(tmp_path / "state")}))
    done = subprocess.run(
        [sys.executable, "-m", "serving.gateway", str(tmp_path / "gateway.json")],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    first.stop()
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        f"gateway: {tmp_path / 'events'}: another process writes here as a; give each replica a name"
    ]
