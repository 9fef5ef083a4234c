"""Compaction: every event once, in the tables as validate and augment read them, whatever order and replica
it came by.
"""

import datetime as dt
import random

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
from serving.events import compact, log, segments
from serving.events.records import Interaction, Result, Search

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


def test_nothing_to_compact_is_one_line(tmp_path):
    (tmp_path / "events").mkdir()
    done = CliRunner().invoke(verb, ["--events", str(tmp_path / "events"), "--out", str(tmp_path / "out")])
    assert "no search in any segment" in str(done.exception)
