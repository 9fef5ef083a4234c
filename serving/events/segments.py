"""Segment files: framed, checksummed records. What is whole is read; a torn tail is where a writer was
killed.

NAME.open is being written, NAME.seg is finished and never changes again. A frame is the payload's length and
CRC-32 (little endian, 4 bytes each) and the payload.
"""

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAGIC = b"CROPSEV1"
HEADER = struct.Struct("<II")
LARGEST = 1 << 24  # a length above it is rubbish, not a record
OPEN, FINISHED = ".open", ".seg"


def frame(payload: bytes) -> bytes:
    """`payload` as it lies in a segment."""
    return HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def read(path: Path) -> Iterator[tuple[int, bytes]]:
    """(end of the record in the file, payload) of every whole record, up to the first that is torn or
    damaged.

    An open segment may be finished and renamed by its writer after it was listed: it is read under its new
    name.
    """
    found = _now(path)
    if found is None:
        return
    with found as file:
        if file.read(len(MAGIC)) != MAGIC:
            return
        end = len(MAGIC)
        while len(head := file.read(HEADER.size)) == HEADER.size:
            length, checksum = HEADER.unpack(head)
            if (
                length > LARGEST
                or len(payload := file.read(length)) < length
                or zlib.crc32(payload) != checksum
            ):
                return
            end += HEADER.size + length
            yield end, payload


def size(path: Path) -> int:
    """Bytes of a segment, also where its writer finished it after it was listed; 0 where it held nothing and
    is gone.
    """
    found = _now(path)
    if found is None:
        return 0
    with found as file:
        return os.fstat(file.fileno()).st_size


def _now(path: Path) -> BinaryIO | None:
    """Opened for reading under the name that it has now."""
    for name in (path, path.with_suffix(FINISHED)):
        with contextlib.suppress(FileNotFoundError):
            return name.open("rb")
    return None


def whole(path: Path) -> tuple[int, int]:
    """(bytes up to the end of the last whole record, number of whole records)."""
    end, count = 0, 0
    for end, _payload in read(path):  # noqa: B007  the last one is needed
        count += 1
    return (end or min(len(MAGIC), path.stat().st_size)), count


def recover(path: Path) -> int:
    """Finishes a segment that a killed writer left open: cuts its torn tail and renames it. Returns the bytes
    cut.
    """
    end, count = whole(path)
    cut = path.stat().st_size - end
    if count == 0:
        path.unlink()
        return cut
    with path.open("r+b") as file:
        file.truncate(end)
        os.fsync(file.fileno())
    path.rename(path.with_suffix(FINISHED))
    sync_folder(path.parent)
    return cut


def listed(folder: Path) -> list[Path]:
    """All segments of a folder, open ones too, by name: a replica's in the order of their writing."""
    return sorted(p for p in folder.glob("*") if p.suffix in (OPEN, FINISHED))


def sync_folder(folder: Path) -> None:
    """Makes renames and new names in it durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
