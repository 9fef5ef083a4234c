"""The calls by which the event log changes a folder, in one place: tests can make any of them fail."""

import contextlib
import os
from pathlib import Path


class Files:
    """The operating system's calls; every one may raise an OSError, and a write may take only a part."""

    def create(self, path: Path) -> int:
        """Opens a new file for appending; FileExistsError where the name is taken."""
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666)

    def open(self, path: Path) -> int:
        """Opens an existing file for truncation."""
        return os.open(path, os.O_WRONLY)

    def write(self, file: int, data: bytes | memoryview) -> int:
        """Returns how many bytes were taken."""
        return os.write(file, data)

    def fsync(self, file: int) -> None:
        """Returns when the file's content is durable."""
        os.fsync(file)

    def truncate(self, file: int, size: int) -> None:
        """Cuts the file to `size` bytes."""
        os.ftruncate(file, size)

    def rename(self, path: Path, target: Path) -> None:
        """Gives the file another name and replaces what had it."""
        path.replace(target)

    def unlink(self, path: Path) -> None:
        """Removes the name; it may be gone already."""
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Returns when the folder's names are durable."""
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def close(self, file: int) -> None:
        """Never raises: what counts was made durable by `fsync` before."""
        with contextlib.suppress(OSError):
            os.close(file)

    def put(self, file: int, data: bytes) -> None:
        """Writes all of `data`; a write to a nearly full disk may take a part."""
        view = memoryview(data)
        while view:
            view = view[self.write(file, view) :]

    def store(self, path: Path, data: bytes) -> None:
        """A small file, durable and whole under its name or not there at all."""
        partial = path.with_name(f".{path.name}.partial")
        self.unlink(partial)
        file = self.create(partial)
        try:
            self.put(file, data)
            self.fsync(file)
        finally:
            self.close(file)
        self.rename(partial, path)
        self.sync_folder(path.parent)
