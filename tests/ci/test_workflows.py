"""The workflows: sound, pinned, and their own steps executed, against a stand-in of KFP and a real MLflow
registry.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from crops.config.all import Config
from crops.release import manifest
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


class Runner:
    """What GitHub does with the steps of one job: env, outputs, summary, `if:` on an earlier output; bash -e
    -o pipefail.
    """

    def __init__(self, job: dict, workflow: dict, place: Path, known: dict[str, str]) -> None:
        self.job, self.workflow, self.place, self.known = job, workflow, place, known
        self.outputs: dict[str, str] = {}
        self.ran: list[str] = []

    def resolved(self, text: str) -> str:
        return re.sub(r"\$\{\{ *(.+?) *\}\}", lambda m: self.known[m.group(1)], text)

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
            "GITHUB_RUN_ID": "17",
            **{k: str(v) for k, v in files.items()},
            **{key: self.resolved(value) for key, value in declared.items()},
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", step["run"]],
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


def runner(place, uri, server) -> Runner:
    """The job of retrain.yaml in a checkout that is a link to this one."""
    (place / ".venv").symlink_to(ROOT / ".venv")
    for name in ("crops", "components", "pipelines", "serving"):
        (place / name).symlink_to(ROOT / name)
    workflow = yaml.safe_load((ROOT / ".github/workflows/retrain.yaml").read_text())
    known = {
        "vars.CROPS_CONFIG || 'configs/kubeflow.yaml'": str(place / "cluster.yaml"),
        "vars.CROPS_LOGS": "s3://logs",
        "vars.CROPS_REGISTRY": uri,
        "vars.KFP_HOST": server.url,
        "secrets.KFP_TOKEN": "secret",
        "secrets.MLFLOW_TRACKING_PASSWORD": "",
        "inputs.reason || 'schedule'": "drift",
        "vars.CROPS_ROLLOUT_STATE": str(place / "rollout"),
        "vars.PROMETHEUS": "http://127.0.0.1:9",
    }
    return Runner(workflow["jobs"]["retrain"], workflow, place, known)


def test_a_promoted_challenger_starts_its_canary(place):
    folder, uri = place
    server = KfpServer(publish=publishes("promote"), token="secret")
    job = runner(folder, uri, server)
    assert job.step("Submit and wait for the verdict") == 0, job.ran
    assert job.outputs == {"verdict": "promote"}
    assert "## Retraining: promote\nWhy: drift" in (folder / "github_step_summary").read_text()
    assert job.step("Start the canary") == 0, job.ran
    served = manifest.read(str(folder / "manifest.json")).arms
    assert "treatment" in served
    state = json.loads((folder / "rollout/rollout.json").read_text())
    assert (state["phase"], state["experiment"]) == ("canary", "retrain-17")
    assert "secret" not in "".join(job.ran), "the token is never said"


@pytest.mark.parametrize("verdict", ["reject", "unknown"])
def test_without_a_promotion_the_job_ends_well_and_starts_no_canary(place, verdict):
    folder, uri = place
    job = runner(folder, uri, KfpServer(publish=publishes(verdict), token="secret"))
    assert job.step("Submit and wait for the verdict") == 0, job.ran
    assert job.outputs == {"verdict": verdict}
    assert job.step("Start the canary") is None


def test_a_run_that_fails_fails_the_job(place):
    folder, uri = place
    job = runner(folder, uri, KfpServer("FAILED", token="secret"))
    assert job.step("Submit and wait for the verdict") == 2
    assert "no GPU left" in job.ran[-1]
    assert job.step("Start the canary") is None
