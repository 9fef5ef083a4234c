"""The notebooks run from top to bottom and say what they said when they were committed."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
NUMBER = re.compile(r"-?\d+\.\d+|-?\d+")
# What is trained differs a little from processor to processor: shares, and counts of the pairs that θ keeps.
SHARE, PART = 0.12, 0.25


def _outputs(notebook):
    """Cell by cell the texts that were printed or shown; pictures and progress bars are left out."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        yield [
            output.get("text") or output.get("data", {}).get("text/plain", "")
            for output in cell.outputs
            if output.get("name") != "stderr"
        ]


def _compare(now, before):
    # Widths of columns follow the numbers in them.
    words = [" ".join(NUMBER.sub("#", text).split()).replace("-", "") for text in (now, before)]
    assert words[0] == words[1]
    for found, expected in zip(NUMBER.findall(now), NUMBER.findall(before), strict=True):
        exact = "." not in expected
        near = (
            pytest.approx(float(expected), rel=PART, abs=2)
            if exact
            else pytest.approx(float(expected), abs=SHARE)
        )
        if float(found) != near:
            pytest.fail(f"{found} for {expected} in:\n{now}\nbefore:\n{before}")


def test_there_are_notebooks():
    assert [path.stem for path in NOTEBOOKS] == ["own_log", "perspectives"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_says_what_it_said(path, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    committed, notebook = (nbformat.read(path, as_version=4) for _ in range(2))
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    for now, before in zip(_outputs(notebook), _outputs(committed), strict=True):
        assert len(now) == len(before)
        for one, other in zip(now, before, strict=True):
            if "Figure" not in other:
                _compare(one, other)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_is_whole_and_small_and_names_no_machine(path):
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert path.stat().st_size < 100_000
    assert not re.search(r'"stderr"|/tmp/|/home/|/root/|/work/', text)
