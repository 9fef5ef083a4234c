"""Folders appear whole or not at all; a table that is not what it should be is refused by name."""

import errno
import os
import signal
import subprocess
import sys
import time

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crops.errors import InputError, StorageError
from crops.tables import artifacts, folders, records
from crops.validation import source

ROWS = pa.table({"doc_id": ["a", "b"], "text": ["x", "y"]})


def test_written_rows_come_back(tmp_path):
    with artifacts.replacing(tmp_path / "out") as folder:
        assert artifacts.write(folder, records.DOCUMENTS, ROWS) == 2
    assert artifacts.read(tmp_path / "out", records.DOCUMENTS).to_pydict() == ROWS.to_pydict()


def test_a_failure_keeps_the_old_folder_and_leaves_nothing_behind(tmp_path):
    out = tmp_path / "out"
    with artifacts.replacing(out) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), artifacts.replacing(out) as folder:
        (folder / "a").write_text("new")
        raise ZeroDivisionError
    assert (out / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_one_clear_error(tmp_path):
    with pytest.raises(StorageError, match="No space left"), artifacts.replacing(tmp_path / "out"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_a_kill_in_the_middle_leaves_no_folder_and_the_next_run_sweeps(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from crops.tables import artifacts\n"
        "with artifacts.replacing(Path(sys.argv[1])) as f:\n"
        "    (f / 'half').write_text('x'); print('in', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "in\n"
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "out").exists()
    with artifacts.replacing(tmp_path / "out") as folder:
        (folder / "whole").write_text("y")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"whole", folders.MARK}


def test_a_kill_between_the_two_renames_is_mended(tmp_path):
    """The old folder has gone aside and the new one has not come: the next run puts the old one back before
    it starts.
    """
    with artifacts.replacing(tmp_path / "out") as folder:
        (folder / "a").write_text("old")
    (tmp_path / "out").rename(tmp_path / ".out.old-1")
    with pytest.raises(ZeroDivisionError), artifacts.replacing(tmp_path / "out"):
        raise ZeroDivisionError
    assert (tmp_path / "out" / "a").read_text() == "old"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"doc_id": ["a"]}, "column 'text' (string) is missing"),
        ({"doc_id": [1], "text": ["x"]}, "column 'doc_id' is int64, expected string"),
    ],
)
def test_a_wrong_table_names_file_and_column(tmp_path, columns, expected):
    (tmp_path / "documents").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "documents" / "p.parquet")
    with pytest.raises(InputError) as error:
        artifacts.read(tmp_path, records.DOCUMENTS)
    assert expected in str(error.value)
    assert "p.parquet" in str(error.value)


def test_a_column_that_stands_twice_is_named(tmp_path):
    """As a join writes it; the one that the table means cannot be told."""
    (tmp_path / "documents").mkdir()
    rows = pa.table([["a"], ["x"], ["y"]], names=["doc_id", "text", "text"])
    pq.write_table(rows, tmp_path / "documents" / "p.parquet")
    faults = source.of(tmp_path, records.DOCUMENTS)[1]
    assert [str(fault).rpartition(": ")[2] for fault in faults] == ["column 'text' stands twice"]
    with pytest.raises(InputError, match=r"p.parquet: column 'text' stands twice"):
        artifacts.table_files(tmp_path, records.DOCUMENTS)


def test_a_naive_timestamp_is_refused(tmp_path):
    (tmp_path / "feed").mkdir()
    feed = pa.table(
        {f.name: pa.nulls(1, pa.timestamp("us") if f.name == "ts" else f.type) for f in records.FEED.schema}
    )
    pq.write_table(feed, tmp_path / "feed" / "p.parquet")
    with pytest.raises(InputError, match=r"column 'ts' is timestamp\[us\], expected timestamp\[us, tz=UTC\]"):
        artifacts.table_files(tmp_path, records.FEED)


def test_a_truncated_file_is_refused(tmp_path):
    with artifacts.replacing(tmp_path / "out") as folder:
        artifacts.write(folder, records.DOCUMENTS, ROWS)
    path = next((tmp_path / "out").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="not a readable Parquet file"):
        artifacts.read(tmp_path / "out", records.DOCUMENTS)


def test_optional_columns_read_as_null(tmp_path):
    (tmp_path / "searches").mkdir()
    ts = pa.array([int(time.time())], pa.timestamp("us", tz="UTC"))
    rows = pa.table({"search_id": ["s"], "user_id": ["u"], "ts": ts, "query": ["q"]})
    pq.write_table(rows, tmp_path / "searches" / "p.parquet")
    assert artifacts.read(tmp_path, records.SEARCHES).column("arm").to_pylist() == [None]


def test_same_rows_same_bytes(tmp_path):
    for name in ("a", "b"):
        with artifacts.replacing(tmp_path / name) as folder:
            artifacts.write(folder, records.DOCUMENTS, ROWS)
    first, second = (next((tmp_path / n).rglob("*.parquet")).read_bytes() for n in ("a", "b"))
    assert first == second


def test_a_key_that_a_json_file_lacks_is_a_fault_of_the_file_at_any_depth(tmp_path):
    path = tmp_path / "label.json"
    path.write_text('{"hierarchy": {"labels": [{"label": 5}]}}')
    facts = artifacts.read_json(path)
    assert facts == {"hierarchy": {"labels": [{"label": 5}]}}
    assert facts.get("ladder") is None
    with pytest.raises(InputError, match=r"label\.json: has no 'ladder'; keys there: 'hierarchy'"):
        facts["ladder"]
    with pytest.raises(InputError, match="has no 'theta'"):
        facts["hierarchy"]["labels"][0]["theta"]
    assert jinja2.Template("{{ facts.ladder or 'none' }}").render(facts=facts) == "none"
    path.write_text("{}")
    with pytest.raises(InputError, match="keys there: none"):
        artifacts.read_json(path)["hierarchy"]


def test_rows_with_wanted_values_come_alone_whatever_the_table_weighs(tmp_path, monkeypatch):
    """In batches of two rows: those of a query, in their order, with the columns asked for; the table itself
    would not fit.
    """
    rows = [
        {"query": f"q{n % 3}", "video_id": f"v{n}", "later_query": "" if n % 2 else "z"} for n in range(9)
    ]
    artifacts.write(tmp_path, records.VALID_QR, pa.Table.from_pylist(rows, schema=records.VALID_QR.schema))
    monkeypatch.setattr(artifacts, "ROW_GROUP", 2)
    monkeypatch.setattr(artifacts.memory, "limit", lambda: 1)
    with pytest.raises(InputError, match="may hold"):
        artifacts.read(tmp_path, records.VALID_QR)
    kept = artifacts.read(tmp_path, records.VALID_QR, ["video_id"], query=["q1"], later_query=["z"])
    assert kept.to_pydict() == {"video_id": ["v4"]}
    none = artifacts.read(tmp_path, records.VALID_QR, query=[])
    assert (none.num_rows, none.column_names) == (0, ["query", "video_id", "later_query"])
