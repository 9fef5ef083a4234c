"""The workflows: sound, pinned, and their own steps executed, against a stand-in of KFP and a real MLflow
registry.
"""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from crops.config.all import Config
from crops.experiment import features
from crops.release import document, manifest
from crops.services.registry import Registry
from crops.stages.release import deploy
from tests import shared
from tests.pipelines.kfp_server import KfpServer
from tests.serving import releases as toys

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))
BIN = ROOT / ".venv/bin"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_is_sound_pinned_and_gives_no_more_rights_than_needed(path):
    schema = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.github-workflows", str(path)]
    done = subprocess.run(schema, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([str(BIN / "zizmor"), "--offline", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    used = re.findall(r"uses:\s*(\S+)", path.read_text())
    assert used
    assert all(re.search(r"@[0-9a-f]{40}$", action) for action in used)
    assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}


def test_the_gitlab_example_is_sound_and_calls_the_same_verbs():
    path = ROOT / "docs/examples/gitlab-ci.yaml"
    schema = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.gitlab-ci", str(path)]
    done = subprocess.run(schema, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for verb in ("crops submit", "crops rollout start"):
        assert verb in path.read_text()
        assert verb in (ROOT / ".github/workflows/retrain.yaml").read_text()


def test_pull_requests_run_the_readmes_test_command():
    steps = yaml.safe_load((ROOT / ".github/workflows/test.yaml").read_text())["jobs"]["test"]["steps"]
    assert any(step.get("run", "").endswith("make test") for step in steps)
    assert "make test" in (ROOT / "README.md").read_text()


@pytest.fixture
def place(tmp_path):
    """A registry with a champion and a challenger, and a config as a cluster's."""
    uri = shared.new_registry(tmp_path / "registry")
    for release in toys.build(tmp_path / "made"):
        Registry(uri, "crops").register(Path(release.files), tags={"checksums": release.checksum})
    Registry(uri, "crops").move("champion", "1", expected=None, reason="first")
    Registry(uri, "crops").move("challenger", "2", expected=None, reason="promoted")
    config = {
        "kubeflow": {"results": f"file://{tmp_path}/results", "poll_s": 0.05},
        "deploy": {
            "manifest": str(tmp_path / "manifest.json"),
            "releases": str(tmp_path / "releases"),
            "triton": None,
        },
    }
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(config))
    deploy.release(Registry(uri, "crops"), "1", manifest.CONTROL, Config(raw=config).section("deploy"))
    return tmp_path, uri


def publishes(verdict):
    def publish(parameters):
        folder = Path(json.loads(parameters["report_config"])["publish"].removeprefix("file://"))
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps({"gate": {"verdict": verdict, "reasons": ["why"]}}))

    return publish


# What GitHub runs a step's file with, by the shell that the step, the job or the workflow declares.
SHELLS = {None: ["bash", "-e"], "bash": ["bash", "--noprofile", "--norc", "-eo", "pipefail"]}


class Runner:
    """What GitHub does with the steps of one job: env, outputs, summary, `if:` on an earlier output, and the
    declared shell.
    """

    def __init__(self, name: str, place: Path, known: dict[str, str]) -> None:
        self.workflow = yaml.safe_load((ROOT / f".github/workflows/{name}.yaml").read_text())
        self.job, self.place, self.known = self.workflow["jobs"][name], place, known
        self.outputs: dict[str, str] = {}
        self.ran: list[str] = []

    def resolved(self, text: str) -> str:
        return re.sub(r"\$\{\{ *(.+?) *\}\}", lambda m: self.known[m.group(1)], text)

    def shell(self, step: dict) -> list[str]:
        defaults = [about.get("defaults", {}).get("run", {}) for about in (self.job, self.workflow)]
        return SHELLS[next((d["shell"] for d in (step, *defaults) if "shell" in d), None)]

    def step(self, name: str) -> int | None:
        """The step's exit code; None where its condition does not hold."""
        (step,) = [s for s in self.job["steps"] if s.get("name") == name]
        if "if" in step:
            key, value = re.fullmatch(r"steps\.submit\.outputs\.(\w+) == '(\w+)'", step["if"]).groups()
            if self.outputs.get(key) != value:
                return None
        files = {key: self.place / key.lower() for key in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        declared = {**self.workflow["env"], **step.get("env", {})}
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.place),
            "PYTHONPATH": str(ROOT),  # what `pip install -e .` of the checkout gives
            "GITHUB_RUN_ID": "17",
            **{k: str(v) for k, v in files.items()},
            **{key: self.resolved(value) for key, value in declared.items()},
        }
        script = self.place / "step.sh"
        script.write_text(step["run"])
        done = subprocess.run(
            [*self.shell(step), str(script)],
            cwd=self.place,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.ran.append(done.stdout + done.stderr)
        if files["GITHUB_OUTPUT"].exists():
            self.outputs |= dict(
                line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines()
            )
        return done.returncode


ACTION = "github.event.schedule == '17 * * * *' && 'look' || 'submit'"


def expressions(place: Path, uri: str, host: str) -> dict[str, str]:
    """What GitHub puts in place of each ${{ }} of retrain.yaml."""
    secrets = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    keys = ("secrets.AWS_ACCESS_KEY_ID", "secrets.AWS_SECRET_ACCESS_KEY", "vars.AWS_ENDPOINT_URL")
    return {
        "vars.CROPS_CONFIG || 'configs/kubeflow.yaml'": str(place / "cluster.yaml"),
        "vars.CROPS_LOGS": f"file://{place}/logs",
        "vars.CROPS_REGISTRY": uri,
        "vars.KFP_HOST": host,
        "secrets.KFP_TOKEN": "secret",
        "inputs.reason || 'schedule'": "drift",
        "vars.CROPS_ROLLOUT_STATE": str(place / "rollout"),
        "vars.PROMETHEUS": "http://127.0.0.1:9",
        **{f"secrets.{name}": "" for name in secrets},
        **dict.fromkeys(keys, ""),
        ACTION: "submit",
    }


SUBMIT, CANARY = "Submit, or look for the verdict", "Start the canary"


def stubbed(tmp_path: Path, code: int, **known: str) -> Runner:
    """The job in a checkout whose `crops` writes down how it was called, and exits with `code`."""
    crops = tmp_path / ".venv/bin/crops"
    crops.parent.mkdir(parents=True)
    crops.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho "crops speaks"\nexit {code}\n')
    crops.chmod(0o755)
    return Runner("retrain", tmp_path, {**expressions(tmp_path, "http://mlflow", "http://kfp"), **known})


@pytest.mark.parametrize(
    ("code", "ends", "verdict"),
    [(0, 0, "promote"), (3, 0, "reject"), (4, 0, "unknown"), (5, 0, "none"), (1, 1, None), (2, 2, None)],
)
def test_a_look_takes_the_verdict_as_crops_says_it(tmp_path, code, ends, verdict):
    job = stubbed(tmp_path, code, **{ACTION: "look"})
    assert job.step(SUBMIT) == ends, job.ran
    assert job.outputs == ({"verdict": verdict} if verdict else {})
    assert "--look" in (tmp_path / "calls").read_text()
    assert "crops speaks" in job.ran[-1]
    assert (job.step(CANARY) is not None) == (verdict == "promote")


@pytest.mark.parametrize("code", [0, 2, 3, 4])
def test_a_submission_is_left_alone_and_is_no_verdict(tmp_path, code):
    job = stubbed(tmp_path, code)
    assert job.step(SUBMIT) == code, job.ran
    assert job.outputs == ({} if code else {"verdict": "submitted"})
    assert "--no-wait" in (tmp_path / "calls").read_text()
    assert job.step(CANARY) is None


STATE = "vars.CROPS_ROLLOUT_STATE"


@pytest.mark.parametrize(
    ("state", "starts"),
    [
        ("rollout", "rollout start"),
        ("s3://search/rollout", "rollout start"),
        ("/shared/of/the/cluster", "submit --pipeline rollout --no-wait"),
    ],
)
@pytest.mark.parametrize("code", [0, 2, 3, 4])
def test_a_canary_that_does_not_start_fails_the_job(tmp_path, code, state, starts):
    job = stubbed(tmp_path, code, **{STATE: state})
    job.outputs["verdict"] = "promote"
    (tmp_path / "rollout").mkdir()
    assert job.step(CANARY) == code
    assert ("::error::promoted, but without a canary" in job.ran[-1]) == (code != 0)
    said = (tmp_path / "calls").read_text()
    assert said.startswith(starts)
    assert f"--state {state} " in said


def test_an_hourly_look_takes_no_place_of_a_training_and_the_clock_waits_for_a_kubeflow():
    """GitHub cancels what waits in a group when another one comes."""
    workflow = yaml.safe_load((ROOT / ".github/workflows/retrain.yaml").read_text())
    assert ACTION in workflow["concurrency"]["group"]
    assert workflow["jobs"]["retrain"]["if"] == "github.event_name != 'schedule' || vars.KFP_HOST != ''"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_declares_its_shell_and_stays_below_the_limit_of_hosted_runners(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["defaults"]["run"]["shell"] == "bash"
    assert all(job["timeout-minutes"] < 360 for job in workflow["jobs"].values())


def runner(place, uri, server, action, **known: str) -> Runner:
    """The job of retrain.yaml in a checkout that is a link to this one."""
    for name in (".venv", "crops", "components", "pipelines", "serving"):
        if not (place / name).exists():
            (place / name).symlink_to(ROOT / name)
    return Runner("retrain", place, {**expressions(place, uri, server.url), ACTION: action, **known})


def submitted(place, uri, server) -> None:
    """A training that was submitted, and looked at until the stand-in has ended it."""
    (place / "logs").mkdir(exist_ok=True)
    job = runner(place, uri, server, "submit")
    assert job.step(SUBMIT) == 0, job.ran
    assert job.outputs.pop("verdict") == "submitted"
    assert not (place / "rollout").exists(), "nobody waited"
    (run,) = server.runs.values()
    while run.state in ("PENDING", "RUNNING"):
        server._advance(run)
    (place / "github_output").unlink()


def test_a_promoted_challenger_starts_its_canary_once(place):
    folder, uri = place
    server = KfpServer(publish=publishes("promote"), token="secret")
    submitted(folder, uri, server)
    (folder / "rollout").mkdir()
    job = runner(folder, uri, server, "look")
    assert job.step(SUBMIT) == 0, job.ran
    assert job.outputs == {"verdict": "promote"}
    assert "## Retraining: promote\nWhy: drift" in (folder / "github_step_summary").read_text()
    assert job.step(CANARY) == 0, job.ran
    served = manifest.read(str(folder / "manifest.json")).arms
    assert "treatment" in served
    state = json.loads((folder / "rollout/rollout.json").read_text())
    assert (state["phase"], state["experiment"]) == ("canary", "retrain-17")
    assert "secret" not in "".join(job.ran), "the token is never said"
    again = runner(folder, uri, server, "look")
    assert again.step(SUBMIT) == 0, again.ran
    assert again.outputs == {"verdict": "none"}
    assert again.step(CANARY) is None


def test_a_canary_in_a_bucket_is_the_one_that_everybody_sees(place, s3, bucket):
    """The job on a runner without any volume starts it; a controller elsewhere reads the same state."""
    folder, uri = place
    server = KfpServer(publish=publishes("promote"), token="secret")
    submitted(folder, uri, server)
    keys = {f"secrets.AWS_{key}": os.environ[f"AWS_{key}"] for key in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}
    known = {STATE: f"{bucket}/rollout", "vars.AWS_ENDPOINT_URL": s3, **keys}
    job = runner(folder, uri, server, "look", **known)
    assert job.step(SUBMIT) == 0, job.ran
    assert job.step(CANARY) == 0, job.ran
    state = json.loads(document.read(f"{bucket}/rollout/rollout.json").content)
    assert (state["phase"], state["experiment"]) == ("canary", "retrain-17")
    (one,) = features.parse(features.load(f"{bucket}/rollout/features.json"))
    assert one.treatment == "models:/crops/2"


def test_a_verdict_that_cannot_be_read_now_is_told_at_the_next_look(place):
    """A folder in the report's place is what a bucket that does not answer is."""
    folder, uri = place
    server = KfpServer(publish=publishes("promote"), token="secret")
    submitted(folder, uri, server)
    (report,) = (folder / "results").rglob("report.json")
    report.rename(report.with_suffix(".away"))
    report.mkdir()
    job = runner(folder, uri, server, "look")
    assert job.step(SUBMIT) == 2, job.ran
    report.rmdir()
    report.with_suffix(".away").rename(report)
    again = runner(folder, uri, server, "look")
    assert again.step(SUBMIT) == 0, again.ran
    assert again.outputs == {"verdict": "promote"}


@pytest.mark.parametrize("verdict", ["reject", "unknown"])
def test_without_a_promotion_the_job_ends_well_and_starts_no_canary(place, verdict):
    folder, uri = place
    server = KfpServer(publish=publishes(verdict), token="secret")
    submitted(folder, uri, server)
    job = runner(folder, uri, server, "look")
    assert job.step(SUBMIT) == 0, job.ran
    assert job.outputs == {"verdict": verdict}
    assert job.step(CANARY) is None


def test_a_run_that_fails_fails_the_job(place):
    folder, uri = place
    server = KfpServer("FAILED", token="secret")
    submitted(folder, uri, server)
    job = runner(folder, uri, server, "look")
    assert job.step(SUBMIT) == 2
    assert "failed: train-3: kubectl -n kubeflow logs" in job.ran[-1]
    assert job.step(CANARY) is None
