"""How a registry is named to a person."""

import pytest

from crops.errors import ServiceError
from crops.services.registry import Registry, client_of, near, uri_of


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


@pytest.mark.parametrize("place", ["s3://bucket/releases", "file://{tmp}/file/releases"])
def test_a_store_that_takes_nothing_is_told_in_a_line(tmp_path, monkeypatch, place):
    """A bucket that nobody answers for, a folder that cannot be written: neither is an error of MLflow's."""
    nobody = {"ENDPOINT_URL": "http://127.0.0.1:9", "ACCESS_KEY_ID": "nobody", "SECRET_ACCESS_KEY": "nothing"}
    for name, value in {**nobody, "MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", "http://127.0.0.1:9")
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "release").mkdir()
    (tmp_path / "release/a").write_text("a")
    models = Registry(f"sqlite:///{tmp_path}/mlflow.db", "crops")
    with client_of(models.uri) as client:
        client.create_experiment("crops", artifact_location=place.format(tmp=tmp_path))
    with pytest.raises(ServiceError, match="the registry's store says"):
        models.register(tmp_path / "release", tags={"checksums": "a"})
    assert models.version_of("a") is None
