"""Columns on disk: what NumPy and Arrow themselves read of them, pieces of any size, one maker."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from crops.retriever import columns


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.text(max_size=5), max_size=6), max_size=5))
def test_texts_are_those_that_arrow_reads_from_the_files(tmp_path_factory, pieces):
    folder = tmp_path_factory.mktemp("columns")
    # A slice of an array begins somewhere inside of its buffers.
    columns.write_texts(folder, "t", (pa.array(["before", *piece])[1:] for piece in pieces))
    whole, texts = [text for piece in pieces for text in piece], columns.texts(folder, "t")
    values, starts = np.load(folder / "t.npy"), np.load(folder / "t.starts.npy")
    buffers = [None, pa.py_buffer(starts.tobytes()), pa.py_buffer(values.tobytes())]
    assert pa.Array.from_buffers(pa.large_string(), len(whole), buffers).to_pylist() == whole
    assert [*texts] == whole
    assert len(texts) == len(whole)
    assert texts[1:4] == whole[1:4]
    assert not whole or texts[-1] == whole[-1]


def test_a_column_is_a_file_of_numpys_whatever_its_length(tmp_path):
    for length in (0, 1, 10, 100_000):
        with columns.Column(tmp_path / "n.npy", "i4") as column:
            for piece in np.array_split(np.arange(length), 7):
                column.add(piece)
        np.testing.assert_array_equal(np.load(tmp_path / "n.npy"), np.arange(length))
        assert columns.mapped(tmp_path, "n").dtype == np.int32


def test_a_folder_is_made_by_one_process_and_the_others_wait(tmp_path):
    """Three processes at once: one writes, all see it whole."""
    code = f"""
import pathlib, time
from crops.retriever import columns
def write(new):
    with open({str(tmp_path / "makers")!r}, "a") as file:
        file.write("x")
    time.sleep(0.5)
    (new / "whole").write_text("yes")
folder = columns.made(pathlib.Path({str(tmp_path / "made")!r}), write)
assert (folder / "whole").read_text() == "yes"
"""
    command, env = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": "."}
    started = [subprocess.Popen(command, env=env) for _ in range(3)]
    assert [one.wait() for one in started] == [0, 0, 0]
    assert (tmp_path / "makers").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "makers"]
