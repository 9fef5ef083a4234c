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
