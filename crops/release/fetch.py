"""A release's files on this machine, each of them checked against its checksum. Gateways use it, and whatever
keeps Triton's models.
"""

import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crops.release import document, layout
from crops.release.manifest import Release


class BadRelease(Exception):
    """A release that must not be served. `reason` is a label of crops_release_rejected_total."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def fetch(release: Release, state: Path, *, wanted: Callable[[str], bool] = lambda _name: True) -> Path:
    """The folder with the files of `release` that are `wanted`, checked; a BadRelease if one of them is
    missing or differs, or if a file lies there that the release does not list.

    Files at a path of this machine are checked where they lie. Of others, what is listed is copied to
    `state`/CHECKSUM, where it stays.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(release.files)
        if document.is_local(filesystem):
            folder = Path(path)
        else:
            folder = state / release.checksum
            _copy(filesystem, path, folder, layout.CHECKSUMS, release.checksum, anew=True)
        if not layout.is_release(folder) or layout.checksum(folder) != release.checksum:
            raise BadRelease("checksum", f"{layout.CHECKSUMS} is not the one that the manifest names")
        # Once more where that is not enough: a disk that lost power may hold half of what was copied before.
        for anew in () if document.is_local(filesystem) else (False, True):
            for name, expected in layout.listed(folder).items():
                if wanted(name):
                    _copy(filesystem, path, folder, name, expected, anew=anew)
            if layout.problem(folder, wanted=wanted) is None:
                return folder
        if problem := layout.problem(folder, wanted=wanted):
            raise BadRelease("checksum", problem)
    except BadRelease:
        raise
    except Exception as error:  # whatever a store answers with: botocore's errors are no OSErrors
        raise BadRelease("files", f"{release.files}: {error}") from error
    return folder


def forget(state: Path, kept: set[str]) -> None:
    """Removes fetched releases whose checksum is not in `kept`."""
    for folder in state.iterdir() if state.is_dir() else []:
        if folder.name not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def _copy(
    filesystem: Any, source: str, folder: Path, name: str, expected: str, *, anew: bool = False
) -> None:
    """Copies one file of a remote release, unless it is here already (anew: and is what it should be);
    nothing is left of it if its sha256 is another or its name leads out of the folder.
    """
    target = folder / name
    if not layout.inside(folder, name):
        return
    if target.is_file() and not (anew and layout.sha256(target) != expected):
        return
    target.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}{layout.PARTIAL}")
    try:
        filesystem.get_file(f"{source}/{name}", str(partial))
        if layout.sha256(partial) == expected:
            os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
