"""`crops run` on the tiny world, every stage real: what it ends with, and that a SIGKILL at any place changes
nothing.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crops import perspectives
from crops.services.registry import Registry
from crops.tables import artifacts, records

pytestmark = pytest.mark.timeout(1_800)

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
knowledge: {max_queries: 150}
discriminate: {base: small, max_pairs: 1500, epochs: 1, dual_steps: 30, ladder_pairs: 200, chance_pairs: 1000}
train: {base: small, steps: 12, check_every: 6, batch_queries: 16, probe_steps: 6, mnrl_epochs: 1}
"""
SETS = {"ct", "qr", "qr_raw", "qr_relevant", "truth", "unseen", "no_click"}
SYSTEMS = {"bm25", "base", "clicks", "clicks_mnrl", "crops", "crops_paper", "crops_no_knowledge"}
STAGES = (
    "validate",
    "augment",
    "knowledge",
    "discriminate",
    "label",
    "train",
    "export",
    "index",
    "evaluate",
    "first",
    "baseline",
    "gate",
    "register",
    "report",
)


def crops(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "crops", *args], cwd=ROOT, capture_output=True, text=True, timeout=1_200
    )


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world") / "logs"
    done = crops("world", "--out", str(folder), "--scale", "tiny", "--seed", "3")
    assert done.returncode == 0, done.stderr
    (folder.parent / "config.yaml").write_text(CONFIG)
    return folder


def command(logs: Path, out: Path) -> list[str]:
    config = str(logs.parent / "config.yaml")
    return [
        sys.executable,
        "-m",
        "crops",
        "run",
        "--logs",
        str(logs),
        "--out",
        str(out),
        "--registry",
        f"sqlite:///{out / 'registry' / 'mlflow.db'}",
        "--llm",
        "world",
        "--config",
        config,
    ]


@pytest.fixture(scope="module")
def whole(logs, tmp_path_factory):
    """A run that nothing disturbed: (its folder, its exit code)."""
    out = tmp_path_factory.mktemp("whole") / "run"
    done = subprocess.run(command(logs, out), cwd=ROOT, capture_output=True, text=True, timeout=1_200)
    assert done.returncode in (0, 3, 4), done.stdout + done.stderr
    return out, done.returncode


def tables(out: Path) -> dict[str, str]:
    """Digest of every table, model and index that the stages wrote, by task and path; reports hold times and
    are left out.
    """
    found = {}
    for path in sorted((out / ".cache/artifacts").rglob("*")):
        if path.suffix in (".parquet", ".safetensors", ".onnx", ".faiss") and ".checkpoints" not in str(path):
            task, name = path.relative_to(out / ".cache/artifacts").parts[1:][0], path.name
            found[f"{task}/{path.parent.name}/{name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_it_ends_with_the_contracts_report_and_a_verdict_as_exit_code(whole):
    out, code = whole
    report = json.loads((out / "report.json").read_text())
    assert {"promote": 0, "reject": 3, "unknown": 4}[report["gate"]["verdict"]] == code
    assert report["gate"]["reasons"]
    for key in ("recall_at_100", "recall_at_20"):
        assert set(report[key]) == SETS
        assert all(set(row) == SYSTEMS for row in report[key].values() if row)
    assert set(report["ladder"]) <= set("12345")
    assert report["hierarchy"]["reason"]
    assert {"validate", "augment", "train crops", "evaluate"} <= set(report["seconds"])
    assert "Simulated data" in (out / "report.html").read_text()


def test_without_a_champion_clicks_is_registered_first_and_becomes_it(whole):
    out, code = whole
    uri = f"sqlite:///{out / 'registry' / 'mlflow.db'}"
    assert Registry(uri, "crops").holder("champion") == "1"
    assert Registry(uri, "crops").holder("challenger") == ("2" if code == 0 else None)
    release = Registry(uri, "crops").download("1", out / "downloaded")
    names = {p.name for p in release.iterdir()}
    assert {
        "query_encoder.onnx",
        "tokenizer.json",
        "index.faiss",
        "documents",
        "fingerprint.json",
        "training_pairs.parquet",
        "MODEL_CARD.md",
        "checksums.json",
    } <= names


def test_every_perspective_reached_training_and_truth_did_not(whole):
    out, _ = whole
    samples = artifacts.read(next((out / ".cache/artifacts").glob("*/label/out")), records.ORIGINS)
    assert set(samples["perspective"].to_pylist()) == set(perspectives.names())
    relevance = [p for p in (out / ".cache/artifacts").rglob("*.parquet") if "relevance" in str(p)]
    outputs = {path.parents[2].name for path in relevance}
    assert outputs == {"beside"}, "no stage may write the truth on but to what measures it"


def test_the_second_run_does_nothing_twice_and_says_the_same(whole, logs):
    out, code = whole
    before = (out / "report.json").read_bytes()
    done = subprocess.run(command(logs, out), cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == code, done.stdout + done.stderr
    assert (out / "report.json").read_bytes() == before


def killed_in(stage: str, logs: Path, out: Path, *, delay_s: float) -> bool:
    """Starts the run, waits until `stage` has begun, sends SIGKILL to the whole group; False where it ended
    before.
    """
    with (out.parent / "screen.log").open("ab") as log:
        child = subprocess.Popen(command(logs, out), cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    begun = f"'{stage}'"
    run_log = out / ".cache/run.log"
    skip = run_log.stat().st_size if run_log.exists() else 0
    deadline = time.monotonic() + 600
    while child.poll() is None and time.monotonic() < deadline:
        if run_log.exists() and begun in run_log.read_bytes()[skip:].decode(errors="replace"):
            time.sleep(delay_s)
            break
        time.sleep(0.05)
    alive = child.poll() is None
    if alive:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    return alive


def check_kills(stages: tuple[str, ...], whole, logs: Path, folder: Path, *, delay_s: float) -> None:
    out = folder / "run"
    out.parent.mkdir(exist_ok=True)
    killed = [stage for stage in stages if killed_in(stage, logs, out, delay_s=delay_s)]
    assert len(killed) >= len(stages) // 2, f"only {killed} were caught alive"
    done = subprocess.run(command(logs, out), cwd=ROOT, capture_output=True, text=True, timeout=1_200)
    undisturbed, code = whole
    assert done.returncode == code, done.stdout + done.stderr
    assert tables(out) == tables(undisturbed)
    assert not list(out.rglob(".*.partial-*")), "something half-written was left"


def test_killed_while_it_scores_and_while_it_trains_it_ends_with_the_same_tables(whole, logs, tmp_path):
    check_kills(("discriminate", "train"), whole, logs, tmp_path, delay_s=6.0)


@pytest.mark.slow
@pytest.mark.parametrize("delay_s", [0.5, 4.0])
def test_killed_in_every_stage_it_ends_with_the_same_tables(whole, logs, tmp_path, delay_s):
    check_kills(STAGES, whole, logs, tmp_path, delay_s=delay_s)


def test_without_reformulations_feed_and_llm_it_still_ends_with_a_report(logs, tmp_path):
    """One search per user and day, no feed, no LLM: nothing to hold the challenger to, so the verdict is
    unknown, exit code 4.
    """
    import duckdb

    poor = tmp_path / "logs"
    shutil.copytree(logs / "videos", poor / "videos")
    for day in sorted((logs / "searches").glob("date=*")):
        searches, results = poor / "searches" / day.name, poor / "results" / day.name
        searches.mkdir(parents=True), results.mkdir(parents=True)
        duckdb.execute(f"""
            COPY (SELECT * EXCLUDE (n, date) FROM (
                SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY ts) AS n
                FROM read_parquet('{day}/*.parquet')) WHERE n = 1)
            TO '{searches}/part-0.parquet'""")
        duckdb.execute(f"""
            COPY (SELECT * EXCLUDE (date) FROM read_parquet('{logs}/results/{day.name}/*.parquet')
                  WHERE search_id IN (SELECT search_id FROM read_parquet('{searches}/part-0.parquet')))
            TO '{results}/part-0.parquet'""")
    done = crops(
        "run",
        "--logs",
        str(poor),
        "--out",
        str(tmp_path / "run"),
        "--config",
        str(logs.parent / "config.yaml"),
    )
    assert done.returncode == 4, done.stdout + done.stderr
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["recall_at_100"]["qr_raw"] is None
    assert report["recall_at_100"]["truth"] is None
    assert report["release"]["uri"] is None
    page = (tmp_path / "run/report.html").read_text()
    assert "reformulation: none within 90 s" in page
    assert "feed: no such table" in page


@pytest.mark.docker
def test_in_its_images_the_pipeline_makes_the_same(logs, whole, images, tmp_path):
    """KFP's DockerRunner on a real engine: every task in the image that a cluster would run, with nothing of
    this checkout.
    """
    out = tmp_path / "run"
    done = subprocess.run(
        [*command(logs, out), "--runner", "docker"], cwd=ROOT, capture_output=True, text=True, timeout=1_500
    )
    assert done.returncode == whole[1], done.stdout[-3000:] + done.stderr[-3000:]
    report, expected = (json.loads((folder / "report.json").read_text()) for folder in (out, whole[0]))
    for key in ("ladder", "hierarchy", "counts"):
        assert report[key] == expected[key]
    assert list(tables(out)) == list(tables(whole[0]))
    mined = [name for name in tables(out) if name.startswith(("validate", "augment", "label"))]
    assert {n: tables(out)[n] for n in mined} == {n: tables(whole[0])[n] for n in mined}


@pytest.mark.docker
def test_in_images_a_task_that_fails_is_seen_to_fail(logs, images, tmp_path):
    broken = logs.parent / "broken"  # beside the config that `command` names
    shutil.copytree(logs, broken)
    for path in (broken / "results").rglob("*.parquet"):
        path.write_bytes(b"torn")
    done = subprocess.run(
        [*command(broken, tmp_path / "run"), "--runner", "docker"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 2, done.stdout[-3000:] + done.stderr[-3000:]
    assert "validate" in done.stderr
    assert "results" in done.stderr
    assert not (tmp_path / "run/report.json").exists()
