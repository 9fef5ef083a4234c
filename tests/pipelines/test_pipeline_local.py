"""The wiring of the training pipeline on KFP's local runner, with stubs in place of the stages (see
stubs/sitecustomize.py).
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import os, sys
from pathlib import Path
os.environ["CROPS_STUB_RUNNER"] = str(os.getpid())
from crops.config.all import load
from crops.cli.support import guarded
from pipelines import local, screen
logs, out = Path(sys.argv[1]), Path(sys.argv[2])
registry = f"sqlite:///{out}/registry/mlflow.db"
def main():
    report = local.run(logs, out, load(None), registry=registry)
    print("VERDICT", report["gate"]["verdict"])
    print("\\n".join(screen.outcome(report, out, registry, "")))
guarded(main)
"""


def crops_run(folder: Path, **stubs: str) -> subprocess.CompletedProcess[str]:
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    if not (logs / "world.json").exists():
        (logs / "world.json").write_text("{}")
    env = {
        **os.environ,
        "CROPS_STUB_RUNS": str(folder / "runs.jsonl"),
        "PYTHONPATH": f"{ROOT / 'tests/pipelines/stubs'}:{ROOT}",
        **{f"CROPS_STUB_{key.upper()}": value for key, value in stubs.items()},
    }
    command = [sys.executable, "-c", CODE, str(logs), str(folder / "out")]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


def runs(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]


# What KFP's own pages show.
PAGES = ("evaluate/table", "gate/reasons", "validate/docs", "report/page")
SYSTEMS = ("base", "clicks", "clicks_mnrl", "crops", "crops_paper", "crops_no_knowledge")
EACH_ONCE = sorted(
    [
        [s, ""]
        for s in (
            "validate",
            "augment",
            "knowledge",
            "theta",
            "discriminate",
            "label",
            "evaluate",
            "first",
            "gate",
            "deploy",
        )
    ]
    + [["score", ""]]
    + [["train", s] for s in SYSTEMS]
    + [
        ["export", ""],
        ["export", ""],
        ["index", ""],
        ["index", ""],
        ["register", "champion"],
        ["register", "challenger"],
    ]
)


def test_every_stage_runs_once_and_the_report_has_the_contracts_keys(tmp_path):
    done = crops_run(tmp_path)
    assert "VERDICT promote" in done.stdout, done.stdout + done.stderr
    assert sorted(runs(tmp_path)) == EACH_ONCE
    report = json.loads((tmp_path / "out/report.json").read_text())
    wanted = (
        "headline recall_at_100 recall_at_20 ndcg_at_4 intervals ladder hierarchy counts seconds gate release"
    )
    assert set(report) == set(wanted.split())
    page = (tmp_path / "out/report.html").read_text()
    assert "Simulated data" in page
    assert "&lt;t&gt;" in page, "text from the log is escaped"
    assert "a stub note" in page
    assert "All settings are the defaults." in page
    assert 'href="data_docs/index.html"' in page
    assert "of the log" in (tmp_path / "out/data_docs/index.html").read_text(), "where the link leads"
    assert (tmp_path / "out/beir/queries.jsonl").is_file()
    (run,) = (tmp_path / "out/.cache/artifacts").iterdir()
    pages = {name: (run / name).read_text() for name in PAGES}
    assert "| Clicks (`ct`) | – | 40.0 | 50.0 |" in pages["evaluate/table"]
    assert pages["gate/reasons"] == "# Promote\n\n- a stub\n"
    assert "of the log" in pages["validate/docs"]
    assert "data_docs/" not in pages["report/page"], "a link that would lead nowhere"
    assert "crops 50.0 %, best alternative clicks 40.0 %" in done.stdout, "the headline ends the run"
    stages = re.findall(r"^\[ ?(\d+)/(\d+)\] ", done.stdout, re.M)
    assert stages == [(str(n + 1), str(len(stages))) for n in range(len(stages))], "stage n of m, to the last"
    assert "verdict: PROMOTE" in done.stdout
    assert "next:    crops serve --registry sqlite:///" in done.stdout
    # Two trainings at once would need twice the memory of a laptop.
    log = (tmp_path / "out/.cache/run.log").read_text()
    turns = re.findall(r"- (Executing) task \S*'train\S*'|Task \S*'train\S* (finished) with", log)
    assert ["".join(turn) for turn in turns] == ["Executing", "finished"] * len(SYSTEMS)


def test_killed_in_a_stage_the_same_command_resumes_there(tmp_path):
    """Before the kill: everything up to label; the second run asks for label again, and for nothing before
    it. With the last fit, which the first test goes without.
    """
    assert crops_run(tmp_path, kill="label", last_fit="1").returncode == -9
    before = [name for name, _ in runs(tmp_path)]
    assert before[-1] == "label"
    half = next(tmp_path.glob("out/.cache/artifacts/*/validate")) / ".out.partial-00000000"
    (half / "samples").mkdir(parents=True)
    done = crops_run(tmp_path, last_fit="1")
    assert not half.exists(), "what the kill left half-written is gone"
    assert "VERDICT promote" in done.stdout, done.stdout + done.stderr
    after = runs(tmp_path)[len(before) :]
    assert sorted(runs(tmp_path)[: len(before) - 1] + after) == sorted([*EACH_ONCE, ["refit", ""]])


def test_a_stages_error_is_one_line_and_exit_code_2(tmp_path):
    done = crops_run(tmp_path, fail="validate")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == "crops: validate: logs/results:7: stage is 'shown'"
