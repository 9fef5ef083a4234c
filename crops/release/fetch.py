"""A release's files on this machine, every one what its checksum says. Shared by gateways and whatever keeps
Triton's models.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crops.release.manifest import Release

CHECKSUMS = "checksums.json"


class BadRelease(Exception):
    """A release that must not be served. `reason` is a label of crops_release_rejected_total."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def fetch(release: Release, state: Path, *, wanted: Callable[[str], bool] = lambda _name: True) -> Path:
    """The folder with the files of `release` that are `wanted`, checked; a BadRelease where one is missing or
    another.

    Files at a path of this machine are checked where they lie, others come to `state`/CHECKSUM, which stays.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(release.files)
        local = "file" in (
            [filesystem.protocol] if isinstance(filesystem.protocol, str) else filesystem.protocol
        )
        folder = Path(path) if local else state / release.checksum
        remote = None if local else (filesystem, path)
        if not _brought(folder, CHECKSUMS, release.checksum, remote):
            raise BadRelease("checksum", f"{CHECKSUMS} is not the one that the manifest names")
        for name, expected in json.loads((folder / CHECKSUMS).read_text(encoding="utf-8")).items():
            inside = (folder / name).resolve().is_relative_to(folder.resolve())
            if wanted(name) and not (inside and _brought(folder, name, expected, remote)):
                raise BadRelease("checksum", f"{name} is not what was registered")
    except (OSError, ValueError, ImportError) as error:
        raise BadRelease("files", f"{release.files}: {error}") from error
    return folder


def forget(state: Path, kept: set[str]) -> None:
    """Removes fetched releases whose checksum is not in `kept`."""
    for folder in state.iterdir() if state.is_dir() else []:
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def _brought(folder: Path, name: str, expected: str, remote: tuple[Any, str] | None) -> bool:
    """Whether `name` is in `folder` with the sha256 `expected`; one of a remote release is brought there,
    whole or not at all.
    """
    target = folder / name
    if remote is None or target.is_file():
        return target.is_file() and _sha256(target) == expected
    filesystem, path = remote
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        filesystem.get_file(f"{path}/{name}", str(partial))
        if _sha256(partial) != expected:
            return False
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
