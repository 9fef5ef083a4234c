"""What a submitted pipeline runs in place of a component's source, called as KFP's launcher calls it."""

import json
import subprocess
import sys

import pytest
import yaml

from crops.config.kubeflow import COMPONENTS, KubeflowConfig
from pipelines import component, submit


def test_a_submitted_pipeline_holds_no_source_and_its_command_runs_the_component(tmp_path):
    for pipeline in ("training", "refresh_index", "rollout"):
        package = tmp_path / f"{pipeline}.yaml"
        submit.compiled(package, KubeflowConfig(), pipeline)
        assert "from kfp" not in package.read_text()
        containers = containers_of(package)
        assert containers
        assert all(c["command"] == component.COMMAND for c in containers)
    (champion,) = [c for c in containers_of(tmp_path / "refresh_index.yaml") if "champion" in c["args"]]
    made = {"name": "out", "uri": str(tmp_path / "out"), "type": {"schemaTitle": "system.Model"}}
    numbers = {"name": "metrics", "uri": str(tmp_path / "metrics"), "type": {"schemaTitle": "system.Metrics"}}
    told = {
        "inputs": {"parameterValues": {"registry": "", "fingerprint": "x", "config": "{}"}},
        "outputs": {
            "outputFile": str(tmp_path / "executor.json"),
            "artifacts": {"out": {"artifacts": [made]}, "metrics": {"artifacts": [numbers]}},
        },
    }
    arguments = [json.dumps(told) if a == "{{$}}" else a for a in champion["args"]]
    python = [sys.executable, *champion["command"][1:]]
    done = subprocess.run([*python, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/stage.json").exists()
    kept = json.loads((tmp_path / "executor.json").read_text())
    assert kept["artifacts"]["metrics"]["artifacts"][0]["metadata"] == {"champion_found": 0.0}


def containers_of(package):
    spec = next(yaml.safe_load_all(package.read_text()))
    return [e["container"] for e in spec["deploymentSpec"]["executors"].values() if "container" in e]


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_component_is_found_as_a_plain_function(name):
    """By the executor's own loader: it stops where the component asks for its inputs, which are not there."""
    told = json.dumps({"inputs": {}, "outputs": {"outputFile": "unused"}})
    given = ["--executor_input", told, "--function_to_execute", name]
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.component", *given], capture_output=True, text=True
    )
    assert f'Loading KFP component "{name}"' in done.stdout
    assert "Got executor_input" in done.stdout, done.stderr
