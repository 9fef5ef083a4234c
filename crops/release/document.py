"""One small document at a path or an s3:// URL that several processes change: by compare-and-set, so that
whoever decided on an old one is told so and overwrites nothing.

On a disk a lock beside it is held from the comparison to the rename; in a bucket the put is conditional
(If-Match on the ETag that was read, If-None-Match where there was none). Readers see the old document or the
new one, whole.
"""

import fcntl
import hashlib
import os
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crops.errors import ConfigError, ServiceError

READS = 5  # of a document that changes while it is read


class Conflict(ServiceError):
    """Another writer changed it since it was read: read it again and decide anew."""


@dataclass(frozen=True, slots=True)
class Held:
    """A document as it was read. content None: there was none. version: what a write is compared with."""

    content: bytes | None = None
    version: str = ""


def read(url: str) -> Held:
    """What is at `url`; a ServiceError where the store does not answer."""
    filesystem, path = conditional(url)
    if is_local(filesystem):
        return _on_disk(Path(path), url)
    try:
        for _ in range(READS):
            tag = _tag(filesystem, path)
            try:
                content = filesystem.cat_file(path) if tag else None
            except FileNotFoundError:
                continue
            if tag == _tag(filesystem, path):
                return Held(content, tag)
    except Exception as error:  # whatever a store answers with
        raise _away(url, "read", error) from error
    raise ServiceError(f"{url}: it changed at each of {READS} reads")


def write(url: str, content: bytes, before: Held) -> Held:
    """Puts `content` in the place of `before`, and returns what is there now; a Conflict where something else
    is.
    """
    filesystem, path = conditional(url)
    if is_local(filesystem):
        return _swap(Path(path), url, content, before)
    wanted = {"IfMatch": before.version} if before.version else {"IfNoneMatch": "*"}
    try:
        filesystem.pipe_file(path, content, **wanted)
    except Exception as error:
        now = read(url)
        if now.content == content:  # a put that was answered too late and was sent again
            return now
        if now.version != before.version:
            raise Conflict(f"{url}: another writer changed it since it was read") from error
        raise _away(url, "written", error) from error
    return Held(content, _tag(filesystem, path))


def put(url: str, content: bytes) -> None:
    """Puts `content` there, whatever was there."""
    filesystem, path = conditional(url)
    try:
        replace(filesystem, path, content)
    except OSError:
        raise
    except Exception as error:
        raise _away(url, "written", error) from error


def remove(url: str) -> None:
    """Removes it; where there is none, nothing happens."""
    filesystem, path = conditional(url)
    try:
        with suppress(FileNotFoundError):
            filesystem.rm_file(path)
    except Exception as error:
        raise _away(url, "removed", error) from error


def conditional(url: str) -> tuple[Any, str]:
    """The filesystem of `url` and the path in it; a ConfigError where it knows no compare-and-set."""
    filesystem, path = opened(url)
    if not is_local(filesystem) and "s3" not in _protocols(filesystem):
        raise ConfigError(f"{url}: expected a path or s3://, whose writes can depend on what is there")
    return filesystem, path


def opened(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of `url`, which sees what others did meanwhile, and the path in it."""
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ServiceError(f"{url}: {error}") from error
    if not is_local(filesystem):
        filesystem.invalidate_cache()
    return filesystem, str(path)


def is_local(filesystem: Any) -> bool:
    """Whether an fsspec filesystem is this machine's."""
    return "file" in _protocols(filesystem)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    return (filesystem.protocol,) if isinstance(filesystem.protocol, str) else tuple(filesystem.protocol)


def replace(filesystem: Any, path: str, content: bytes) -> None:
    """All of `content` at `path`, or what was there before."""
    if not is_local(filesystem):
        filesystem.pipe_file(path, content)
        return
    partial = Path(f"{path}.{uuid.uuid4().hex[:8]}.new")
    try:
        durable(partial, content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def durable(path: Path, content: bytes) -> None:
    """Writes a new file, and its folder where there is none; returns when the disk has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _on_disk(path: Path, url: str) -> Held:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Held()
    except OSError as error:
        raise _away(url, "read", error) from error
    return Held(content, hashlib.blake2b(content, digest_size=16).hexdigest())


def _swap(path: Path, url: str, content: bytes, before: Held) -> Held:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if _on_disk(path, url).version != before.version:
            raise Conflict(f"{url}: another writer changed it since it was read")
        replace(opened(url)[0], str(path), content)
        return _on_disk(path, url)


def _tag(filesystem: Any, path: str) -> str:
    """The ETag of an object; empty where there is none."""
    try:
        return str(filesystem.info(path, refresh=True)["ETag"])
    except FileNotFoundError:
        return ""


def _away(url: str, done: str, error: Exception) -> ServiceError:
    why = " ".join(str(error).split())[:300] or type(error).__name__
    return ServiceError(f"{url}: cannot be {done}: {why}")
