"""The pages of the console in a real Chromium, before a live gateway: search side by side; the experiment,
and its abort.
"""

import base64
import hashlib
import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import uvicorn

from crops.config.deploy import DeployConfig
from crops.config.rollout import RolloutConfig
from crops.experiment import features
from crops.experiment.rollout import ABORT, AUDIT, LOOK, STATE, Measurements
from crops.release import manifest
from crops.release.manifest import Manifest
from crops.report import page as report_page
from crops.services.registry import Registry
from crops.stages.trial import rollout
from serving.gateway import app as http
from serving.gateway.server import event_log, service
from serving.triton import launch
from tests.serving.gateway.test_gateway import settings_for

pytestmark = [pytest.mark.triton, pytest.mark.browser]
METRIC = {
    "control": 0.31,
    "treatment": 0.33,
    "lift": 0.06,
    "low": 0.01,
    "high": 0.11,
    "verdict": "better",
    "paper_lift": 0.00869,
    "higher_is_better": True,
    "means": "clicks / impressions",
}


def experiment(folder, releases):
    """What the rollout controller and `crops experiment` leave, with a name that a page must not take for
    markup.
    """
    (folder / "rollout").mkdir()
    control, treatment = (release.uri for release in releases)
    state = {
        "experiment": "<b>autumn</b>",
        "control": control,
        "treatment": treatment,
        "phase": "canary",
        "step": 1,
        "started_s": 1.7e9,
        "entered_s": 1.7e9,
        "blind_since_s": None,
    }
    line = {
        "at": "2026-01-01T00:00:00+00:00",
        "verdict": "advance",
        "reason": "guardrails hold",
        "phase": "canary",
        "step": 1,
    }
    facts = {"salt": "s", "control_version": "1", "treatment_version": "2"}
    (folder / "rollout" / STATE).write_text(json.dumps({**state, "facts": facts, "last": line}))
    (folder / "rollout" / AUDIT).write_text(json.dumps(line) + "\n" + '{"torn')
    (folder / "rollout" / LOOK).write_text(
        json.dumps({"at": line["at"], "verdict": "wait", "reason": "300 of 500 users seen"})
    )
    one = features.Experiment.parse(
        {
            "name": "autumn",
            "salt": "s",
            "coverage": 0.05,
            "control": control,
            "treatment": treatment,
            "start": datetime(2026, 1, 1, tzinfo=UTC),
        }
    )
    (folder / "features.json").write_text(json.dumps(features.render([one])))
    (folder / "readout").mkdir()
    readout = {
        "verdict": "better",
        "primary": "ctr",
        "reasons": ["CTR: better."],
        "users": {"control": 300, "treatment": 290},
        "metrics": {
            "ctr": METRIC,
            "lpr": {**METRIC, "lift": None, "low": None, "high": None, "verdict": "unknown"},
            "rqr": {**METRIC, "lift": -0.02, "low": -0.05, "high": 0.01, "verdict": "no difference"},
        },
    }
    (folder / "readout/readout.json").write_text(json.dumps(readout))
    (folder / "readout/readout.html").write_text("<h1>The readout</h1>")


@pytest.fixture
def address(tmp_path, triton, releases):
    yield from _address(tmp_path, triton, releases)


@pytest.fixture
def run_address(tmp_path, triton, releases):
    """As of a gateway that was started with a run's folder."""
    beside = dict(zip(("base", "clicks"), (release.files for release in releases), strict=True))
    yield from _address(tmp_path, triton, releases, alternatives=beside)


def _address(tmp_path, triton, releases, **more):
    arms = {"control": releases[0], "treatment": releases[1]}
    manifest.write(str(tmp_path / "manifest.json"), Manifest(generation=1, arms=arms))
    experiment(tmp_path, releases)
    places = {name: str(tmp_path / name) for name in ("rollout", "readout")}
    places["report"] = str(tmp_path / "report.html")
    settings = settings_for(tmp_path, triton, features=str(tmp_path / "features.json"), **places, **more)
    (port,) = launch.free_ports(1)
    app = http.create(settings, lambda: service(settings, event_log(settings)), token="token")
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    url, end = f"http://127.0.0.1:{port}", time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                break
        except httpx.HTTPError:
            time.sleep(0.1)
    yield url
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def page(chromium):
    """A tab that fails the test on any error of the page's script."""
    tab, wrong = chromium.new_page(viewport={"width": 1100, "height": 900}), []
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    yield tab
    assert not wrong


def test_champion_and_challenger_stand_side_by_side(address, page):
    page.goto(address)
    page.fill("#query", "subject1")
    page.press("#query", "Enter")
    page.wait_for_selector("#arms li")
    assert [h.inner_text() for h in page.query_selector_all("#arms h2")] == [
        "control: the champion",
        "treatment: the challenger",
    ]
    assert len(page.query_selector_all("#arms li")) == 20
    assert page.query_selector_all(".tag"), "what a release learnt about a result"
    assert page.query_selector_all(".moved")
    assert page.get_attribute("a[href='/experiment']", "href")
    page.fill("#query", "x" * 1024)
    page.press("#query", "Enter")


def test_what_was_trained_beside_them_stands_before_them_with_what_was_learnt(run_address, page, tmp_path):
    page.goto(f"{run_address}/?q=subject1")
    page.wait_for_selector("#arms li")
    titles = [h.inner_text().partition(":")[0] for h in page.query_selector_all("#arms h2")]
    assert titles == ["base", "clicks", "control", "treatment"]
    columns = page.query_selector_all("#arms section")
    assert [len(c.query_selector_all("li")) for c in columns] == [10] * 4
    same = [c.query_selector("ol").inner_text() for c in columns]
    found = [[line.split(" ")[0] for line in text.splitlines() if line.startswith("v0")] for text in same]
    assert found[0] == found[2], "the same release by Triton and in this process"
    assert "click subject1: 1 × in the log" in columns[3].inner_text()
    page.screenshot(path=str(tmp_path / "four.png"), full_page=True)


def test_a_query_has_an_address_examples_are_offered_and_a_result_shows_its_text(address, page):
    """By keyboard alone: an example, a result's text, back to the query by its key."""
    page.goto(address)
    page.wait_for_selector("#examples button")
    example = page.locator("#examples button").first
    assert example.inner_text().startswith("subject")
    example.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#arms li")
    assert page.url.endswith(f"?q={example.inner_text()}")
    whole = page.locator("#arms details").first
    whole.locator("summary").focus()
    page.keyboard.press("Enter")
    assert whole.get_attribute("open") is not None
    assert (
        whole.locator("div")
        .inner_text()
        .startswith(page.locator("#arms li div span").first.inner_text().strip())
    )
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"
    page.goto(f"{address}/?q=subject2")
    page.wait_for_selector("#arms li")
    assert page.input_value("#query") == "subject2"
    page.go_back()
    page.wait_for_selector("#arms li")
    assert page.input_value("#query") == example.inner_text()


def test_a_list_of_queries_is_compared_the_most_different_first(address, page):
    page.goto(address)
    page.wait_for_selector("#many:not([hidden])")
    page.click("#many summary")
    page.fill("#queries", "subject1\n\nsubject2\nsubject1\n")
    page.click("#list button")
    page.wait_for_selector("#diff tr:nth-child(3)")
    rows = [row.inner_text() for row in page.query_selector_all("#diff tr")[1:]]
    assert len(rows) == 2, "each query once"
    both = [int(cell.inner_text()) for cell in page.query_selector_all("#diff td.n")]
    assert both == sorted(both)
    page.click("#diff button")
    page.wait_for_selector("#arms li")
    assert page.input_value("#query") in rows[0]


def test_the_report_runs_its_own_script_alone_and_its_data_docs_lie_beside_it(address, page, tmp_path):
    """A script that came in from elsewhere does not run, though the report's does."""
    script = (Path(report_page.__file__).parent / "queries.js").read_text().removesuffix("\n")
    for name in ("report.html", "data_docs/index.html"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"<h1>{name}</h1><script>document.title = 'foreign'</script>")
    assert httpx.get(f"{address}/data_docs/index.html").status_code == 200
    assert httpx.get(f"{address}/data_docs/..%2freport.html").status_code == 404
    policy = httpx.get(f"{address}/report").headers["content-security-policy"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.endswith(f"script-src 'sha256-{digest}'")
    page.goto(f"{address}/report")
    assert page.title() != "foreign"


def test_the_experiment_says_where_it_stands_and_what_comes_next(address, page, tmp_path):
    page.goto(f"{address}/experiment")
    page.wait_for_selector("#lifts table")
    said = page.inner_text("#status")
    assert "<b>autumn</b>: canary, step 2" in said, "a name is text, never markup"
    assert "5.0 % of all users" in said
    assert "Next: wait: 300 of 500 users seen" in said
    rows = [row.inner_text() for row in page.query_selector_all("#lifts tr")]
    assert "+6.00 %" in rows[1]
    assert "+1.00 % to +11.00 %" in rows[1]
    assert "+0.87 %" in rows[1], "beside the paper's"
    assert "–" in rows[2], "unknown is not a number"
    assert "guardrails hold" in page.inner_text("#trail")
    page.click("#readout-link")
    assert page.inner_text("h1") == "The readout"


def test_an_abort_needs_the_token_and_ends_it_at_the_controllers_next_look(
    address, page, tmp_path, monkeypatch
):
    page.goto(f"{address}/experiment")
    page.wait_for_selector("#abort:not([hidden])")
    for token, said in (("wrong", "unauthorised"), ("token", "Requested")):
        page.fill("#reason", "latency")
        page.fill("#token", token)
        page.click("#form button")
        page.wait_for_selector(f"#said:has-text('{said}')", state="attached")
        assert (tmp_path / "rollout" / ABORT).exists() == (token == "token")
    cfg = DeployConfig(
        manifest=str(tmp_path / "manifest.json"), releases=str(tmp_path / "releases"), triton=None
    )
    place = rollout.Place(
        folder=str(tmp_path / "rollout"),
        prometheus="http://127.0.0.1:1",
        registry=Registry("", "crops"),
        readout=None,
        deploy=cfg,
        features=str(tmp_path / "features.json"),
    )
    monkeypatch.setattr(rollout, "measure", lambda *_a, **_k: Measurements())
    state, verdict = rollout.step(place, RolloutConfig())
    assert (state.phase, verdict.reason) == ("aborted", "aborted from the console: latency")
    assert set(manifest.read(cfg.manifest).arms) == {"control"}
    page.reload()
    page.wait_for_selector("#status:has-text('aborted')")
    assert page.is_hidden("#abort")


def test_without_a_rollout_it_says_how_one_begins(address, page, tmp_path):
    (tmp_path / "rollout" / STATE).unlink()
    page.goto(f"{address}/experiment")
    page.wait_for_selector("#status:has-text('crops rollout start')")
    found = httpx.get(f"{address}/v1/experiment").json()
    assert found["rollout"] is None
    assert httpx.get(f"{address}/report").status_code == 404
