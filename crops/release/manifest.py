"""The release manifest: which release each arm serves, as JSON at any fsspec URL, changed by compare-and-set
alone.

    {"generation": 7, "arms": {"control": {"uri", "model", "files", "checksum"}, "treatment": {...}}}

`control` is the champion, which also serves everybody outside an experiment; `treatment` is the challenger,
absent without one. Generation n + 1 is claimed by creating `URL.n+1.HASH`, HASH being that of generation n,
which only one writer can do; then URL itself is replaced. A reader follows the claims, so a writer that was
killed between the two steps loses nothing and blocks nobody; a claim of an earlier life of the manifest
follows another predecessor, and is nobody's successor.
"""

import glob
import hashlib
import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from crops.arms import ARMS, CONTROL, TREATMENT
from crops.errors import InputError, ServiceError
from crops.release import document
from crops.release.document import Conflict

KEPT_CLAIMS = 64
# What names a folder on the reader's machine must not lead out of it.
PATTERNS = {"model": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*"), "checksum": re.compile(r"[0-9a-f]{64}")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One registered release as it is served.

    uri       its name in the registry, models:/crops/2
    model     its query encoder's name at Triton, also a folder's: no path leads out of it
    files     fsspec URL or path of the folder with its files
    checksum  sha256 of its checksums.json, which lists all other files
    """

    uri: str
    model: str
    files: str
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Generation 0 is the manifest that was never written: no arm has a release."""

    generation: int = 0
    arms: Mapping[str, Release] = field(default_factory=dict)

    def with_arm(self, arm: str, release: Release | None) -> "Manifest":
        """The next generation with `release` in `arm` (None: the arm is gone)."""
        if arm not in ARMS:
            raise ValueError(f"arm is {arm!r}, expected one of {ARMS}")
        arms = {name: entry for name, entry in self.arms.items() if name != arm} | (
            {arm: release} if release else {}
        )
        return Manifest(generation=self.generation + 1, arms=arms)

    def to_json(self) -> str:
        """Sorted and closed by a line feed: the same manifest gives the same bytes."""
        value = {
            "generation": self.generation,
            "arms": {name: asdict(entry) for name, entry in self.arms.items()},
        }
        return json.dumps(value, indent=2, sort_keys=True) + "\n"


def parse(text: str, *, source: str = "manifest") -> Manifest:
    """The manifest in `text`; an InputError that names `source` where it is anything else."""
    try:
        raw = json.loads(text)
        generation, arms = raw["generation"], raw["arms"]
        read = {name: _release(entry) for name, entry in arms.items()}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(source, f"not a release manifest: {type(error).__name__} {error}") from error
    if not isinstance(generation, int) or isinstance(generation, bool) or generation < 0:
        raise InputError(source, f"generation is {generation!r}, expected a whole number >= 0")
    if unknown := sorted(read.keys() - set(ARMS)):
        raise InputError(source, f"arm {unknown[0]!r}, expected {' or '.join(ARMS)}")
    if TREATMENT in read and CONTROL not in read:
        raise InputError(source, "treatment has a release but control has none: an experiment needs both")
    return Manifest(generation=generation, arms=read)


def _release(raw: dict[str, Any]) -> Release:
    names = {f.name for f in fields(Release)}
    if raw.keys() != names or not all(isinstance(v, str) and v for v in raw.values()):
        raise ValueError(f"a release needs the texts {sorted(names)}, found {sorted(raw)}")
    for name, pattern in PATTERNS.items():
        if not pattern.fullmatch(raw[name]):
            raise ValueError(f"{name} is {raw[name]!r}, expected {pattern.pattern}")
    return Release(**raw)


def read(url: str) -> Manifest:
    """The newest manifest at `url`; generation 0 where there is none.

    One that is put back from a backup counts once the claims beside it are gone: until then it may as well
    come from a writer that was slower than its successors.
    """
    filesystem, path = document.opened(url)
    newest = _at(filesystem, path, url) or Manifest()
    while (claimed := _at(filesystem, _claim(path, newest), url)) is not None:
        if claimed.generation != newest.generation + 1:
            raise InputError(_claim(path, newest), f"generation is {claimed.generation}, not as it is named")
        newest = claimed
    return newest


def write(url: str, manifest: Manifest) -> None:
    """Makes `manifest` the newest if its generation follows the newest one; a Conflict otherwise.

    What no reader could read is an InputError, and nothing is written.
    """
    parse(manifest.to_json(), source=url)
    newest = read(url)
    if manifest.generation != newest.generation + 1:
        raise Conflict(
            f"{url}: generation is {newest.generation}, expected {manifest.generation - 1}: another writer "
            "changed it"
        )
    filesystem, path = document.opened(url)
    text = manifest.to_json().encode()
    try:
        _create(filesystem, _claim(path, newest), text)
        document.replace(filesystem, path, text)
        # A slower writer may yet put an older generation in place, from where readers follow the claims: keep
        # many of them.
        for old in filesystem.glob(f"{glob.escape(path)}.{manifest.generation - KEPT_CLAIMS}.*"):
            filesystem.rm_file(old)
    except FileExistsError as error:
        raise Conflict(f"{url}: generation {manifest.generation} was taken by another writer") from error
    except OSError:
        raise
    except Exception as error:
        raise ServiceError(f"{url}: cannot be written: {error}") from error


def _claim(path: str, before: Manifest) -> str:
    """Where the successor of `before` is claimed."""
    digest = hashlib.sha256(before.to_json().encode()).hexdigest()
    return f"{path}.{before.generation + 1}.{digest[:16]}"


def _at(filesystem: Any, path: str, url: str) -> Manifest | None:
    try:
        content: bytes = filesystem.cat_file(path)
    except FileNotFoundError:
        return None
    except Exception as error:  # whatever a store answers with: botocore's errors are no OSErrors
        raise ServiceError(f"{url}: cannot be read: {error}") from error
    return parse(content.decode("utf-8", errors="replace"), source=path)


def _create(filesystem: Any, path: str, text: bytes) -> None:
    """All of `text` under a new name, or a FileExistsError: on a disk by a hard link, in a bucket by a
    conditional put.
    """
    if not document.is_local(filesystem):
        filesystem.pipe_file(path, text, mode="create")
        return
    partial = Path(f"{path}.{uuid.uuid4().hex[:8]}.new")
    try:
        document.durable(partial, text)
        os.link(partial, path)
    finally:
        partial.unlink(missing_ok=True)
