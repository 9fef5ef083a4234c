"""Segment files: framed, checksummed records. What is whole is read; what is damaged is named, never deleted.

NAME.open is being written, NAME.seg is finished and never changes again. A frame is the payload's length and
CRC-32 (little endian, 4 bytes each) and the payload. Behind damaged bytes reading goes on at the next frame
whose length and checksum fit. No frame can hide inside a record: a length below 16 MiB has a zero as its
highest byte, and JSON writes neither zeros nor unescaped quotes into its strings.
"""

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from serving.events.files import Files

MAGIC = b"CROPSEV1"
HEADER = struct.Struct("<II")
LARGEST = (1 << 24) - 1  # a length above it is rubbish, not a record
START = b'{"kind":"'  # of every record: what is searched for behind damaged bytes
OPEN, FINISHED, DAMAGED = ".open", ".seg", "damaged"


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `at` to `end` of a segment: a whole record's payload, or None where they are damaged. torn: the
    beginning of a frame at the end of the file, as a killed writer leaves it.
    """

    at: int
    end: int
    payload: bytes | None
    torn: bool = False


@dataclass(frozen=True, slots=True)
class Recovered:
    """Bytes that recovery cut as a torn tail, and bytes that it left in the segment although they are
    damaged.
    """

    torn_bytes: int = 0
    damaged_bytes: int = 0


def frame(payload: bytes) -> bytes:
    """`payload` as it lies in a segment."""
    return HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def read(path: Path) -> Iterator[tuple[int, bytes]]:
    """(end of the record in the file, payload) of every whole record."""
    for piece in pieces(path):
        if piece.payload is not None:
            yield piece.end, piece.payload


def pieces(path: Path, start: int = 0) -> Iterator[Piece]:
    """Whole records and damaged bytes from `start` on, where a record begins.

    An open segment may be finished and renamed by its writer after it was listed: it is read under its new
    name. What stands behind its last whole record may still be in writing and is left out.
    """
    segment = _now(path)
    if segment is None:
        return
    with segment as file:
        data = _content(file, start)
        growing = Path(file.name).suffix == OPEN
    for piece in scan(data, start):
        if piece.payload is not None or not growing or piece.end < start + len(data):
            yield piece


def scan(data: bytes, start: int = 0) -> Iterator[Piece]:
    """The pieces of `data`, which stands at `start` in its segment."""
    at = 0
    if start == 0:
        if data.startswith(MAGIC):
            at = len(MAGIC)
        elif data:
            at = len(MAGIC) if _fits(data, len(MAGIC)) else _next(data, 0)
            yield Piece(0, at, None, MAGIC.startswith(data))
    while at < len(data):
        if end := _fits(data, at):
            yield Piece(start + at, start + end, data[at + HEADER.size : end])
        else:
            end = _next(data, at + 1)
            yield Piece(start + at, start + end, None, end == len(data) and _torn(data[at:]))
        at = end


def _fits(data: bytes, at: int) -> int:
    """Where the frame at `at` ends; 0 where none stands there."""
    if at + HEADER.size > len(data):
        return 0
    length, checksum = HEADER.unpack_from(data, at)
    end = at + HEADER.size + int(length)
    if not 0 < length <= LARGEST or end > len(data):
        return 0
    return end if zlib.crc32(memoryview(data)[at + HEADER.size : end]) == checksum else 0


def _next(data: bytes, at: int) -> int:
    """Where the first record at or behind `at` begins; the end where there is none."""
    while (start := data.find(START, at + HEADER.size)) >= 0:
        if _fits(data, start - HEADER.size):
            return start - HEADER.size
        at = start - HEADER.size + 1
    return len(data)


def _torn(tail: bytes) -> bool:
    """Whether it can be the beginning of a frame; a whole payload behind a damaged length is none."""
    if len(tail) < HEADER.size:
        return True
    length, checksum = HEADER.unpack_from(tail)
    payload = tail[HEADER.size :]
    return len(payload) < length <= LARGEST and zlib.crc32(payload) != checksum


def size(path: Path) -> int:
    """Bytes of a segment, also where its writer finished it after it was listed; 0 where it held nothing and
    is gone.
    """
    segment = _now(path)
    if segment is None:
        return 0
    with segment as file:
        return os.fstat(file.fileno()).st_size


def content(path: Path, at: int, end: int) -> bytes:
    """Bytes `at` to `end` of a segment."""
    segment = _now(path)
    if segment is None:
        return b""
    with segment as file:
        return _content(file, at)[: end - at]


def _now(path: Path) -> BinaryIO | None:
    """Opened for reading under the name that it has now."""
    for name in (path, path.with_suffix(FINISHED)):
        with contextlib.suppress(FileNotFoundError):
            return name.open("rb")
    return None


def _content(file: BinaryIO, start: int, page: int = 4096) -> bytes:
    """All from `start` on. A page that the disk cannot read is zeros: damaged, and the rest is read."""
    file.seek(start)
    try:
        return file.read()
    except OSError:
        end, content = os.fstat(file.fileno()).st_size, bytearray()
        while (at := start + len(content)) < end:
            length = min(page - at % page, end - at)
            try:
                content += os.pread(file.fileno(), length, at).ljust(length, b"\0")
            except OSError:
                content += bytes(length)
        return bytes(content)


def recover(path: Path, files: Files | None = None) -> Recovered:
    """Finishes a segment that a killed writer left open: cuts its torn tail, which is set aside first, and
    renames it. Nothing that is longer than a header is removed, and damaged bytes stay where they are.
    """
    files = files or Files()
    data = path.read_bytes()
    size, torn, damaged = len(data), 0, 0
    if size > len(MAGIC):
        for piece in scan(data):
            if piece.torn:
                torn = piece.end - piece.at
                set_aside(path.parent, path, piece.at, data[piece.at :], files)
                _truncate(path, piece.at, files)
            elif piece.payload is None:
                damaged += piece.end - piece.at
                set_aside(path.parent, path, piece.at, data[piece.at : piece.end], files)
    if size - torn <= len(MAGIC):
        files.unlink(path)
    else:
        files.rename(path, path.with_suffix(FINISHED))
    files.sync_folder(path.parent)
    return Recovered(torn, damaged)


def _truncate(path: Path, size: int, files: Files) -> None:
    file = files.open(path)
    try:
        files.truncate(file, size)
        files.fsync(file)
    finally:
        files.close(file)


def set_aside(folder: Path, path: Path, at: int, data: bytes, files: Files | None = None) -> Path:
    """A durable copy, damaged/NAME@OFFSET in `folder`, of bytes of a segment that are no record."""
    target = folder / DAMAGED / f"{path.stem}{FINISHED}@{at}"
    target.parent.mkdir(exist_ok=True)
    (files or Files()).store(target, data)
    return target


def listed(folder: Path) -> list[Path]:
    """All segments of a folder, open ones too, by name: a replica's in the order of their writing."""
    return sorted(p for p in folder.glob("*") if p.suffix in (OPEN, FINISHED))
