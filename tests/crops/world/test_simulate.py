"""What every written world promises about its tables, whatever the seed: bytes, schema, keys, references,
order.
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from crops.errors import InputError
from crops.tables import records
from crops.world import simulate
from crops.world.settings import FIRST_DAY, SCALES, Settings


def _bytes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def _in_a_process(out: Path, seed: int, hash_seed: str) -> dict[str, str]:
    """Through the command line in a process of its own, with another seed of Python's built-in hash."""
    command = [
        sys.executable,
        "-m",
        "crops",
        "world",
        "--out",
        str(out),
        "--seed",
        str(seed),
        "--scale",
        "tiny",
    ]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return _bytes(out)


def test_same_seed_same_bytes_in_two_processes_and_another_seed_other_bytes(tmp_path):
    first, second = _in_a_process(tmp_path / "a", 3, "1"), _in_a_process(tmp_path / "b", 3, "2")
    other = _in_a_process(tmp_path / "c", 4, "1")
    assert len(first) == 3 * SCALES["tiny"].days + 4, (
        "three tables by day; videos, relevance, world.json, the mark"
    )
    assert first == second
    assert set(other) == set(first)
    assert not [name for name in first if first[name] == other[name]]


class TestEveryLog:
    @pytest.fixture(autouse=True, params=["paths_log", "lexical_log"])
    def _log(self, request):
        self.log = request.getfixturevalue(request.param)

    @pytest.mark.parametrize("table", [*records.LOGS, records.RELEVANCE], ids=lambda t: t.name)
    def test_schema_keys_and_nulls(self, table):
        rows = self.log.table(table)
        assert rows.num_rows > 0
        for file in (self.log.folder / ("truth" if table is records.RELEVANCE else "") / table.name).rglob(
            "*.parquet"
        ):
            assert pq.read_schema(file).equals(table.schema)
        for field in table.schema:
            if not field.nullable:
                assert rows[field.name].null_count == 0, field.name
        assert rows.group_by([*table.key]).aggregate([]).num_rows == rows.num_rows

    def test_every_reference_resolves(self):
        videos = self.log.table(records.VIDEOS)["video_id"]
        searches, results = self.log.table(records.SEARCHES), self.log.table(records.RESULTS)
        assert pc.all(pc.is_in(results["search_id"], searches["search_id"])).as_py()
        for table in (records.RESULTS, records.FEED, records.RELEVANCE):
            assert pc.all(pc.is_in(self.log.table(table)["video_id"], videos)).as_py()
        queries = self.log.table(records.RELEVANCE)["query"]
        assert pc.all(pc.is_in(queries, searches["query"])).as_py()

    def test_stages_positions_and_clicks(self):
        """Each search has 10 exposed at 0..9, 6 ranked and 4 filtered; only what is exposed can be clicked,
        only what is clicked is played, only what is clicked is liked.
        """
        rows, settings = self.log.frame(records.RESULTS), Settings()
        exposed = rows["stage"] == "exposed"
        assert (rows["position"].notna() == exposed).all()
        for _, group in rows[exposed].groupby("search_id"):
            assert sorted(group["position"]) == list(range(settings.exposed))
        sizes = rows.groupby(["search_id", "stage"]).size().unstack()
        assert (sizes["exposed"] == settings.exposed).all()
        assert (sizes["ranked"] == settings.ranked).all()
        assert (sizes["filtered"] == settings.filtered).all()
        assert not (rows["clicked"] & ~exposed).any()
        assert not (rows["liked"] & ~rows["clicked"]).any()
        assert (rows["play_s"].notna() == rows["clicked"]).all()
        assert (rows["play_s"].dropna() >= 0).all()

    def test_play_is_at_most_the_video(self):
        long = self.log.frame(records.VIDEOS).set_index("video_id")["duration_s"]
        for table in (records.RESULTS, records.FEED):
            rows = self.log.frame(table).dropna(subset=["play_s"])
            assert (rows["play_s"] <= long[rows["video_id"]].to_numpy() + 0.051).all()

    @pytest.mark.parametrize("table", [records.SEARCHES, records.FEED], ids=lambda t: t.name)
    def test_times_lie_in_their_partition_in_order(self, table):
        folders = sorted((self.log.folder / table.name).iterdir())
        assert len(folders) == SCALES["tiny"].days
        for number, folder in enumerate(folders):
            day = np.datetime64(FIRST_DAY) + number
            assert folder.name == f"date={day}"
            ts = pq.read_table(folder / "part-0.parquet", partitioning=None)["ts"].to_numpy()
            assert (ts.astype("datetime64[D]") == day).all()
            assert (np.diff(ts.astype(np.int64)) >= 0).all()

    def test_results_lie_under_their_searchs_date(self):
        for folder in (self.log.folder / "searches").iterdir():
            here = pq.read_table(folder / "part-0.parquet", partitioning=None)["search_id"]
            there = pq.read_table(
                self.log.folder / "results" / folder.name / "part-0.parquet", partitioning=None
            )["search_id"]
            assert set(here.to_pylist()) == set(there.to_pylist())

    def test_grades_are_0_to_3_and_only_for_queries_of_the_log(self):
        grades = self.log.frame(records.RELEVANCE)
        assert set(grades["grade"]) == {1, 2, 3}
        relevant = grades[grades["grade"] >= records.RELEVANT_GRADE].groupby("query").size()
        assert set(relevant.index) == set(grades["query"]), "a graded query has at least one relevant video"


def test_world_json_says_how_it_was_made_and_load_rebuilds_the_same(paths_log):
    about = json.loads((paths_log.folder / "world.json").read_text())
    assert (about["scale"], about["seed"], about["incumbent"], about["videos_per_intent"]) == (
        "tiny",
        7,
        "paths",
        None,
    )
    assert about["numbers"] == paths_log.numbers
    world = simulate.load(paths_log.folder / "world.json")
    videos = pa.table(world.videos.columns(), schema=records.VIDEOS.schema)
    assert videos.equals(paths_log.table(records.VIDEOS).cast(records.VIDEOS.schema))


def test_a_foreign_world_json_is_one_line(tmp_path, paths_log):
    path = tmp_path / "world.json"
    with pytest.raises(InputError, match=r"not the world\.json"):
        simulate.load(path)
    about = json.loads((paths_log.folder / "world.json").read_text())
    about["settings"]["like_share"] = 0.9
    path.write_text(json.dumps(about))
    with pytest.raises(InputError, match="other settings"):
        simulate.load(path)


def test_the_number_of_searches_is_what_the_scale_says(small_log):
    wanted = SCALES["small"].searches
    assert abs(small_log.numbers["searches"] - wanted) < 0.05 * wanted
    assert small_log.table(records.SEARCHES).num_rows == small_log.numbers["searches"]
