"""The site builds, README's Python runs, its pictures are what docs/pictures.py takes, and the drawing is
of today's pipeline."""

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
from crops.report import names, page
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


pictures, drawing = (_load(ROOT / f"docs/{name}.py") for name in ("pictures", "drawing"))


def _same_kind(made, name):
    """The committed picture has the width of one that is taken now, and both show more than a blank page."""
    committed = Image.open(ROOT / "docs/images" / name)
    taken = Image.open(io.BytesIO(made))
    assert taken.width == committed.width
    for picture in (taken, committed):
        assert len(picture.convert("L").getcolors(1_000)) > 20


@pytest.mark.browser
def test_a_picture_of_a_report_goes_down_to_its_first_chart(chromium, tmp_path):
    toy = _load(ROOT / "tests/crops/report/test_page.py")
    report = tmp_path / "report.html"
    report.write_text(page.render(toy.report(), toy.parts(), title="A report", examples=1, simulated=True))
    _same_kind(pictures.report(chromium, report), pictures.REPORT)


@pytest.mark.browser
def test_a_picture_of_the_dashboards_is_of_one_of_them(chromium, tmp_path):
    """The page as tests/monitoring/look.py lays it out, with panels of one line each."""
    line = '<svg viewBox="0 0 400 130"><path d="M0 0L400 130" stroke="red"/></svg>'
    panel = '<figure style="height:200px"><h3>{}</h3>' + line + "</figure>"
    sections = "".join(
        f"<h2>CroPS: {board}</h2><section>{''.join(map(panel.format, titles))}</section>"
        for board, titles in (("Else", ["a"] * 9), (pictures.BOARD, ["Click-through rate", *"bcdefgh"]))
    )
    (tmp_path / "boards.html").write_text(f"<!doctype html><body>{sections}</body>")
    _same_kind(pictures.dashboards(chromium, tmp_path / "boards.html"), pictures.DASHBOARDS)


def test_a_picture_of_few_colours_keeps_one_for_each_system(monkeypatch):
    """Dots of a few pixels each, beside text in very many greys, as in a report."""
    picture = Image.new("RGB", (400, 400), "white")
    for n in range(3_000):
        grey = n % 250
        picture.putpixel((n % 400, n // 400), (grey, (grey + n // 250) % 256, min(255, grey + 30)))
    for n, colour in enumerate(names.SYSTEM_COLOURS.values()):
        picture.paste(colour, (10 * n, 300, 10 * n + 6, 306))
    monkeypatch.setattr(pictures, "MOST_BYTES", 0)
    few = Image.open(io.BytesIO(pictures._png(picture))).convert("RGB")
    shown = {few.getpixel((10 * n + 3, 303)) for n in range(len(names.SYSTEM_COLOURS))}
    assert len(shown) == len(names.SYSTEM_COLOURS)


def test_every_picture_is_small_taken_by_the_command_and_shown():
    found = {path.name for path in (ROOT / "docs/images").iterdir()}
    assert found
    assert found <= {pictures.REPORT, pictures.CONSOLE, pictures.DASHBOARDS}
    assert all((ROOT / "docs/images" / name).stat().st_size < pictures.MOST_BYTES for name in found)
    shown = re.findall(r"!\[[^\]]+\]\(docs/images/([^)]+)\)", (ROOT / "README.md").read_text())
    assert sorted(shown) == sorted(found)


def test_the_drawing_is_of_the_pipeline_as_it_is():
    text = drawing.PAGE.read_text(encoding="utf-8")
    assert drawing.drawn(text, drawing.spec()) == text, "run `.venv/bin/python docs/drawing.py`"


def test_an_arrow_is_what_one_stage_reads_of_another():
    """A chain of three in a loop: c reads a's by itself, which the way over b says already."""

    def task(component, **reads):
        made = {
            key: {"taskOutputArtifact": {"producerTask": by, "outputArtifactKey": "out"}}
            for key, by in reads.items()
        }
        return {"componentRef": {"name": component}, "inputs": {"artifacts": made}}

    tasks = {"a": task("one"), "b-2": task("one", x="a"), "c": task("one", x="a", y="b-2")}
    loop = {"dag": {"tasks": tasks}}
    spec = {"root": {"dag": {"tasks": {"loop": task("loop")}}}, "components": {"one": {}, "loop": loop}}
    assert drawing.mermaid(spec).splitlines() == [
        "```mermaid",
        "flowchart TD",
        "  a --> b",
        "  b --> c",
        "```",
    ]


def test_the_page_on_how_much_log_has_the_numbers_of_the_formula():
    text = (ROOT / "docs/how-much-log.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d,]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert len(rows) == 8
    for queries, points in rows:
        smallest = power.smallest_difference(int(queries.replace(",", "")))
        assert round(100 * smallest, 1) == float(points)
    assert f"({power.needed_queries(0.03)} independent queries)" in text
    assert power.SPREAD == 0.3
