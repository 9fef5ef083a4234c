"""The committed YAML is what the source compiles to."""

from pathlib import Path

import pytest
import yaml

from pipelines import compile as compiling


def without_version(path: Path) -> list[dict]:
    documents = list(yaml.safe_load_all(path.read_text()))
    for document in documents:
        document.pop("sdkVersion", None)
    return documents


@pytest.mark.parametrize("name", compiling.NAMES)
def test_the_yaml_is_up_to_date(name, tmp_path):
    compiling.write(name, tmp_path / "new.yaml")
    committed = Path(compiling.__file__).with_name(f"{name}.yaml")
    assert without_version(tmp_path / "new.yaml") == without_version(committed), (
        "run python -m pipelines.compile"
    )


def test_the_truth_goes_to_what_measures_and_to_nothing_else():
    """`beside` holds truth/ of a simulated log: what mines, trains or exports must never get it."""
    (document, *_) = without_version(Path(compiling.__file__).with_name("training.yaml"))
    tasks = document["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    readers = {
        name
        for name, task in tasks.items()
        for artifact in task.get("inputs", {}).get("artifacts", {}).values()
        if artifact.get("taskOutputArtifact", {}).get("outputArtifactKey") == "beside"
    }
    assert readers == {"discriminate", "label", "evaluate", "report"}
