"""Columns on disk that training reads by number, memory-mapped: all processes of a machine share one copy in
the page cache, and what is not touched takes no memory.

A column of numbers is NumPy's .npy file. Texts and lists of numbers are two: all values in a row, and where
each begins, as Arrow lays them out. Arrow's own files come in record batches, so that a row by its number
would have to be looked for, and a batch of training reads some thousand rows by number.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import pyarrow as pa

from crops.tables import folders

Values = np.ndarray


class Column:
    """A .npy file that grows; inside of `with`."""

    def __init__(self, path: Path, dtype: Any) -> None:
        self.dtype, self.length = np.dtype(dtype), 0
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        self._head()
        return self

    def __exit__(self, *_error: object) -> None:
        # NumPy leaves room in the header for any length.
        self._file.seek(0)
        self._head()
        self._file.close()

    def add(self, values: np.ndarray) -> None:
        """Values [N] after those before."""
        self._file.write(np.ascontiguousarray(values, dtype=self.dtype).tobytes())
        self.length += len(values)

    def _head(self) -> None:
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.length,)}
        np.lib.format.write_array_header_1_0(self._file, header)


class ListColumn:
    """Lists of numbers, written piece by piece; inside of `with`."""

    def __init__(self, folder: Path, name: str, dtype: Any) -> None:
        self._values, self._starts = Column(_values(folder, name), dtype), Column(_starts(folder, name), "i8")

    def __enter__(self) -> Self:
        self._values.__enter__()
        self._starts.__enter__().add(np.zeros(1))
        return self

    def __exit__(self, *error: object) -> None:
        self._values.__exit__(*error)
        self._starts.__exit__(*error)

    def add(self, values: np.ndarray, lengths: np.ndarray) -> None:
        """Lists of `lengths` [N] one after another in `values`."""
        self._starts.add(self._values.length + np.cumsum(lengths))
        self._values.add(values)


class Lists(Sequence[Values]):
    """Lists of numbers: row i holds values[starts[i] : starts[i + 1]]."""

    def __init__(self, values: np.ndarray, starts: np.ndarray) -> None:
        self.values, self.starts = values, starts

    def __len__(self) -> int:
        return len(self.starts) - 1

    @overload
    def __getitem__(self, row: int) -> Values: ...
    @overload
    def __getitem__(self, row: slice) -> list[Values]: ...
    def __getitem__(self, row: int | slice) -> Values | list[Values]:
        if isinstance(row, slice):
            return [self[i] for i in range(len(self))[row]]
        place = range(len(self))[row]
        own: Values = self.values[self.starts[place] : self.starts[place + 1]]
        return own


class Texts(Sequence[str]):
    """Texts in UTF-8; each is read from the file whenever it is asked for."""

    def __init__(self, values: np.ndarray, starts: np.ndarray) -> None:
        self._lists = Lists(values, starts)

    def __len__(self) -> int:
        return len(self._lists)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[i] for i in range(len(self))[row]]
        return self._lists[row].tobytes().decode()


def mapped(folder: Path, name: str) -> np.ndarray:
    """The numbers of a Column that stands in `folder` as NAME.npy."""
    # A plain array over the map: taking rows of NumPy's own class costs several times as much.
    return np.asarray(np.load(_values(folder, name), mmap_mode="r"))


def lists(folder: Path, name: str) -> Lists:
    """What `ListColumn` wrote."""
    return Lists(mapped(folder, name), np.asarray(np.load(_starts(folder, name), mmap_mode="r")))


def texts(folder: Path, name: str) -> Texts:
    """What `write_texts` wrote."""
    own = lists(folder, name)
    return Texts(own.values, own.starts)


def write_texts(folder: Path, name: str, pieces: Iterable[pa.Array]) -> None:
    """Texts in the order in which they come; none is null."""
    with ListColumn(folder, name, "u1") as column:
        for piece in pieces:
            array = piece.cast(pa.large_binary())
            _null, places, values = array.buffers()
            starts = np.frombuffer(places, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
            if len(array):
                raw = np.frombuffer(values, dtype=np.uint8) if values else np.zeros(0, dtype=np.uint8)
                column.add(raw[starts[0] : starts[-1]], np.diff(starts))


def made(folder: Path, write: Callable[[Path], None]) -> Path:
    """`folder` as `write` leaves it, by whichever process comes first; the others wait for it."""
    if not folder.is_dir():
        with folders.held(folder, wait=True):
            if not folder.is_dir():
                with folders.replacing(folder, private=True) as new:
                    write(new)
    return folder


def _values(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"


def _starts(folder: Path, name: str) -> Path:
    return folder / f"{name}.starts.npy"
