"""Every page in a real Chromium, in light and dark: no error, nothing that scrolls sideways at 400 % or on a
phone, contrast of AA, all of it by keyboard. Screenshots lie in the test's own folder.
"""

from pathlib import Path

import pytest

from crops.config.experiment import ExperimentConfig
from crops.config.validate import ValidateConfig
from crops.stages import show
from crops.stages.learn import judge
from crops.stages.logs import validate
from crops.stages.trial import experiment
from tests import looked_at
from tests.crops.experiment import logs
from tests.crops.report import test_ablation, test_page
from tests.crops.validation import small_log
from tests.serving.gateway.test_console import address, run_address  # noqa: F401

pytestmark = pytest.mark.browser


def _report(folder: Path) -> Path:
    (folder / "report.html").write_text(test_page.render(), encoding="utf-8")
    return folder / "report.html"


def _ablation(folder: Path) -> Path:
    (folder / "ablation.html").write_text(test_ablation.render(), encoding="utf-8")
    return folder / "ablation.html"


def _docs(name):
    def make(folder: Path) -> Path:
        logs = small_log.write(folder / "logs", small_log.faulty())
        validate.run(logs, folder / "out", ValidateConfig())
        if name == "kfp":
            show.docs(str(folder / "out"), str(folder / "kfp.html"))
            return folder / "kfp.html"
        return folder / "out/data_docs" / f"{name}.html"

    return make


def _judge(folder: Path) -> Path:
    text = "a very-long-word-without-any-place-to-break-it-at-all-in-a-narrow-window | bread"
    pairs = [{"pair_id": f"p{n}", "query": "sour dough", "text": text, "grade": ""} for n in range(3)]
    (folder / "judge.html").write_text(judge._page(pairs), encoding="utf-8")
    return folder / "judge.html"


def _readout(folder: Path) -> Path:
    events = logs.write(folder / "events", *logs.experiment(users=200, days=3, lift=0.6))
    experiment.run(events, folder / "out", ExperimentConfig(threads=1, planned_users=400))
    return folder / "out/readout.html"


FILES = {
    "readout": _readout,
    "report": _report,
    "ablation": _ablation,
    "data docs": _docs("index"),
    "data docs, searches": _docs("searches"),
    "data docs, results": _docs("results"),
    "data docs in KFP": _docs("kfp"),
    "judge": _judge,
}


def opened(page):
    """Every query of a report that has results to show."""
    for button in page.locator("button.query").all():
        button.click()


@pytest.mark.parametrize("name", FILES)
def test_a_page_of_a_run_is_for_everybody(name, tmp_path, chromium):
    assert looked_at.faults(chromium, FILES[name](tmp_path).as_uri(), tmp_path, opened) == []


def test_a_planted_fault_is_found_by_axe(tmp_path, chromium):
    """A list item outside of a list, which our own checks do not know."""
    page = '<!doctype html><html lang="en"><title>a</title><main><h1>a</h1><li>b</li></main></html>'
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    found = looked_at.faults(chromium, (tmp_path / "page.html").as_uri(), tmp_path)
    assert found
    assert all("axe listitem" in fault for fault in found)


def searched(page):
    """Both arms with their results, and a list compared."""
    page.wait_for_selector("#arms li")
    page.wait_for_selector("#examples button")
    page.click("#many summary")
    page.fill("#queries", "subject1\nsubject2")
    page.click("#list button")
    page.wait_for_selector("#diff tr:nth-child(3)")


SERVED = {
    "console, empty": ("/", lambda page: page.wait_for_selector("#examples button")),
    "console": ("/?q=subject1", searched),
    "experiment": ("/experiment", lambda page: page.wait_for_selector("#lifts table")),
}


@pytest.mark.triton
@pytest.mark.parametrize("name", SERVED)
def test_a_page_of_the_gateway_is_for_everybody(name, tmp_path, address, chromium):  # noqa: F811
    path, prepare = SERVED[name]
    assert looked_at.faults(chromium, f"{address}{path}", tmp_path, prepare) == []


@pytest.mark.triton
def test_four_columns_are_for_everybody(tmp_path, run_address, chromium):  # noqa: F811
    assert looked_at.faults(chromium, f"{run_address}/?q=subject1", tmp_path, searched) == []
