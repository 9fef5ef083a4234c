"""Acknowledged means durable: torn tails at every byte, a full disk, two writers, a writer that is killed
under load.
"""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.events import ids, log, segments
from serving.events.compact import read_all
from serving.events.files import Files
from serving.events.records import Interaction, Result, Search, decode, encode, pseudonym

ROOT = Path(__file__).resolve().parents[3]


class Unsynced(Files):
    """Asks the disk for nothing: for tests that live a thousand times."""

    def fsync(self, file):
        """Nothing."""

    def sync_folder(self, folder):
        """Nothing."""


def search(n, user="u", query="q", results=3):
    found = tuple(
        Result(video_id=f"v{i}", position=i if i < 2 else None, score=1.0 - i, paths=("dense",))
        for i in range(results)
    )
    return Search(
        search_id=f"s{n}",
        user_id=user,
        ts_us=1_700_000_000_000_000 + n,
        query=query,
        arm=None,
        release="r",
        results=found,
    )


def click(n, video="v0", kind="click", play_s=None):
    return Interaction(search_id=f"s{n}", video_id=video, type=kind, play_s=play_s, ts_us=1)


def written(folder, count=5, **settings):
    made = log.SegmentLog(folder, replica="a", **settings)
    for n in range(count):
        made.submit([search(n)]).result(timeout=10)
    return made


@given(st.text(max_size=30), st.none() | st.sampled_from(["control", "treatment"]), st.floats(0, 1e6))
def test_a_record_comes_back_as_it_was(query, arm, play_s):
    one = Search(
        search_id="s",
        user_id="ü",
        ts_us=1,
        query=query,
        arm=arm,
        release="r",
        results=(Result(video_id="v", position=0, score=0.5),),
    )
    for record in (one, Interaction(search_id="s", video_id="v", type="play", play_s=play_s, ts_us=2)):
        assert decode(encode(record)) == record


def test_what_append_returned_for_is_read_back(tmp_path):
    made = written(tmp_path)
    assert [r.search_id for r in read_all(tmp_path)] == [f"s{n}" for n in range(5)], (
        "also while the segment is open"
    )
    made.stop()
    assert [p.suffix for p in segments.listed(tmp_path)] == [".seg"]
    assert [r.search_id for r in read_all(tmp_path)] == [f"s{n}" for n in range(5)]
    with pytest.raises(log.EventLogError, match="closed"):
        made.submit([search(9)])


def test_cut_at_any_byte_the_whole_records_are_kept_and_the_next_writer_goes_on(tmp_path):
    written(tmp_path / "log").stop()
    (segment,) = segments.listed(tmp_path / "log")
    data = segment.read_bytes()
    ends = [end for end, _ in segments.read(segment)]
    for size in range(len(data) + 1):
        folder = tmp_path / "cut"
        folder.mkdir(exist_ok=True)
        path = folder / f"a-{0:016d}-000001.open"
        path.write_bytes(data[:size])
        segments.recover(path, Unsynced())
        expected = sum(end <= size for end in ends)
        assert len(list(read_all(folder))) == expected, size
        for left in segments.listed(folder):
            left.unlink()


def test_segments_rotate_by_size_and_by_age(tmp_path):
    now = [1000.0]
    made = log.SegmentLog(tmp_path, replica="a", max_bytes=600, max_age_s=60, clock=lambda: now[0])
    for n in range(6):
        made.submit([search(n)]).result(timeout=10)
    assert len(segments.listed(tmp_path)) >= 2
    before = len(segments.listed(tmp_path))
    now[0] += 61
    made.submit([search(7)]).result(timeout=10)
    assert len(segments.listed(tmp_path)) == before + 1
    made.stop()
    assert len(list(read_all(tmp_path))) == 7


def test_a_second_writer_of_the_same_name_is_refused_and_another_name_is_not(tmp_path):
    first = written(tmp_path)
    with pytest.raises(log.EventLogError, match="another process writes here as a"):
        log.SegmentLog(tmp_path, replica="a")
    second = log.SegmentLog(tmp_path, replica="b")
    second.submit([search(100)]).result(timeout=10)
    first.stop(), second.stop()
    assert {r.search_id for r in read_all(tmp_path)} == {*(f"s{n}" for n in range(5)), "s100"}


def test_a_full_disk_is_said_nothing_half_written_stays_and_later_it_goes_on(tmp_path, monkeypatch):
    made = written(tmp_path, 2)
    real, full = os.fsync, [True]

    def fsync(descriptor):
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor)

    monkeypatch.setattr(log.os, "fsync", fsync)
    with pytest.raises(log.EventLogFull, match="No space left"):
        made.submit([search(2)]).result(timeout=10)
    full[0] = False
    made.submit([search(3)]).result(timeout=10)
    made.stop()
    assert [r.search_id for r in read_all(tmp_path)] == ["s0", "s1", "s3"]


def test_too_many_waiting_are_refused_at_once(tmp_path, monkeypatch):
    made = log.SegmentLog(tmp_path, replica="a", max_waiting=3)
    monkeypatch.setattr(made, "_write", lambda data: time.sleep(0.2))
    held = [made.submit([search(n)]) for n in range(3)]
    with pytest.raises(log.EventLogFull, match="wait to be written"):
        made.submit([search(9)])
    for future in held:
        future.result(timeout=10)
    made.stop()


def test_many_appends_share_an_fsync(tmp_path, monkeypatch):
    made, count, real = written(tmp_path, 1), [0], os.fsync

    def fsync(descriptor):
        count[0] += 1
        time.sleep(0.01)
        return real(descriptor)

    monkeypatch.setattr(log.os, "fsync", fsync)

    async def all_at_once():
        await asyncio.gather(*(made.append([click(n)]) for n in range(200)))

    asyncio.run(all_at_once())
    made.stop()
    assert count[0] < 20
    assert len(list(read_all(tmp_path))) == 201


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from tests.serving.events.test_event_log import search
from serving.events.log import SegmentLog
made, n = SegmentLog(Path(sys.argv[1]), replica="a", max_bytes=20_000), int(sys.argv[2])
while True:
    futures = [(n + k, made.submit([search(n + k)])) for k in range(20)]
    n += 20
    for k, future in futures:
        future.result()
        print(k, flush=True)
"""


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_under_load_every_acknowledged_record_is_there_once(tmp_path, rounds):
    told = set()
    for number in range(rounds):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(number * 1_000_000), str(ROOT)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        lines = [process.stdout.readline() for _ in range(60 + 7 * number)]
        os.kill(process.pid, signal.SIGKILL)
        rest = process.stdout.read().split(b"\n")[:-1]
        process.wait()
        told |= {int(line) for line in [*lines, *rest] if line.strip()}
    log.SegmentLog(tmp_path, replica="a").stop()
    found = [int(r.search_id[1:]) for r in read_all(tmp_path)]
    assert told <= set(found)
    assert len(found) == len(set(found))


def test_ids_are_ours_or_nobodys():
    secret = b"s" * 32
    made = ids.make(secret, 1_700_000_000_123_456, "treatment")
    assert ids.verify(secret, made) == ids.Told(1_700_000_000_123_456, "treatment")
    assert len(made) == ids.LENGTH == 35
    assert ids.make(secret, 1) != ids.make(secret, 1)
    for other in (made[:-1], made + "A", "é" * 35, "", ids.make(b"t" * 32, 1), made.swapcase()):
        with pytest.raises(ids.ForeignId):
            ids.verify(secret, other)


@given(st.integers(0, 34), st.sampled_from("ABCabc012-_="))
def test_a_changed_character_is_no_id(place, character):
    secret = b"s" * 32
    made = ids.make(secret, 12345, chance=b"1234567")
    changed = made[:place] + character + made[place + 1 :]
    if changed != made:
        with pytest.raises(ids.ForeignId):
            ids.verify(secret, changed)


def test_a_pseudonym_joins_and_does_not_tell():
    assert pseudonym(b"k", "user") == pseudonym(b"k", "user")
    assert pseudonym(b"k", "user") != pseudonym(b"l", "user")
    assert "user" not in pseudonym(b"k", "user")
