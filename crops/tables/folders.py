"""A folder appears under its name only when it is whole, and replaces nothing but what we wrote ourselves.

What `replacing` has written carries a mark with the names and sizes of its files: a folder that holds
anything else is somebody's, and stays as it is.
"""

import errno
import fcntl
import json
import os
import shutil
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crops.errors import CropsError, InputError, StorageError

MARK = ".crops.json"
# A pipeline's task leaves it beside what the stage wrote.
TASK = "stage.json"
# What a new file system has of its own.
OF_THE_DISK = ("lost+found",)
FULL = (errno.ENOSPC, errno.EDQUOT)
# No folder can be made there: the name is at fault, or a file system that makes none, as /proc, says ENOENT.
IMPOSSIBLE = (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENOENT)
# File systems that know no locks (some network ones): there, two runs at once are not found.
LOCKLESS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

_held: set[Path] = set()


@contextmanager
def replacing(out: Path, *, inputs: Iterable[Path] = (), private: bool = False) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its name at the end; on an error or a kill `out` stays as it
    was.

    Refuses (InputError), before anything is done, an `out` that `refuse` refuses and one that another run is
    writing. A link is followed; a mount point and the working folder get new content and stay what they are.
    private: a folder inside a state or cache of ours, named by us: nobody's files can lie there, and it gets
    no mark.
    """
    out = Path(os.path.realpath(out))
    if not private:
        refuse(out, inputs)
    with held(out), in_words(out):
        home = _home(out)
        _sweep(out, home)
        if not private:
            refuse(out)
        partial = home / f".{out.name}.partial-{uuid.uuid4().hex[:8]}"
        try:
            partial.mkdir()
            yield partial
            if not private:
                _mark(partial)
            _sync(partial)
            (_pour if home == out else _swap)(partial, out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def refuse(out: Path, inputs: Iterable[Path] = ()) -> None:
    """An InputError where `out` is, contains or lies inside one of `inputs`, is no folder, or holds what
    `replacing` has not written.
    """
    apart(out, inputs)
    with in_words(out):
        if out.exists() and not out.is_dir():
            raise InputError(out, "is a file, expected the name of a folder")
        sizes = _sizes(out) if out.is_dir() else {}
    if not sizes:
        return
    marked = _marked(out)
    others = [name for name, size in sorted(sizes.items()) if marked.get(name) != size and name != TASK]
    if others:
        some = ", ".join(others[:3]) + (f" and {len(others) - 3:,} more" if len(others) > 3 else "")
        raise InputError(
            out, f"holds {some}, which crops has not written: name another folder, or empty this one"
        )


def apart(out: Path, inputs: Iterable[Path]) -> None:
    """An InputError where `out` is, contains or lies inside one of `inputs`."""
    real = Path(os.path.realpath(out))
    for path in inputs:
        source = Path(os.path.realpath(path))
        advice = (
            "is"
            if real == source
            else "contains"
            if source.is_relative_to(real)
            else "lies inside"
            if real.is_relative_to(source)
            else None
        )
        if advice:
            raise InputError(out, f"{advice} {path}, which is read: name another folder for what is written")


def forget_unfinished(root: Path) -> None:
    """Removes what killed writers left half-written anywhere below `root`, where nobody may be writing now:
    `replacing` itself tidies up only after those that wrote to the same name.
    """
    for partial in sorted(Path(root).rglob(".*.partial-*")):
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def held(out: Path, *, wait: bool = False) -> Iterator[None]:
    """Keeps other processes out of `out` while the block runs; an InputError if one is there already, or
    with `wait` not before it has left.

    A process that dies gives it back, however it dies. Asked for again inside of the block, it is ours.
    """
    out = Path(os.path.realpath(out))
    if out in _held:
        yield
        return
    with in_words(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        path = _home(out) / f".{out.name}.lock"
        descriptor = _locked(path, out, wait=wait)
    _held.add(out)
    try:
        yield
    finally:
        _held.discard(out)
        with suppress(OSError):
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(path: Path, out: Path, *, wait: bool) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise InputError(
                out, f"another run ({holder}) is writing there: wait for its end, or name another folder"
            ) from None
        except OSError as error:
            if error.errno not in LOCKLESS:
                os.close(descriptor)
                raise
        # Whoever held it until now may have removed the file between the two calls.
        with suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                os.truncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return descriptor
        os.close(descriptor)


def _home(out: Path) -> Path:
    """Where the temporary folder lies: beside `out`, or inside where `out` itself must stay."""
    if not out.is_dir():
        return out.parent
    stays = os.path.ismount(out) or out == Path.cwd() or not os.access(out.parent, os.W_OK)
    return out if stays else out.parent


def _own(out: Path, name: str) -> bool:
    """Whether the entry of `out` is bookkeeping of a run that writes inside of it."""
    return name.startswith(f".{out.name}.") or name in OF_THE_DISK


def _sizes(out: Path) -> dict[str, int]:
    """Bytes of every file and link below `out`, by its path there; the mark is none of them."""
    sizes = {}
    for folder, below, names in os.walk(out):
        if Path(folder) == out:
            below[:] = [name for name in below if not _own(out, name)]
            names = [name for name in names if name != MARK and not _own(out, name)]
        links = [name for name in below if Path(folder, name).is_symlink()]
        for path in (Path(folder, name) for name in (*names, *links)):
            sizes[path.relative_to(out).as_posix()] = path.lstat().st_size
    return sizes


def _mark(folder: Path) -> None:
    text = json.dumps({"written_by": "crops", "bytes": _sizes(folder)}, ensure_ascii=False, sort_keys=True)
    (folder / MARK).write_text(text + "\n", encoding="utf-8")


def _marked(out: Path) -> dict[str, int]:
    """The sizes that the mark names; none where there is no mark of ours."""
    try:
        read = json.loads((out / MARK).read_text(encoding="utf-8"))
        return dict(read["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _sweep(out: Path, home: Path) -> None:
    """Removes what a killed run left, and ends the exchange that it was killed in: with the new content where
    that was complete (only inside of `out`), else with the old.
    """
    for new in out.glob(f".{out.name}.new-*"):
        _move(new, out)
        new.rmdir()
        for old in out.glob(f".{out.name}.old-*"):
            shutil.rmtree(old)
    for old in home.glob(f".{out.name}.old-*"):
        if home == out:
            _move(old, out)
            old.rmdir()
        elif out.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(out)
    for partial in home.glob(f".{out.name}.partial-*"):
        shutil.rmtree(partial, ignore_errors=True)


def _swap(partial: Path, out: Path) -> None:
    old = out.with_name(f".{out.name}.old-{uuid.uuid4().hex[:8]}")
    if out.exists():
        out.rename(old)
    partial.rename(out)
    _sync_folder(out.parent)
    shutil.rmtree(old, ignore_errors=True)


def _pour(partial: Path, out: Path) -> None:
    """Exchanges the content of `out`, which stays; `_sweep` ends it where this is killed."""
    old = out / f".{out.name}.old-{uuid.uuid4().hex[:8]}"
    old.mkdir()
    _move(out, old, mark_first=False)
    new = partial.rename(out / f".{out.name}.new-{uuid.uuid4().hex[:8]}")
    _move(new, out)
    new.rmdir()
    _sync_folder(out)
    shutil.rmtree(old, ignore_errors=True)


def _move(source: Path, target: Path, *, mark_first: bool = True) -> None:
    """Everything but bookkeeping. Killed in between, what lies in `out` must not look like somebody else's:
    the mark is the first that comes and the last that goes.
    """
    names = [name for name in os.listdir(source) if not _own(source, name)]
    for name in sorted(names, key=lambda name: ((name == MARK) != mark_first, name)):
        os.rename(source / name, target / name)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def in_words(out: Path) -> Iterator[None]:
    """What the file system says of `out`, for the user; other errors go on."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in (*FULL, errno.EROFS, errno.EACCES, errno.EPERM):
            cure = "free the space and run it again" if error.errno in FULL else "name another folder"
            raise StorageError(f"{out}: cannot write: {reason}; {cure}") from error
        path = Path(error.filename) if error.filename else None
        if error.errno in IMPOSSIBLE and path and (out.is_relative_to(path) or path.parent == out.parent):
            raise InputError(out, f"no folder can be made there: {reason}") from error
        raise
    # safetensors and FAISS write files themselves, and tell of a full disk in their own errors' text alone.
    except Exception as error:
        reasons = [reason for number in FULL if (reason := os.strerror(number)) in str(error)]
        if not reasons or isinstance(error, CropsError):
            raise
        raise StorageError(f"{out}: cannot write: {reasons[0]}; free the space and run it again") from error
