"""Bad input for validate and augment: one clear line and exit code 2, or quarantine where a row is bad;
nothing half-written.
"""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops.tables import artifacts
from tests.crops.validation import small_log


def crops(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-m", "crops", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=env, cwd=cwd)


def refused(done: subprocess.CompletedProcess[str], out: Path, *expected: object) -> None:
    """Exit code 2, one line that holds all of `expected`, and neither `out` nor anything of it on disk."""
    assert done.returncode == 2, done.stderr[-2000:]
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stdout == ""
    for text in expected:
        assert str(text) in done.stderr
    assert not out.exists()
    assert not list(out.parent.glob(f".{out.name}*"))


@pytest.fixture
def logs(tmp_path):
    return small_log.write(tmp_path / "logs", small_log.rows())


def rewrite(path: Path, change) -> Path:
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)
    return path


def file_of(logs: Path, table: str) -> Path:
    return sorted((logs / table).rglob("*.parquet"))[-1]


BROKEN = {
    "a missing column": ("searches", lambda t: t.drop(["query"]), "column 'query' (string) is missing"),
    "a wrong type": (
        "videos",
        lambda t: t.set_column(0, "video_id", pa.array([0 < 1] * t.num_rows)),
        "'video_id' is bool, expected string",
    ),
    "a naive timestamp": (
        "feed",
        lambda t: t.set_column(t.column_names.index("ts"), "ts", t["ts"].cast(pa.timestamp("us"))),
        "column 'ts' is timestamp[us], expected timestamp[us, tz=UTC]; `crops validate` reads",
    ),
}


# A time without a zone is validate's to read; what comes after it wants the tables as they are defined.
@pytest.mark.parametrize(
    ("verb", "fault"),
    [("validate", "a missing column"), ("validate", "a wrong type"), ("augment", "a naive timestamp")],
)
def test_a_file_of_another_shape_is_refused_before_it_is_read(logs, tmp_path, verb, fault):
    table, change, expected = BROKEN[fault]
    path = rewrite(file_of(logs, table), change)
    refused(crops(verb, "--logs", logs, "--out", tmp_path / "out"), tmp_path / "out", path, expected)


@pytest.mark.parametrize("verb", ["validate", "augment"])
def test_a_truncated_file_is_refused_by_its_name(logs, tmp_path, verb):
    path = file_of(logs, "results")
    path.write_bytes(path.read_bytes()[:-30])
    refused(
        crops(verb, "--logs", logs, "--out", tmp_path / "out"),
        tmp_path / "out",
        path,
        "not a readable Parquet file",
    )


def test_a_damaged_page_is_refused_by_the_name_of_its_file_and_column(logs, tmp_path):
    """The footer is whole, so only reading finds it; the engine alone would say that some file is damaged."""
    path = file_of(logs, "videos")
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    raw = bytearray(path.read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    raw[start : start + 40] = b"\xff" * 40
    path.write_bytes(raw)
    refused(
        crops("validate", "--logs", logs, "--out", tmp_path / "out"),
        tmp_path / "out",
        path,
        "column 'caption' is damaged",
    )


@pytest.mark.parametrize(("column", "wrap"), [("caption", False), ("keywords", True)])
def test_invalid_utf_8_is_refused_with_file_row_and_column(logs, tmp_path, column, wrap):
    def spoil(t: pa.Table) -> pa.Table:
        texts = [b"fine"] * 7 + [b"caf\xe9"] + [b"fine"] * (t.num_rows - 8)
        raw = pa.array(texts, pa.binary())
        bad = pa.StringArray.from_buffers(len(raw), *raw.buffers()[1:])
        if wrap:
            bad = pa.ListArray.from_arrays(pa.array(range(len(raw) + 1), pa.int32()), bad)
        return t.set_column(t.column_names.index(column), column, bad)

    path = rewrite(file_of(logs, "videos"), spoil)
    done = crops("validate", "--logs", logs, "--out", tmp_path / "out")
    refused(done, tmp_path / "out", f"{path}:7: {column} is no valid UTF-8")


@pytest.mark.parametrize("table", ["searches", "results", "videos"])
def test_a_table_without_rows_is_refused(logs, tmp_path, table):
    for path in (logs / table).rglob("*.parquet"):
        rewrite(path, lambda t: t.slice(0, 0))
    if (
        table != "videos"
    ):  # the others come after Great Expectations is loaded: in this process, to load it once
        from crops.config.validate import ValidateConfig
        from crops.errors import InputError
        from crops.stages.logs import validate

        with pytest.raises(
            InputError, match=f"logs/{table}: 0 rows, none of them acceptable, expected at least one"
        ):
            validate.run(logs, tmp_path / "out", ValidateConfig())
        assert not (tmp_path / "out").exists()
        return
    refused(
        crops("validate", "--logs", logs, "--out", tmp_path / "out"),
        tmp_path / "out",
        "logs/videos: 0 rows, none",
    )


def test_a_folder_without_the_tables_is_refused(tmp_path):
    (tmp_path / "logs").mkdir()
    done = crops("validate", "--logs", tmp_path / "logs", "--out", tmp_path / "out")
    refused(done, tmp_path / "out", "no Parquet file of the table")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("not run: a small file system needs root")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"not run: no small file system here ({mounted.stderr.strip()})")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_one_line_and_leaves_no_folder(small_disk, tmp_path):
    chance = random.Random(0)
    log = small_log.rows(videos=3_000)
    log["videos"] = [{**v, "caption": chance.randbytes(500).hex()} for v in log["videos"]]
    done = crops("validate", "--logs", small_log.write(tmp_path / "logs", log), "--out", small_disk / "out")
    refused(done, small_disk / "out", small_disk / "out", "cannot write", "No space left")
    assert [*small_disk.iterdir()] == []


def test_bad_rows_go_to_quarantine_and_the_rest_goes_on(logs, tmp_path):
    """An unknown stage, a video without text, a query of 10 kB, a log without reformulations and feed: exit
    code 0.
    """
    log = small_log.rows()
    log["feed"] = []
    log["searches"] = [{**row, "query": "the same"} for row in log["searches"]]
    log["searches"][0]["query"] = "q" * 10_240
    log["results"][-1] = {**log["results"][-1], "stage": "shown"}
    log["results"][-2] = {**log["results"][-2], "video_id": "nowhere"}
    log["videos"].append(
        {**log["videos"][0], "video_id": "blank", "caption": " ", "keywords": [], "cover_text": "\u3000"}
    )
    accepted = tmp_path / "accepted"
    done = crops("validate", "--logs", small_log.write(tmp_path / "bad", log), "--out", accepted)
    assert done.returncode == 0, done.stderr
    tables = artifacts.read_json(accepted / "validation.json")["tables"]
    assert {n: t["reasons"] for n, t in tables.items()} == {
        "videos": {"no text in any field": 1},
        "searches": {"query is too long": 1},
        "results": {"search is in quarantine": 4, "stage is unknown": 1, "video is not in videos": 1},
    }
    assert all(t["accepted"] + t["quarantined"] == t["read"] for t in tables.values())
    assert "feed: no such table" in done.stdout
    assert "results: video is not in videos: 1 of" in done.stdout
    assert "seen: missing" not in done.stdout
    mined = crops("augment", "--logs", accepted, "--out", tmp_path / "mined")
    assert mined.returncode == 0, mined.stderr
    assert "reformulation: none within" in mined.stdout


def test_a_critical_failure_is_exit_code_1_and_the_docs_say_why(tmp_path):
    log = small_log.rows()
    log["searches"] = [{**row, "arm": "blue"} if n % 2 else row for n, row in enumerate(log["searches"])]
    done = crops("validate", "--logs", small_log.write(tmp_path / "logs", log), "--out", tmp_path / "out")
    assert done.returncode == 1, done.stderr
    found = artifacts.read_json(tmp_path / "out" / "validation.json")
    assert found["success"] is False
    assert found["critical_failures"] == [
        "searches: arm is unknown: 45 of 45 rows (100.0000%), expected at most 5.0000%"
    ]
    assert "seen: blue; allowed: control, treatment" in done.stdout
    assert f"look at: {tmp_path / 'out' / 'data_docs' / 'index.html'}; bad rows" in done.stdout
    assert "Critical: these end the run" in (tmp_path / "out" / "data_docs" / "index.html").read_text()


def test_a_package_that_is_not_installed_is_named_with_the_extras_that_bring_it(logs, tmp_path):
    """What the user of a wheel without extras gets."""
    hide = "import sys; sys.modules[sys.argv.pop(1)] = None; from crops.cli.main import run; run()"

    def without(module, *words):
        command = [sys.executable, "-c", hide, module, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=os.getcwd())

    done = without("ibis", "look", logs)
    refused(done, tmp_path / "none", "ibis-framework", "crops[mine] or crops[experiment]")
    bug = without("crops.report.first_look", "look", logs)
    assert bug.returncode == 1
    assert "Traceback" in bug.stderr, "a module of ours that is missing is a bug"
