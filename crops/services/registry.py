"""Releases in the MLflow model registry: one model version holds encoder, tokenizer, index, documents and
fingerprint.

Aliases `champion` and `challenger` move by compare-and-set, and every move leaves an audit tag.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from crops.arms import CHAMPION
from crops.errors import ServiceError

# MLflow reads both when it is imported, which is only below: it reports nothing to anybody, and gives a dead
# server up within seconds.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

NAME = "crops"
CHECKSUMS = "checksums.json"
LOCK_S = 120.0


def uri_of(folder: Path) -> str:
    """The tracking URI of a registry in a folder: SQLite, nothing to install."""
    return f"sqlite:///{Path(folder).resolve()}/mlflow.db"


@contextmanager
def client_of(uri: str) -> Iterator[Any]:
    """An MlflowClient while the block lasts; what MLflow, its database or its lock say against it is a
    ServiceError.
    """
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if (base := _sqlite(uri)) is not None:
        base.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    except (MlflowException, SQLAlchemyError) as error:
        raise ServiceError(f"{uri}: the registry says: {str(error).splitlines()[0][:200]}") from error
    except Timeout as error:
        raise ServiceError(f"{uri}: another process has held the registry for {LOCK_S:.0f} s") from error


def _sqlite(uri: str) -> Path | None:
    return Path(os.path.abspath(uri.removeprefix("sqlite:///"))) if uri.startswith("sqlite:///") else None


def _lock(uri: str) -> FileLock:
    """Guards a registry against a second registrar: for SQLite beside its file, for a server on this machine
    only, because MLflow has no compare-and-set of its own; two machines must not move one alias at the same
    time.
    """
    base = _sqlite(uri)
    digest = hashlib.sha256(uri.encode()).hexdigest()[:16]
    return FileLock(
        f"{base}.lock" if base else Path(tempfile.gettempdir()) / f"crops-registry-{digest}.lock",
        timeout=LOCK_S,
    )


def register(
    uri: str, folder: Path, *, name: str = NAME, metrics: dict[str, float] | None = None, tags: dict[str, str]
) -> str:
    """Uploads `folder` whole and creates the model version; returns its number. Nothing is visible before it
    is whole.

    Where a version with the same tag `checksums` is there already (a run that was killed after it), it is
    that one.
    """
    with client_of(uri) as client, _lock(uri):
        if "checksums" in tags and (known := _version_of(client, tags["checksums"], name)) is not None:
            return known
        run = client.create_run(experiment_of(client, uri, name))
        client.log_artifacts(run.info.run_id, str(folder), "release")
        for key, value in (metrics or {}).items():
            client.log_metric(run.info.run_id, key, value)
        client.set_terminated(run.info.run_id)
        if not client.search_registered_models(f"name='{name}'"):
            client.create_registered_model(name)
        source = f"{run.info.artifact_uri}/release"
        made = client.create_model_version(name, source, run.info.run_id, tags=tags)
        return str(made.version)


def version_of(uri: str, checksum: str, *, name: str = NAME) -> str | None:
    """The version whose checksums.json has this sha256, or None."""
    with client_of(uri) as client:
        return _version_of(client, checksum, name)


def _version_of(client: Any, checksum: str, name: str) -> str | None:
    found = client.search_model_versions(f"name='{name}'")
    return next((str(v.version) for v in found if v.tags.get("checksums") == checksum), None)


def about(uri: str, version: str, alias: str, *, name: str = NAME) -> dict[str, str]:
    """What release.json says of a version, for `deploy` and the report."""
    return {
        "uri": f"models:/{name}/{version}",
        "name": name,
        "version": version,
        "alias": alias,
        "registry": uri,
    }


def experiment_of(client: Any, uri: str, name: str) -> str:
    """The id of the experiment, made where there is none."""
    found = client.get_experiment_by_name(name)
    base = _sqlite(uri)  # a server knows itself where its artifacts belong
    where = base.parent.joinpath("artifacts").as_uri() if base else None
    return str(found.experiment_id if found else client.create_experiment(name, artifact_location=where))


def holder(uri: str, alias: str, *, name: str = NAME) -> str | None:
    """The version that `alias` points to, or None."""
    with client_of(uri) as client:
        found = client.search_registered_models(f"name='{name}'")
        version = found[0].aliases.get(alias) if found else None
        return None if version is None else str(version)


def move(uri: str, alias: str, version: str, *, expected: str | None, reason: str, name: str = NAME) -> None:
    """Points `alias` to `version` if it still points to `expected` (None: to nothing); a ServiceError
    otherwise.

    Nothing happens where it points to `version` already. The audit tag `alias.<alias>` of the version says
    where the alias came from and why it moved.
    """
    with client_of(uri) as client, _lock(uri):
        found = holder(uri, alias, name=name)
        if found == version:
            return
        if found != expected:
            raise ServiceError(
                f"{uri}: alias {alias} points to version {found}, expected {expected}: somebody else moved it"
            )
        client.set_model_version_tag(name, version, f"alias.{alias}", f"from {found or 'nothing'}: {reason}")
        client.set_registered_model_alias(name, alias, version)


def download(uri: str, version: str, out: Path, *, name: str = NAME) -> Path:
    """Copies the release's files into `out`; a ServiceError where one is not what was registered."""
    import mlflow

    with client_of(uri) as client, tempfile.TemporaryDirectory(prefix="crops-release-") as place:
        source = client.get_model_version_download_uri(name, version)
        tag = client.get_model_version(name, version).tags.get("checksums")
        found = Path(
            mlflow.artifacts.download_artifacts(artifact_uri=source, dst_path=place, tracking_uri=uri)
        )
        if (wrong := damaged(found, tag)) is not None:
            raise ServiceError(f"{uri}: {name} version {version}: {wrong} is not what was registered")
        shutil.copytree(found, out, dirs_exist_ok=True)
    return out


def damaged(folder: Path, checksum: str | None) -> str | None:
    """The first file of a release that differs from its checksums.json (or that file itself, from
    `checksum`), or None.
    """
    if checksum is not None and _sha256(folder / CHECKSUMS) != checksum:
        return CHECKSUMS
    listed = (
        json.loads((folder / CHECKSUMS).read_text(encoding="utf-8")) if (folder / CHECKSUMS).is_file() else {}
    )
    return next(
        (name for name, expected in sorted(listed.items()) if _sha256(folder / name) != expected), None
    )


def _sha256(path: Path) -> str:
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def champion(uri: str, out: Path, *, name: str = NAME) -> bool:
    """Copies the champion's files into `out`; False where the registry has none."""
    version = holder(uri, CHAMPION, name=name)
    if version is not None:
        download(uri, version, out, name=name)
    return version is not None
