"""What takes long to make and is only read or copied afterwards: made once per run of pytest, by the worker
that needs it first.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from crops.services.registry import Registry, uri_of

# The environment variable that names the run's folder; tests/conftest.py sets it for all workers.
FOLDER = "CROPS_TESTS_SHARED"


def made(name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` as `make` filled it. A test that writes into it takes a copy."""
    folder = Path(os.environ[FOLDER]) / name
    done = folder.with_name(f"{name}.done")
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def new_registry(folder: Path) -> str:
    """The URI of an empty MLflow registry in `folder`. Its tables are a copy: MLflow makes them in some forty
    migrations, each of which waits for the disk.
    """
    tables = made("registry", lambda empty: Registry(uri_of(empty), "crops").holder("champion"))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(tables / "mlflow.db", folder / "mlflow.db")
    return uri_of(folder)
