"""What was computed of one day of a log, across runs: a folder, here or in an object store, in which every
file has its content's name and an entry lists its files. Nothing there is changed, so that any number of runs
may share it, and whatever is removed or damaged is computed again.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from crops.release import document, layout
from crops.tables import artifacts


def key(files: Iterable[Path], root: Path, **more: Any) -> str:
    """Of the content of `files`, their names below `root`, and whatever else the entry depends on (by its
    repr).
    """
    digest = hashlib.blake2b(repr(sorted(more.items())).encode(), digest_size=16)
    for path in sorted(files):
        digest.update(f"{path.relative_to(root)}\0{layout.sha256(path)}\n".encode())
    return digest.hexdigest()


def take(store: str, name: str, folder: Path) -> dict[str, Any] | None:
    """What `put` was told of the entry `name`, its files now below `folder`; None where the store has it not,
    or not whole.
    """
    filesystem, root = document.opened(store)
    try:
        entry = json.loads(filesystem.cat_file(f"{root}/{name}.json"))
        for below, content in entry["files"].items():
            path = folder / below
            path.parent.mkdir(parents=True, exist_ok=True)
            filesystem.get_file(f"{root}/{content}.parquet", str(path))
            if layout.sha256(path) != content:
                return None
        facts: dict[str, Any] = entry["facts"]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None  # never put, removed meanwhile, or not what `put` writes
    return facts


def put(store: str, name: str, facts: Mapping[str, Any], folder: Path) -> None:
    """Keeps `facts` (JSON) and every Parquet file below `folder` as the entry `name`, which is there when all
    of it is.
    """
    filesystem, root = document.opened(store)
    files = {str(path.relative_to(folder)): path for path in artifacts.walk(folder)}
    contents = {below: layout.sha256(path) for below, path in files.items()}
    filesystem.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
    for below, path in files.items():
        document.replace(filesystem, f"{root}/{contents[below]}.parquet", path.read_bytes())
    entry = json.dumps({"facts": facts, "files": contents}, ensure_ascii=False, allow_nan=False)
    document.replace(filesystem, f"{root}/{name}.json", entry.encode())
