"""Releases in the MLflow model registry: one model version holds encoder, tokenizer, index, documents and fingerprint.

Aliases `champion` and `challenger` move by compare-and-set, and every move leaves an audit tag.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from crops.errors import ServiceError

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
NAME = "crops"
ALIASES = ("champion", "challenger")


def uri_of(folder: Path) -> str:
    """The tracking URI of a registry in a folder: SQLite, nothing to install."""
    return f"sqlite:///{Path(folder).resolve()}/mlflow.db"


@contextmanager
def _client(uri: str) -> Iterator[Any]:
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow
    from mlflow.exceptions import MlflowException

    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    try:
        yield mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    except MlflowException as error:
        raise ServiceError(f"{uri}: the registry says: {str(error).splitlines()[0][:200]}") from error


def _lock(uri: str) -> FileLock:
    """Local registries are guarded by a file lock: two registrars must not lose an update. A server orders them itself."""
    local = uri.removeprefix("sqlite:///") if uri.startswith("sqlite:///") else None
    return FileLock(f"{local}.lock" if local else Path(tempfile.gettempdir()) / "crops-registry.lock", timeout=120)


def register(uri: str, folder: Path, *, name: str = NAME, metrics: dict[str, float] | None = None, tags: dict[str, str]) -> str:
    """Uploads `folder` whole and creates the model version; returns its number. Nothing is visible before it is whole."""
    from mlflow.exceptions import MlflowException

    with _client(uri) as client, _lock(uri):
        experiment = client.get_experiment_by_name(name)
        where = f"{Path(uri.removeprefix('sqlite:///')).parent}/artifacts" if uri.startswith("sqlite:///") else None
        number = experiment.experiment_id if experiment else client.create_experiment(name, artifact_location=where)
        run = client.create_run(number)
        client.log_artifacts(run.info.run_id, str(folder), "release")
        for key, value in (metrics or {}).items():
            client.log_metric(run.info.run_id, key, value)
        client.set_terminated(run.info.run_id)
        try:
            client.get_registered_model(name)
        except MlflowException:
            client.create_registered_model(name)
        source = f"{run.info.artifact_uri}/release"
        made = client.create_model_version(name, source, run.info.run_id, tags=tags)
        return str(made.version)


def holder(uri: str, alias: str, *, name: str = NAME) -> str | None:
    """The version that `alias` points to, or None."""
    from mlflow.exceptions import MlflowException

    with _client(uri) as client:
        try:
            return str(client.get_model_version_by_alias(name, alias).version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def move(uri: str, alias: str, version: str, *, expected: str | None, reason: str, name: str = NAME) -> None:
    """Points `alias` to `version` if it still points to `expected` (None: to nothing); a ServiceError otherwise.

    The audit tag `alias.<alias>` of the version says where the alias came from and why it moved.
    """
    with _lock(uri):
        found = holder(uri, alias, name=name)
        if found != expected:
            raise ServiceError(f"{uri}: alias {alias} points to version {found}, expected {expected}: somebody else moved it")
        with _client(uri) as client:
            client.set_model_version_tag(name, version, f"alias.{alias}", f"from {found or 'nothing'}: {reason}")
            client.set_registered_model_alias(name, alias, version)


def download(uri: str, version: str, out: Path, *, name: str = NAME) -> Path:
    """Copies the release's files into `out`."""
    import mlflow

    with _client(uri) as client:
        source = client.get_model_version_download_uri(name, version)
        found = mlflow.artifacts.download_artifacts(artifact_uri=source, tracking_uri=uri)
    shutil.copytree(found, out, dirs_exist_ok=True)
    return out


def champion(uri: str | None, *, name: str = NAME) -> Path | None:
    """A local folder with the champion's files, or None where the registry has none."""
    version = holder(uri, "champion", name=name) if uri else None
    if uri is None or version is None:
        return None
    return download(uri, version, Path(tempfile.mkdtemp(prefix="crops-champion-")), name=name)
