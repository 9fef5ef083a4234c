"""`crops experiment`: tables in, readout out; what changed is computed and nothing else; what is missing is
said.
"""

import json
import re
import shutil
from datetime import timedelta

import httpx
import pytest
from click.testing import CliRunner

from crops.cli.main import main
from crops.config.experiment import ExperimentConfig
from crops.errors import CropsError
from crops.stages.trial import experiment
from crops.tables import artifacts, records
from tests.crops.experiment import logs

CONFIG = ExperimentConfig(threads=1, planned_users=400)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    return logs.write(tmp_path_factory.mktemp("events"), *logs.experiment(users=500, days=3, lift=0.6))


def read(folder):
    return json.loads((folder / "readout.json").read_text())


def test_a_planted_effect_is_found_and_said_in_words(events, tmp_path):
    experiment.run(events, tmp_path / "out", CONFIG)
    found = read(tmp_path / "out")
    assert found["verdict"] == "better"
    assert found["metrics"]["ctr"]["low"] < 0.6 < found["metrics"]["ctr"]["high"]
    assert found["metrics"]["rqr"]["lift"] < 0
    assert found["metrics"]["rqr"]["verdict"] == "better"
    assert found["metrics"]["ctr"]["stands"] is True
    assert [p["date"] for p in found["metrics"]["ctr"]["by_day"]] == [
        "2026-02-01",
        "2026-02-02",
        "2026-02-03",
    ]
    assert set(found["metrics"]["ctr"]["segments"]) == {f"query: {b}" for b in records.BANDS} | {
        "user: new",
        "user: seen before",
    }
    assert found["paths"]["treatment"]["dense"]["ratio_show"] == 0.25
    text = " ".join(re.sub(r"<[^>]+>", " ", (tmp_path / "out" / "readout.html").read_text()).split())
    assert "Treatment is better. Decided by CTR" in text
    assert "arXiv 2511.15443" in text


def test_only_days_that_changed_are_computed_and_the_answer_is_that_of_all(events, tmp_path):
    copy, out = shutil.copytree(events, tmp_path / "events"), tmp_path / "out"
    late = copy / "searches" / "date=2026-02-03"
    late.rename(tmp_path / "late")
    assert experiment.run(copy, out, CONFIG).numbers["days_computed"] == 3
    assert experiment.run(copy, out, CONFIG).numbers["days_computed"] == 0
    (tmp_path / "late").rename(late)
    # The last day that was known before changes, too: its last searches may have been reformulated after
    # midnight.
    assert experiment.run(copy, out, CONFIG).numbers["days_computed"] == 2
    experiment.run(copy, tmp_path / "whole", CONFIG)
    assert read(out) == read(tmp_path / "whole")


@pytest.mark.parametrize("east_h", [8, -8])
def test_days_of_another_midnight_lose_nothing_whichever_are_computed(tmp_path, east_h):
    """A log in folders of local days: the numbers are those of UTC's folders, a day at a time as at once."""
    rows = logs.experiment(users=60, days=2)
    folders = {hours: logs.write(tmp_path / f"{hours} h", *rows, east_h=hours) for hours in (0, east_h)}
    local, out = folders[east_h], tmp_path / "out"
    late = max((local / "searches").iterdir()).name
    for table in ("searches", "results"):
        (local / table / late).rename(tmp_path / f"{table} {late}")
    experiment.run(local, out, CONFIG)
    for table in ("searches", "results"):
        (tmp_path / f"{table} {late}").rename(local / table / late)
    experiment.run(local, out, CONFIG)
    experiment.run(local, tmp_path / "whole", CONFIG)
    assert read(out) == read(tmp_path / "whole")
    experiment.run(folders[0], tmp_path / "utc", CONFIG)
    for name, metric in read(tmp_path / "utc")["metrics"].items():
        assert {k: read(out)["metrics"][name][k] for k in ("control", "lift", "low")} == {
            k: pytest.approx(metric[k]) for k in ("control", "lift", "low")
        }


def test_the_period_is_cut_by_since_and_until(events, tmp_path):
    one_day = ExperimentConfig(
        threads=1, since=logs.START + timedelta(days=1), until=logs.START + timedelta(days=2)
    )
    experiment.run(events, tmp_path / "out", one_day)
    assert [p["date"] for p in read(tmp_path / "out")["metrics"]["ctr"]["by_day"]] == ["2026-02-02"]


def test_without_arms_videos_or_paths_it_says_so_and_decides_nothing(tmp_path):
    rows = [logs.search(f"s{n}", "u", logs.START + timedelta(hours=n)) for n in range(3)]
    logs.write(tmp_path / "events", rows, [logs.result("s0")])
    report = experiment.run(tmp_path / "events", tmp_path / "out", CONFIG)
    found = read(tmp_path / "out")
    assert (found["verdict"], found["metrics"]["ctr"]["p"], found["srm"]["p"]) == ("unknown", None, None)
    assert any("no search has an arm" in note for note in report.notes)
    assert any("no table videos" in note for note in report.notes)


def test_the_verb_and_its_one_line_errors(events, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(
        main, ["experiment", "--events", str(events), "--out", str(out), "--metric", "rqr"]
    )
    assert done.exit_code == 0, done.output
    assert read(out)["primary"] == "rqr"
    assert {p.name for p in out.iterdir()} >= {"readout.json", "readout.html"}
    began = logs.START + timedelta(days=1)
    state = {"experiment": "e", "control": "models:/crops/1", "treatment": "models:/crops/2"}
    state |= {"started_s": began.timestamp(), "entered_s": began.timestamp(), "last": None}
    state["facts"] = {"salt": "s", "control_version": "1", "treatment_version": "2"}
    (tmp_path / "rollout").mkdir()
    (tmp_path / "rollout/rollout.json").write_text(json.dumps(state))
    options = ["--events", str(events), "--out", str(out), "--rollout", str(tmp_path / "rollout")]
    assert CliRunner().invoke(main, ["experiment", *options]).exit_code == 0
    assert read(out)["period"]["since"] == "2026-02-02T00:00:00Z"
    (tmp_path / "empty").mkdir()
    with pytest.raises(CropsError, match="no Parquet file of the table 'searches'"):
        experiment.run(tmp_path / "empty", tmp_path / "other", CONFIG)
    assert not (tmp_path / "other").exists()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_the_page_fits_a_phone_and_a_desk(events, tmp_path, width):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    experiment.run(events, tmp_path / "out", CONFIG)
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=browser, args=["--no-sandbox", "--disable-background-networking"]
        )
        tab = chromium.new_page(viewport={"width": width, "height": 900})
        errors: list[str] = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(f"file://{tmp_path}/out/readout.html")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
        assert tab.locator("svg").count() == 5  # lifts, three metrics over time, segments
        tab.screenshot(path=str(tmp_path / "page.png"), full_page=True)
        chromium.close()
    assert not errors


def test_artifacts_of_the_readout_read_back_as_their_tables(events, tmp_path):
    experiment.run(events, tmp_path / "out", CONFIG)
    days = artifacts.read(tmp_path / "out", records.USER_DAYS)
    assert set(days["date"].to_pylist()) == {"2026-01-31", "2026-02-01", "2026-02-02", "2026-02-03"}
    assert artifacts.read(tmp_path / "out", records.PATH_DAYS).num_rows == 3 * 2 * 3


def test_another_window_than_the_gateways_is_refused(monkeypatch):
    def answer(url, **_):
        assert url == "http://gateway:8080/v1/release"
        return httpx.Response(200, json={"reformulation_window_s": 60.0})

    monkeypatch.setattr(experiment.httpx, "get", answer)
    experiment.check_window("http://gateway:8080/", CONFIG.model_copy(update={"window_s": 60}))
    with pytest.raises(CropsError, match="within 60 s, the readout within 90 s"):
        experiment.check_window("http://gateway:8080", CONFIG)


@pytest.mark.parametrize("day", ["__HIVE_DEFAULT_PARTITION__", "2026-13-45", "2026-1-5"])
def test_a_folder_of_no_day_is_named(events, tmp_path, day):
    (first,) = sorted((events / "searches").glob("date=*"))[:1]
    shutil.copytree(events, tmp_path / "events")
    shutil.copytree(first, tmp_path / f"events/searches/date={day}")
    with pytest.raises(CropsError, match=f"date={day}/.*expected one per day"):
        experiment.run(tmp_path / "events", tmp_path / "out", CONFIG)


def test_an_arm_of_another_name_is_named(tmp_path):
    searches, *rest = logs.experiment(users=20, days=1, lift=0.0)
    for row in searches:
        row["arm"] = {"control": "A", "treatment": "B", None: None}[row["arm"]]
    with pytest.raises(CropsError, match="arm is 'A', expected control, treatment or null"):
        experiment.run(logs.write(tmp_path / "events", searches, *rest), tmp_path / "out", CONFIG)
