"""The whole of `augment` against the brute-force miner, on every engine; what is missing is reported, never
an error.
"""

import json
import random
import shutil
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crops.config.augment import AugmentConfig
from crops.engines import duckdb
from crops.errors import InputError
from crops.stages.logs import augment
from crops.tables import artifacts, records
from tests.crops.mining import brute_force, engines
from tests.crops.mining.small_logs import CAPPED, at, mined, random_log, result, search, video, view, write


@pytest.fixture(params=engines.ENGINES)
def engine(request):
    if request.param == "spark":
        engines.need_spark()
    return request.param


def run(folder, log, cfg=CAPPED, engine="duckdb"):
    shutil.rmtree(folder, ignore_errors=True)
    cfg = cfg.model_copy(update={"engine": engine})
    report = augment.run(write(folder / "logs", **log), folder / "out", cfg)
    return mined(folder / "out"), report


def test_agrees_with_brute_force(engine, tmp_path):
    """One larger random log, every table row for row in the files' order: so the engines' tables are equal as
    well.
    """
    log = random_log(5, searches=80)
    expected = brute_force.Log(**log, cfg=CAPPED).tables()
    assert {row[2] for row in expected["candidates"]} == {
        "click",
        "reformulation",
        "feed",
        "exposed",
        "ranked",
        "filtered",
    }
    assert all(expected.values()), "the log must fill every table"
    assert run(tmp_path / "a", log, engine=engine)[0] == expected


def test_evidence_is_what_the_training_days_hold(engine, tmp_path):
    """Shows and clicks of every pair, and when anything of it last happened, feed and reformulation among
    it.
    """
    log = random_log(5, searches=80)
    cfg = CAPPED.model_copy(update={"evidence": True, "learnt_windows": True})
    run(tmp_path / "a", log, cfg=cfg, engine=engine)
    oracle = brute_force.Log(**log, cfg=CAPPED)
    counts, last = Counter(), {}
    for row in oracle.results:
        one = oracle.by_id[row["search_id"]]
        pair, chosen = (one["query"], row["video_id"]), row["clicked"] or row["liked"]
        shown = row["stage"] == "exposed" or chosen
        if shown and one["ts"].strftime("%Y-%m-%d") in oracle.train and row["video_id"] in oracle.documents:
            counts[pair, "shown"] += 1
            counts[pair, "clicked"] += chosen
            last[pair] = max(one["ts"], last.get(pair, one["ts"]))
    rows = artifacts.read(tmp_path / "a" / "out", records.EVIDENCE).to_pylist()
    assert sum(row["shown"] for row in rows) == sum(n for (_, name), n in counts.items() if name == "shown")
    assert any(not row["shown"] for row in rows), "what was mined elsewhere has its time too"
    for row in rows:
        pair = row["query"], row["video_id"]
        assert (row["shown"], row["clicked"]) == (counts[pair, "shown"], counts[pair, "clicked"])
        assert 0 <= row["examined"] <= row["shown"]
        assert pair not in last or row["last_ts"] >= last[pair]
    summary = json.loads((tmp_path / "a" / "out" / "augment.json").read_text())
    assert summary["windows_s"] == dict.fromkeys(("head", "torso", "tail"), cfg.window_s), "too few gaps"


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), searches=st.integers(8, 60))
def test_agrees_with_brute_force_on_any_log(tmp_path, seed, searches):
    log = random_log(seed, searches=searches)
    oracle = brute_force.Log(**log, cfg=CAPPED)
    if len(oracle.days) <= CAPPED.test_days:
        return
    assert run(tmp_path / "a", log)[0] == oracle.tables()


def test_parts_change_nothing(tmp_path, monkeypatch):
    """Cut by users and by ranges of queries, a log gives the same rows in the same order, and the same
    report.
    """
    log = random_log(5, searches=80)
    whole, _ = run(tmp_path / "a", log)
    monkeypatch.setattr(duckdb, "PART_ROWS", 40)
    parts, _ = run(tmp_path / "b", log)
    files = [p.name for p in sorted((tmp_path / "b/out/candidates").iterdir())]
    assert len(files) > 3
    assert files[:2] == ["part-00000.parquet", "part-00001.parquet"]
    assert len(list((tmp_path / "a/out/candidates").iterdir())) == 1
    assert parts == whole
    assert (tmp_path / "a/out/augment.json").read_text() == (tmp_path / "b/out/augment.json").read_text()


def test_order_of_the_rows_changes_nothing_and_bytes_are_the_same_twice(tmp_path):
    log = random_log(11, searches=60)
    shuffled = {name: random.Random(1).sample(rows, len(rows)) for name, rows in log.items()}
    for name, rows in (("a", log), ("b", shuffled), ("c", log)):
        run(tmp_path / name, rows, AugmentConfig(threads=2))
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a/out").rglob("*") if p.is_file())
    assert len(files) == 8  # six tables, augment.json and the mark of what crops wrote
    for other in ("b", "c"):
        assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / other / f).read_bytes() for f in files)


def test_nothing_of_a_held_out_day_leaks_into_candidates(tmp_path):
    """Day 2 is held out; on day 1 at 23:59:50 u searches bread, at 00:00:10 rolls and clicks v1, and watches
    v2 there.

    v1 and v2 are seen for bread only on the held-out day: no candidate. The pair is no validation pair
    either.
    """
    log = {
        "searches": [
            search("x", "u", at(10), "soup"),
            search("a", "u", at(86_390), "bread"),
            search("b", "u", at(10, day=1), "rolls"),
        ],
        "results": [result("x", "v3", clicked=True), result("b", "v1", clicked=True)],
        "feed": [view("u", "v2", at(5, day=1)), view("u", "v3", at(86_380))],
        "videos": [video(f"v{i}") for i in (1, 2, 3)],
    }
    tables, _ = run(tmp_path / "a", log)
    assert [row[:3] for row in tables["candidates"]] == [("bread", "v3", "feed"), ("soup", "v3", "click")]
    assert tables["test_ct"] == [("rolls", "v1")]
    assert tables["test_qr"] == []
    assert tables["valid_qr"] == []


def test_a_missing_perspective_is_reported(tmp_path):
    """No feed, no reformulation, no click, a video without text, a result without a video: notes, no
    error.
    """
    log = {
        "searches": [search("a", "u", at(10), "bread"), search("b", "u", at(10, day=1), "rolls")],
        "results": [result("a", "v1"), result("a", "v2"), result("a", "v9")],
        "feed": None,
        "videos": [video("v1"), video("v2", "")],
    }
    tables, report = run(tmp_path / "a", log, AugmentConfig())
    assert [row[:3] for row in tables["candidates"]] == [("bread", "v1", "exposed")]
    said = " | ".join(report.notes)
    for words in (
        "feed: no such table",
        "reformulation: none within 90 s",
        "click: nobody clicked",
        "test_qr is empty",
        "1 video(s) without any text",
        "2 of videos without a document",
    ):
        assert words in said
    summary = json.loads((tmp_path / "a/out/augment.json").read_text())
    assert summary["perspectives"]["feed"]["candidates"] == 0
    assert summary["notes"] == list(report.notes)


def test_a_log_of_one_day_is_refused(tmp_path):
    log = {
        "searches": [search("a", "u", at(10), "bread")],
        "results": [result("a", "v1")],
        "feed": None,
        "videos": [video("v1")],
    }
    with pytest.raises(
        InputError, match=r"1 day\(s\) with searches \(2026-03-01\), expected more than test_days = 1"
    ):
        run(tmp_path / "a", log)
