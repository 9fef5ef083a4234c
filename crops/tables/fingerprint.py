"""What a cached result depends on: the log's files and this project's source."""

import hashlib
import inspect
from pathlib import Path

from crops import perspectives
from crops.tables import artifacts

SOURCES = ("crops", "components", "pipelines")


def source(*names: str) -> str:
    """Of the content of this project's Python files `names`, or below folders of these names."""
    root = Path(__file__).resolve().parent.parent.parent
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        path = root / name
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def of(logs: Path) -> str:
    """Of the log's files (path, size, modification time; those that reading finds), of this project's source
    and of that of registered perspectives (content): the root of every cache.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in artifacts.walk(logs):
        stat = path.stat()
        digest.update(f"{path.relative_to(logs)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    root = Path(__file__).resolve().parent.parent.parent
    for path in sorted(
        p for name in SOURCES for p in (root / name).rglob("*") if p.suffix in {".py", ".j2", ".yaml"}
    ):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    for row in perspectives.every():
        if row.mine and (source := inspect.getsourcefile(row.mine)) and Path(source).is_file():
            digest.update(Path(source).read_bytes())
    return digest.hexdigest()
