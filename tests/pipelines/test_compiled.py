"""The committed YAML is what the source compiles to."""

from pathlib import Path

import yaml

from pipelines import compile as compiling


def without_version(path: Path) -> list[dict]:
    documents = list(yaml.safe_load_all(path.read_text()))
    for document in documents:
        document.pop("sdkVersion", None)
    return documents


def test_training_yaml_is_up_to_date(tmp_path):
    compiling.compile_training(tmp_path / "new.yaml")
    committed = Path(compiling.__file__).with_name("training.yaml")
    assert without_version(tmp_path / "new.yaml") == without_version(committed), "run python -m pipelines.compile"
