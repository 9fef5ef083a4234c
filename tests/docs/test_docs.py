"""The site builds, README's Python runs, and its picture is what docs/picture.py makes."""

import io
import os
import re
import subprocess
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crops.evaluation import power
from crops.report import page
from crops.world import simulate

ROOT = Path(__file__).resolve().parents[2]
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)


def _load(path):
    spec = util.spec_from_file_location(path.stem, path)
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def test_every_page_of_docs_is_on_the_site(site):
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    built = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")}
    assert len(pages) > 10
    assert pages <= built
    assert {Path("index"), Path("contributing"), Path("examples/own_log")} <= built


def test_the_site_shows_docstrings_settings_formulas_and_the_picture(site):
    assert (
        "Mines candidates, documents and test sets from logs" in (site / "reference/python.html").read_text()
    )
    assert "window_s" in (site / "reference/settings.html").read_text()
    assert "<math" in (site / "method.html").read_text()
    assert 'src="images/report.png"' in (site / "index.html").read_text()
    assert (site / "images/report.png").exists()


def test_the_site_loads_nothing_from_elsewhere(site):
    """Mermaid's diagram on the page of the architecture is the one thing that the theme fetches."""
    text = (site / "index.html").read_text()
    assert not re.search(r'<(?:script|link)[^>]+(?:src|href)="https?://(?!.*rel="canonical")', text)


def test_every_block_of_python_in_the_readme_runs(tmp_path, monkeypatch):
    simulate.write(tmp_path / "logs", scale="tiny", seed=0)
    monkeypatch.chdir(tmp_path)
    blocks = PYTHON.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert blocks
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "encoder" / "encoder.json").exists()


def test_the_loss_of_the_recipe_is_h_infonce_where_only_positives_and_lower_samples_meet():
    """Of labels 4 and 0 alone, no stage is there to be merged; a 3 and a 1 no longer rival each other."""
    import torch

    import crops

    block = next(b for b in PYTHON.findall((ROOT / "CONTRIBUTING.md").read_text()) if "loss_of" in b)
    names = {}
    exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    scores = torch.tensor([[2.0, 1.0, 0.5]])
    plain = torch.tensor([[4, 0, 0]])
    assert names["loss"](scores, plain, anchor_min=1) == crops.h_infonce(scores, plain)
    stages = torch.tensor([[3, 1, 0]])
    expected = np.mean([np.log1p(np.exp(0.5 - 2.0)), np.log1p(np.exp(0.5 - 1.0))])
    assert float(names["loss"](scores, stages, anchor_min=1)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.browser
def test_the_picture_is_the_top_of_a_report(chromium, tmp_path):
    toy = _load(ROOT / "tests/crops/report/test_page.py")
    report = tmp_path / "report.html"
    report.write_text(page.render(toy.report(), toy.parts(), title="A report", examples=1, simulated=True))
    made = Image.open(io.BytesIO(_load(ROOT / "docs/picture.py").take(chromium, report)))
    committed = Image.open(ROOT / "docs/images/report.png")
    assert made.width == committed.width
    assert len(set(made.convert("L").getdata())) > 20
    assert (ROOT / "docs/images/report.png").stat().st_size < 200_000


def test_the_page_on_how_much_log_has_the_numbers_of_the_formula():
    text = (ROOT / "docs/how-much-log.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d,]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert len(rows) == 8
    for queries, points in rows:
        smallest = power.smallest_difference(int(queries.replace(",", "")))
        assert round(100 * smallest, 1) == float(points)
    assert f"({power.needed_queries(0.03)} independent queries)" in text
    assert power.SPREAD == 0.3
