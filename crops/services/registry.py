"""Releases in the MLflow model registry: one model version holds encoder, tokenizer, index, documents and
fingerprint.

The aliases `champion` and `challenger` move by compare-and-set, and every move leaves an audit tag.
"""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from crops.errors import ServiceError
from crops.release import layout

# MLflow reads these when it is imported, which happens only below: it sends no telemetry, gives up on a
# server that does not answer within seconds, and draws no bars into a log.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
if not sys.stderr.isatty():
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

LOCK_S = 120.0
SQLITE = "sqlite:///"


def uri_of(folder: Path = Path("mlruns")) -> str:
    """The tracking URI of a registry in a folder: SQLite, nothing to install."""
    return f"{SQLITE}{folder.resolve()}/mlflow.db"


def near(uri: str, folder: Path | None = None) -> str:
    """The URI as one types it in `folder` (default: the working folder): of a database below it, the relative
    one. A page or a command that somebody passes on then shows no path of this machine.
    """
    path = Path(uri.removeprefix(SQLITE))
    here = folder or Path.cwd()
    if uri.startswith(SQLITE) and path.is_absolute() and path.is_relative_to(here):
        return f"{SQLITE}{path.relative_to(here)}"
    return uri


def existing(uri: str) -> str:
    """`uri`, for who only reads. Raises ServiceError where it names a database that nobody has made: MLflow
    would make an empty one, in which there is nothing to be found.
    """
    database = _sqlite(uri)
    if database is not None and not database.exists():
        raise ServiceError(f"{near(uri)}: no such registry; `crops run` makes it, --registry names another")
    return uri


@contextmanager
def client_of(uri: str) -> Iterator[Any]:
    """An MlflowClient for the length of the block; errors of MLflow, its database or its lock become a
    ServiceError.
    """
    import logging

    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    if (database := _sqlite(uri)) is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    except (MlflowException, SQLAlchemyError) as error:
        raise ServiceError(f"{uri}: the registry says: {str(error).splitlines()[0][:200]}") from error
    except Timeout as error:
        raise ServiceError(f"{uri}: another process has held the registry for {LOCK_S:.0f} s") from error


@contextmanager
def _store(uri: str) -> Iterator[None]:
    """What the store of the artifacts at `uri` answers with becomes a ServiceError: botocore's errors, say,
    are neither MLflow's nor OSErrors.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException:
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:300]
        raise ServiceError(f"{uri}: the registry's store says: {type(error).__name__} {why}") from error


def _sqlite(uri: str) -> Path | None:
    return Path(os.path.abspath(uri.removeprefix(SQLITE))) if uri.startswith(SQLITE) else None


def _checksum(client: Any, name: str, version: str) -> str | None:
    """The checksum that a version was registered with."""
    checksum: str | None = client.get_model_version(name, version).tags.get("checksums")
    return checksum


def experiment_of(client: Any, uri: str, name: str) -> str:
    """The id of the experiment `name`, which is created if it does not exist."""
    if experiment := client.get_experiment_by_name(name):
        return str(experiment.experiment_id)
    database = _sqlite(uri)  # a server decides for itself where its artifacts belong
    location = database.parent.joinpath("artifacts").as_uri() if database else None
    return str(client.create_experiment(name, artifact_location=location))


@dataclass(frozen=True, slots=True)
class Registry:
    """The versions of one registered model. `uri`: MLflow's tracking URI; `name`: the model's, from the
    setting `register.name`.
    """

    uri: str
    name: str

    def release(self, version: str) -> str:
        """The URI of one version."""
        return f"models:/{self.name}/{version}"

    def register(self, folder: Path, *, tags: dict[str, str], metrics: dict[str, float] | None = None) -> str:
        """Uploads all of `folder`, then creates the model version and returns its number. Nothing is visible
        before it is whole.

        If a version with the same tag `checksums` exists already (its run was killed afterwards), its number
        is returned.
        """
        with client_of(self.uri) as client, self._lock():
            if "checksums" in tags and (registered := self._with(client, tags["checksums"])) is not None:
                return registered
            run = client.create_run(experiment_of(client, self.uri, self.name))
            with _store(run.info.artifact_uri):
                client.log_artifacts(run.info.run_id, str(folder), "release")
            for key, value in (metrics or {}).items():
                client.log_metric(run.info.run_id, key, value)
            client.set_terminated(run.info.run_id)
            if not client.search_registered_models(f"name='{self.name}'"):
                client.create_registered_model(self.name)
            source = f"{run.info.artifact_uri}/release"
            return str(client.create_model_version(self.name, source, run.info.run_id, tags=tags).version)

    def version_of(self, checksum: str) -> str | None:
        """The version whose checksums.json has this sha256, or None."""
        with client_of(self.uri) as client:
            return self._with(client, checksum)

    def _with(self, client: Any, checksum: str) -> str | None:
        versions = client.search_model_versions(f"name='{self.name}'")
        return next((str(v.version) for v in versions if v.tags.get("checksums") == checksum), None)

    def entry(self, version: str, alias: str) -> dict[str, str]:
        """What release.json says of a version, for `deploy` and the report."""
        return {
            "uri": self.release(version),
            "name": self.name,
            "version": version,
            "alias": alias,
            "registry": self.uri,
        }

    def holder(self, alias: str) -> str | None:
        """The version that `alias` points to, or None."""
        with client_of(self.uri) as client:
            models = client.search_registered_models(f"name='{self.name}'")
            version = models[0].aliases.get(alias) if models else None
            return None if version is None else str(version)

    def move(self, alias: str, version: str, *, expected: str | None, reason: str) -> None:
        """Points `alias` to `version` if it still points to `expected` (None: to nothing); a ServiceError
        otherwise.

        If it points to `version` already, nothing happens. The audit tag `alias.<alias>` of the version says
        where the alias came from and why it moved.
        """
        with client_of(self.uri) as client, self._lock():
            holder = self.holder(alias)
            if holder == version:
                return
            if holder != expected:
                raise ServiceError(
                    f"{self.uri}: alias {alias} points to version {holder}, expected {expected}: "
                    "somebody else moved it"
                )
            tag = f"from {holder or 'nothing'}: {reason}"
            client.set_model_version_tag(self.name, version, f"alias.{alias}", tag)
            client.set_registered_model_alias(self.name, alias, version)

    def download(self, version: str, out: Path) -> Path:
        """Copies the release's files into `out`; a ServiceError if one of them is not what was registered."""
        import mlflow

        with client_of(self.uri) as client, tempfile.TemporaryDirectory(prefix="crops-release-") as scratch:
            source = client.get_model_version_download_uri(self.name, version)
            checksum = _checksum(client, self.name, version)
            with _store(source):
                release = mlflow.artifacts.download_artifacts(
                    artifact_uri=source, dst_path=scratch, tracking_uri=self.uri
                )
            if (problem := layout.problem(Path(release), checksum)) is not None:
                raise ServiceError(f"{self.uri}: {self.name} version {version}: {problem}")
            shutil.copytree(release, out, dirs_exist_ok=True)
        return out

    def place(self, version: str, folder: Path) -> Path:
        """Downloads the release into `folder` unless it lies there already, and returns where it lies; it
        appears when it is whole.

        Where another release lies there it goes beside it, under a name with its checksum: versions count
        from 1 in every registry, also in one that was made anew, and what is served is never replaced.
        """
        # Not at the top: pyarrow's data sets load pandas, which `crops --help` does not need.
        from crops.tables import artifacts

        with client_of(self.uri) as client:
            wanted = _checksum(client, self.name, version)
        if wanted and layout.is_release(folder) and layout.checksum(folder) != wanted:
            folder = layout.apart(folder, wanted)
        if not layout.is_release(folder):
            with artifacts.replacing(folder, private=True) as partial:
                self.download(version, partial)
        return folder

    def _lock(self) -> FileLock:
        """Keeps a second registrar out, because MLflow has no compare-and-set of its own. The lock of an
        SQLite registry lies beside its file. A server's is of this machine only: two machines must not move
        the same alias at the same time.
        """
        database = _sqlite(self.uri)
        digest = hashlib.sha256(self.uri.encode()).hexdigest()[:16]
        return FileLock(
            f"{database}.lock" if database else Path(tempfile.gettempdir()) / f"crops-registry-{digest}.lock",
            timeout=LOCK_S,
        )
