"""How a registry is named to a person."""

import pytest

from crops.services.registry import near, uri_of


def test_a_database_below_the_folder_is_named_from_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert uri_of() == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert near(uri_of()) == "sqlite:///mlruns/mlflow.db"
    assert near(uri_of(), tmp_path / "mlruns") == "sqlite:///mlflow.db"


@pytest.mark.parametrize(
    "uri", ["http://mlflow:5000", "sqlite:////elsewhere/mlflow.db", "sqlite:///runs/mlflow.db"]
)
def test_any_other_is_named_as_it_is(uri, tmp_path):
    assert near(uri, tmp_path) == uri
