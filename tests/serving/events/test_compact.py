"""Compaction: every event once, in the tables as validate and augment read them, whatever order and replica
it came by.
"""

import contextlib
import dataclasses
import datetime as dt
import json
import math
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from crops.cli.serve import compact as verb
from crops.config.augment import AugmentConfig
from crops.config.validate import ValidateConfig
from crops.stages.logs import augment, validate
from crops.tables import artifacts
from crops.tables import records as tables
from crops.world import simulate
from serving.events import compact, ids, log, segments
from serving.events.records import Interaction, Result, Search, encode
from tests.serving.events.test_event_log import ROOT, Unsynced

DAY = dt.datetime(2026, 1, 5, tzinfo=dt.UTC)


def us(**after):
    return int((DAY + dt.timedelta(**after)).timestamp() * 1e6)


def search(name, ts_us, user="u", query="bread", arm=None):
    found = tuple(
        Result(video_id=f"v{n}", position=n if n < 2 else None, score=1 - n / 10, paths=("crops",))
        for n in range(3)
    )
    return Search(
        search_id=name,
        user_id=user,
        ts_us=ts_us,
        query=query,
        arm=arm,
        release="models:/crops/1",
        results=found,
    )


def did(name, video, kind="click", play_s=None, ts_us=0):
    return Interaction(search_id=name, video_id=video, type=kind, play_s=play_s, ts_us=ts_us)


def write(folder, *groups):
    """Each group by a replica of its own."""
    for number, group in enumerate(groups):
        made = log.SegmentLog(folder, replica=f"gateway-{number}", max_bytes=500)
        for record in group:
            made.submit([record]).result(timeout=10)
        made.stop()
    return folder


def rows(folder, name):
    return pq.read_table(folder / name).to_pylist()


def test_two_replicas_late_and_repeated_events(tmp_path):
    """A search late on day one at one replica, its click next day at the other, sent twice; the longest play
    counts.
    """
    one = [search("s1", us(hours=23, minutes=59), arm="treatment"), did("s2", "v0", "like")]
    two = [
        did("s1", "v1", ts_us=us(hours=30)),
        search("s2", us(hours=25)),
        did("s1", "v1"),
        search("s2", us(hours=25)),
        did("s2", "v0", "play", 3.0),
        did("s2", "v0", "play", 40.0),
        did("s2", "v0", "play", 5.0),
    ]
    lost = [did("s1", "v2"), did("s9", "v0"), did("s1", "never")]
    folder = write(tmp_path / "events", one, two, lost)
    out = tmp_path / "out"
    out.mkdir()
    tally = compact.compact([folder], out)
    assert (tally.searches, tally.results, tally.interactions, tally.duplicates) == (2, 6, 6, 4)
    assert dict(tally.orphans) == {"video was not exposed in the search": 2, "unknown search": 1}
    found = {(r["search_id"], r["video_id"]): r for r in rows(out, "results")}
    assert str(found["s1", "v1"]["date"]) == "2026-01-05", "under its search's day"
    assert found["s1", "v1"]["clicked"]
    assert (found["s2", "v0"]["liked"], found["s2", "v0"]["play_s"]) == (True, 40.0)
    assert found["s1", "v2"]["stage"] == "ranked"
    assert found["s1", "v2"]["position"] is None
    assert {r["search_id"]: r["arm"] for r in rows(out, "searches")} == {"s1": "treatment", "s2": None}
    assert sorted(r["reason"] for r in rows(out, "orphans")) == [
        "unknown search",
        *["video was not exposed in the search"] * 2,
    ]
    for table in (tables.SEARCHES, tables.RESULTS):
        assert artifacts.read(out, table).num_rows


@pytest.mark.parametrize("after", ["listed", "sized", "gone"])
def test_a_segment_that_its_writer_finishes_meanwhile_is_read_all_the_same(tmp_path, monkeypatch, after):
    """Renamed between the listing and the reading, at two places; or empty and removed."""
    folder = tmp_path / "events"
    made = log.SegmentLog(folder, replica="a")
    if after != "gone":
        made.submit([search("s1", us(hours=1))]).result(timeout=10)
    plain = {"listed": segments.listed, "sized": segments.size, "gone": segments.listed}[after]

    def then_finished(*args):
        found = plain(*args)
        made.stop()
        for path in folder.glob("*.open"):  # an empty one
            path.unlink()
        return found

    monkeypatch.setattr(segments, "size" if after == "sized" else "listed", then_finished)
    (tmp_path / "out").mkdir()
    tally = compact.compact([folder], tmp_path / "out")
    assert (tally.searches, tally.torn_bytes) == (0 if after == "gone" else 1, 0)


def test_again_and_in_buckets_it_writes_the_same(tmp_path, monkeypatch):
    rng = random.Random(0)
    made = [search(f"s{n}", us(minutes=n)) for n in range(60)]
    made += [
        did(f"s{rng.randrange(70)}", f"v{rng.randrange(3)}", rng.choice(("click", "like"))) for _ in range(80)
    ]
    rng.shuffle(made)
    folder = write(tmp_path / "events", made[:70], made[70:])

    def told(name, bucket_bytes):
        monkeypatch.setattr(compact, "BUCKET_BYTES", bucket_bytes)
        (tmp_path / name).mkdir()
        tally = compact.compact([folder], tmp_path / name)
        key = lambda r: (r["search_id"], r.get("video_id", ""))  # noqa: E731
        return tally, [sorted(rows(tmp_path / name, t), key=key) for t in ("searches", "results")]

    assert told("a", 1 << 20) == told("b", 1 << 20) == told("c", 2000)


@pytest.fixture(scope="module")
def closed(tmp_path_factory):
    """A tiny world's searches as a gateway would have logged them, compacted by the verb beside its videos
    and feed.
    """
    root = tmp_path_factory.mktemp("closed")
    simulate.write(root / "world", scale="tiny", seed=0)
    shown = {}
    for row in artifacts.read(root / "world", tables.RESULTS).to_pylist():
        if row["stage"] != "filtered":
            shown.setdefault(row["search_id"], []).append(row)
    made = []
    for row in artifacts.read(root / "world", tables.SEARCHES).to_pylist():
        own = shown.get(row["search_id"], [])
        found = tuple(Result(video_id=r["video_id"], position=r["position"], score=0.5) for r in own)
        made.append(
            Search(
                search_id=row["search_id"],
                user_id=row["user_id"],
                ts_us=int(row["ts"].timestamp() * 1e6),
                query=row["query"],
                arm=None,
                release="r",
                results=found,
            )
        )
        for r in own:
            made += [
                did(row["search_id"], r["video_id"], kind)
                for kind, key in (("click", "clicked"), ("like", "liked"))
                if r[key]
            ]
            if r["play_s"]:
                made.append(did(row["search_id"], r["video_id"], "play", r["play_s"]))
    writer = log.SegmentLog(root / "events", replica="a")
    writer.submit(made).result(timeout=60)
    writer.stop()
    arguments = [
        "--events",
        root / "events",
        "--videos",
        root / "world/videos",
        "--feed",
        root / "world/feed",
        "--out",
        root / "logs",
    ]
    done = CliRunner().invoke(verb, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return root


def test_the_loop_closes_validate_and_augment_read_the_tables_as_they_are(closed):
    """What was mined from the world's own tables and from what a gateway logged of the same searches is the
    same.
    """
    for name in ("world", "logs"):
        report = validate.run(closed / name, closed / f"{name}-valid", ValidateConfig())
        assert report.numbers["critical_failures"] == 0
        assert report.numbers["searches_quarantined"] == report.numbers["results_quarantined"] == 0
        augment.run(closed / f"{name}-valid", closed / f"{name}-mined", AugmentConfig())
    for table in (tables.CANDIDATES, tables.TEST_CT, tables.TEST_QR, tables.VALID_QR):
        one, other = (artifacts.read(closed / f"{name}-mined", table) for name in ("world", "logs"))
        if table is tables.CANDIDATES:  # the gateway logs no filtered stage
            one, other = (
                t.filter([p != "filtered" for p in t["perspective"].to_pylist()]) for t in (one, other)
            )
        assert one.num_rows
        assert one.equals(other), table.name


def run(tmp_path, *more, out="out", events="events"):
    arguments = ["--events", str(tmp_path / events), "--out", str(tmp_path / out), *more]
    return CliRunner().invoke(verb, arguments)


def contents(folder):
    """Every row of both tables, in an order of its own."""
    return {
        name: sorted(
            (json.dumps(row, default=str, sort_keys=True) for row in rows(folder, name))
            if (folder / name).exists()
            else ()
        )
        for name in ("searches", "results")
    }


def files(folder):
    return {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*.parquet")}


def test_nothing_to_compact_yet_is_one_line_and_no_error(tmp_path):
    (tmp_path / "events").mkdir()
    done = run(tmp_path)
    assert (done.exit_code, len(done.output.splitlines())) == (0, 1)
    assert "no search in any segment" in done.output
    log.SegmentLog(tmp_path / "events", replica="a").stop()
    assert run(tmp_path).exit_code == 0, "also with a gateway that has logged nothing"
    done = run(tmp_path, events="nowhere")
    assert "no such folder" in str(done.exception), "a misspelt folder is an error"


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    write(tmp_path / "events", [search("s1", us())])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("x")
    assert "has not written" in str(run(tmp_path).exception)


@pytest.mark.parametrize("ids_tell_the_day", [False, True])
def test_piece_by_piece_it_gives_the_tables_of_one_run(tmp_path, monkeypatch, ids_tell_the_day):
    """Twelve runs over a growing log, days apart, events before and after their search, parts that are cut
    anew as a day grows: the same rows as in one run over all of it.
    """
    monkeypatch.setattr(compact, "BUCKET_BYTES", 4000)
    monkeypatch.setattr(compact, "Files", Unsynced)
    rng = random.Random(1)
    times = {n: us(hours=n % 4 * 20, minutes=n) for n in range(120)}
    secret = b"s" * 32
    names = {
        n: ids.make(secret, t, chance=n.to_bytes(7)) if ids_tell_the_day else f"s{n}"
        for n, t in times.items()
    }
    made = [search(names[n], t) for n, t in times.items()]
    kinds = ("click", "like", "play")
    made += [
        did(
            names[n],
            f"v{rng.randrange(3)}",
            kind,
            float(rng.randrange(9)) if kind == "play" else None,
            ts_us=k,
        )
        for k in range(300)
        for n, kind in [(rng.randrange(120), rng.choice(kinds))]
    ]
    rng.shuffle(made)
    made += made[:20]
    events = tmp_path / "events"
    for first in range(0, len(made), 37):
        write(events, made[first : first + 20], made[first + 20 : first + 37])
        assert run(tmp_path, *(["--retire"] if first % 2 else [])).exit_code == 0
        write(tmp_path / "all", made[first : first + 20], made[first + 20 : first + 37])
    assert len(list((tmp_path / "out/searches").glob("date=*"))) == 3
    assert len(list((tmp_path / "out/results").rglob("*-of-00001.parquet"))) == 0, "parts grew"
    done = run(tmp_path, out="whole", events="all")
    assert done.exit_code == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    orphans = [sorted(map(str, rows(tmp_path / name, "orphans"))) for name in ("out", "whole")]
    assert orphans[0] == orphans[1]
    assert {r["reason"] for r in rows(tmp_path / "out", "orphans")} == {compact.UNSEEN}


def test_work_is_proportional_to_what_is_new(tmp_path, monkeypatch):
    """Nothing new: nothing is read and no file is written. A late click: its day alone."""
    events = write(tmp_path / "events", [search(f"s{n}", us(days=n)) for n in range(5)])
    assert run(tmp_path).exit_code == 0
    before, read = files(tmp_path / "out"), []
    plain = segments.pieces
    monkeypatch.setattr(
        segments, "pieces", lambda path, start=0: (read.append(path.name), plain(path, start))[1]
    )
    assert run(tmp_path).exit_code == 0
    assert [name for name in read if name != compact.NEWER] == []
    assert files(tmp_path / "out") == before
    write(events, [did("s3", "v1")])
    done = run(tmp_path)
    changed = {p.parent.name for p, stamp in files(tmp_path / "out").items() if before.get(p) != stamp}
    assert changed == {"date=2026-01-08"}
    assert "days_written      1" in " ".join(done.output.split()).replace(
        "days_written 1", "days_written      1"
    )
    assert json.loads((tmp_path / "out.compacted.json").read_text())["at_s"] > 0


def test_an_open_segment_is_taken_up_to_where_it_is_and_goes_on_from_there(tmp_path):
    made = log.SegmentLog(tmp_path / "events", replica="a")
    for n in range(5):
        made.submit([search(f"s{n}", us(hours=n))]).result(timeout=10)
        done = run(tmp_path, "--retire")
        assert done.exit_code == 0, done.output
        assert len(rows(tmp_path / "out", "searches")) == n + 1
    made.stop()
    assert json.loads((tmp_path / "out/compact.json").read_text()) == {
        "searches": 5,
        "results": 15,
        "days": 1,
    }
    assert segments.listed(tmp_path / "events"), "a segment in writing is not removed"
    run(tmp_path, "--retire")
    assert not segments.listed(tmp_path / "events"), "a finished one is, once its rows are durable"
    run(tmp_path, "--retire")
    assert len(rows(tmp_path / "out", "searches")) == 5, "full tables are never replaced by emptier ones"


def test_tables_of_an_earlier_version_and_a_lost_state_are_gone_on_with(tmp_path):
    events = write(tmp_path / "events", [search(f"s{n}", us(hours=n)) for n in range(5)], [did("s1", "v1")])
    run(tmp_path)
    whole = contents(tmp_path / "out")
    (tmp_path / "out/.compaction/state.json").write_text("{")
    for path in list((tmp_path / "out").rglob("part-*-of-*.parquet")):
        path.rename(path.with_name("part-0.parquet"))
    for segment in segments.listed(events):
        if "gateway-0" in segment.name:
            segment.unlink()
    write(events, [search("s9", us(hours=9))])
    assert run(tmp_path).exit_code == 0
    now = contents(tmp_path / "out")
    assert set(whole["results"]) < set(now["results"])
    assert len(now["searches"]) == 6


def test_damage_ends_with_one_until_it_is_accepted_and_all_else_is_in_the_tables(tmp_path):
    events = write(tmp_path / "events", [search(f"s{n}", us(hours=n)) for n in range(6)])
    (victim, *_) = segments.listed(events)
    spans = [(p.at, p.end) for p in segments.pieces(victim)]
    hurt = bytearray(victim.read_bytes())
    hurt[spans[0][0] + 30] ^= 4
    victim.write_bytes(hurt)
    for _ in range(2):
        done = run(tmp_path, "--retire")
        assert done.exit_code == 1, "it stays an error until somebody has looked"
        (line,) = [line for line in done.output.splitlines() if line.startswith("crops: ")]
        assert f"{victim}@{spans[0][0]}: {spans[0][1] - spans[0][0]} bytes are no record" in line
        assert len(rows(tmp_path / "out", "searches")) == 5
        assert segments.listed(events) == [victim], "what is damaged is not retired"
        assert not (tmp_path / "out.compacted.json").exists()
    aside = tmp_path / "out/damaged" / f"{victim.name}@{spans[0][0]}"
    assert aside.read_bytes() == hurt[slice(*spans[0])]
    assert run(tmp_path, "--retire", "--accept-damage").exit_code == 0
    assert not segments.listed(events)
    assert run(tmp_path).exit_code == 0
    assert aside.exists()


def test_reordered_doubled_and_replaced_segments(tmp_path):
    made = [search(f"s{n}", us(hours=n)) for n in range(6)] + [did("s1", "v1"), did("s2", "v0", "play", 3.0)]
    events = write(tmp_path / "events", made)
    run(tmp_path, out="plain")
    paths = segments.listed(events)
    contained = [p.read_bytes() for p in paths]
    for path, content in zip(paths, reversed(contained), strict=True):
        path.write_bytes(content)
    (events / "gateway-0-9-000099.seg").write_bytes(contained[0])
    (events / "gateway-0-9-000100.seg").write_bytes(random.Random(0).randbytes(3000))
    done = run(tmp_path)
    assert done.exit_code == 1
    assert "gateway-0-9-000100.seg@0: 3000 bytes" in done.output
    assert contents(tmp_path / "out") == contents(tmp_path / "plain")


def test_records_of_a_newer_version_are_kept_and_read_by_it(tmp_path, monkeypatch):
    events = write(tmp_path / "events", [search("s1", us())])
    newer = [
        b'{"kind":"impression","search_id":"s1"}',
        encode(search("s2", us()))[:-1] + b',"device":"tv"}',
        b'{"kind":"interaction","search_id":5,"video_id":"v","type":"click","play_s":null,"ts_us":1}',
    ]
    (events / "gateway-9-1-000001.seg").write_bytes(segments.MAGIC + b"".join(map(segments.frame, newer)))
    for _ in range(2):
        done = run(tmp_path, "--retire")
        assert done.exit_code == 0, done.output
        assert "3 records of a newer version are kept" in done.output
    assert not segments.listed(events)
    plain = compact.decode

    def knows_devices(payload):
        return plain(payload.replace(b',"device":"tv"', b""))

    monkeypatch.setattr(compact, "decode", knows_devices)
    assert "2 records of a newer version" in run(tmp_path).output
    assert {r["search_id"] for r in rows(tmp_path / "out", "searches")} == {"s1", "s2"}


KILLED = """
import sys
from pathlib import Path
from serving.events import compact
compact.BUCKET_BYTES = 3000
compact.compact([Path(sys.argv[1]) / "events"], Path(sys.argv[1]) / "out", retire=True)
"""


@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_anywhere_and_run_again_it_gives_the_same_tables(tmp_path, monkeypatch, rounds):
    """SIGKILL after a random time; and, call by call, an end at every rename and removal of a run."""
    rng = random.Random(0)
    events = tmp_path / "events"
    for number in range(rounds):
        made = [search(f"s{number}-{n}", us(days=n % 3, minutes=number)) for n in range(30)]
        made += [did(f"s{rng.randrange(number + 1)}-{rng.randrange(30)}", "v1", ts_us=n) for n in range(30)]
        write(events, made)
        write(tmp_path / "all", made)
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=rng.uniform(0.8, 3.0))
        process.kill()
        process.wait()
    monkeypatch.setattr(compact, "BUCKET_BYTES", 3000)
    compact.compact([events], tmp_path / "out", retire=True)
    assert not segments.listed(events)
    assert run(tmp_path, out="whole", events="all").exit_code == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


class Ended(BaseException):
    """As SIGKILL: nothing is caught, nothing is cleaned up."""


def test_ended_at_any_call_and_run_again_it_gives_the_same_tables(tmp_path, monkeypatch):
    first = [search(f"s{n}", us(days=n % 2, minutes=n)) for n in range(8)] + [did("s9", "v1")]
    second = [search("s9", us(minutes=9)), did("s0", "v0", "like"), did("s1", "v1")]

    monkeypatch.setattr(compact, "Files", Unsynced)

    def life(folder, stop):
        """Two runs, the second of which ends at call number `stop`; returns whether it came that far."""
        write(folder / "events", first)
        compact.compact([folder / "events"], folder / "out", retire=True)
        write(folder / "events", second)
        count = [0]

        def counted(plain):
            def call(*args, **kwargs):
                count[0] += 1
                if count[0] == stop:
                    raise Ended
                return plain(*args, **kwargs)

            return call

        with monkeypatch.context() as patched:
            for owner, name in (
                (Path, "rename"),
                (Path, "replace"),
                (Path, "unlink"),
                (shutil, "rmtree"),
                (Path, "mkdir"),
            ):
                patched.setattr(owner, name, counted(getattr(owner, name)))
            with contextlib.suppress(Ended):
                compact.compact([folder / "events"], folder / "out", retire=True)
        compact.compact([folder / "events"], folder / "out", retire=True)
        return contents(folder / "out"), count[0] >= stop

    whole, _ = life(tmp_path / "whole", -1)
    assert len(whole["searches"]) == 9
    reached, stop = True, 0
    while reached:
        stop += 1
        found, reached = life(tmp_path / str(stop), stop)
        assert found == whole, stop
    assert stop > 15


def test_two_runs_at_once_the_second_says_so(tmp_path):
    write(tmp_path / "events", [search("s1", us())])
    with compact._alone(tmp_path / "out"):
        assert "another `crops compact` writes here" in str(run(tmp_path).exception)


def test_the_runbook_makes_room_and_leaves_the_tables_whole(tmp_path):
    """The commands of monitoring/runbooks/EventsLost.md, again and again, as on-call would type them."""
    book = (ROOT / "monitoring/runbooks/EventsLost.md").read_text()
    commands = re.findall(r"^crops compact (.*)$", book, flags=re.M)
    assert commands
    for number in range(3):
        write(tmp_path / "events", [search(f"s{number}-{n}", us(days=number, minutes=n)) for n in range(100)])
        for command in commands:
            typed = [
                {"EVENTS": str(tmp_path / "events"), "TABLES": str(tmp_path / "t")}.get(w, w)
                for w in shlex.split(command)
            ]
            done = CliRunner().invoke(verb, typed)
            assert done.exit_code == 0, done.output
        assert len(rows(tmp_path / "t", "searches")) == 100 * (number + 1)
        assert not segments.listed(tmp_path / "events"), "room was made"


def test_memory_does_not_grow_with_the_days(tmp_path):
    """Peak of a run over two days and over twelve, of the same size a day."""
    peaks = []
    for days in (2, 12):
        folder = tmp_path / str(days)
        folder.mkdir()
        for day in range(days):
            results = tuple(
                Result(video_id=f"v{i:06d}", position=i, score=0.5, paths=("crops",)) for i in range(30)
            )
            frames = [
                segments.frame(
                    encode(
                        dataclasses.replace(search(f"s{day}-{n}", us(days=day, seconds=n)), results=results)
                    )
                )
                for n in range(700)
            ]
            (folder / f"g-{day}-1.seg").write_bytes(segments.MAGIC + b"".join(frames))
        code = (
            "import resource, sys; from pathlib import Path; from serving.events import compact;"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
            "compact.compact([Path(sys.argv[1])], Path(sys.argv[1]) / 'out');"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 25, peaks


def altered(record, **values):
    return json.dumps(json.loads(encode(record)) | values).encode()


VIDEO = {"video_id": "v", "position": 0, "score": 0.5, "paths": []}


@pytest.mark.parametrize(
    "odd",
    [
        altered(search("x", us()), user_id=5),
        altered(search("x", us()), search_id=None),
        altered(search("x", us()), query="\ud800"),
        altered(search("x", us()), arm="placebo"),
        altered(search("x", us()), ts_us=True),
        altered(search("x", us()), ts_us=10**30),
        altered(search("x", us()), results=[VIDEO | {"video_id": 3}]),
        altered(search("x", us()), results=[VIDEO | {"video_id": "\ud800"}]),
        altered(search("x", us()), results=[VIDEO | {"position": "0"}]),
        altered(search("x", us()), results=[VIDEO | {"position": 10**12}]),
        altered(did("s", "v0", "play"), play_s="3"),
        altered(did("s", "v0", "play"), play_s=math.nan),
        altered(did("s", "v0", "play"), play_s=-3.0),
        altered(did("s", "v0"), type=["click"]),
        altered(did("nobody", "v0"), video_id=4),
        altered(did("nobody", "v0"), ts_us=10**30),
        b'{"kind":' + b"[" * 100_000,
    ],
)
def test_a_record_whose_values_no_table_can_hold_is_kept_and_ends_no_compaction(tmp_path, odd):
    """A topic of Kafka may have other writers; one such record would have ended every run from then on."""
    (tmp_path / "events").mkdir()
    frames = map(segments.frame, (encode(search("s", us())), odd, encode(did("s", "v0"))))
    (tmp_path / "events/a.seg").write_bytes(segments.MAGIC + b"".join(frames))
    tally = compact.compact([tmp_path / "events"], tmp_path / "out")
    assert (tally.searches, tally.interactions, tally.newer) == (1, 1, 1)
    assert compact.compact([tmp_path / "events"], tmp_path / "out").newer == 1, "and is read again"


def test_a_record_over_several_lines_is_one(tmp_path):
    (tmp_path / "events").mkdir()
    lines = b'{"kind":' + encode(search("s", us())).removeprefix(b'{"kind":').replace(b",", b",\r\n")
    (tmp_path / "events/a.seg").write_bytes(segments.MAGIC + segments.frame(lines))
    assert compact.compact([tmp_path / "events"], tmp_path / "out").searches == 1
