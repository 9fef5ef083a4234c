"""Says it in the user's names when the engine fails: which file is damaged, which folder's disk is full."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops.errors import InputError, StorageError
from crops.tables.records import Table


@contextmanager
def named(files: Mapping[Table, Iterable[Path]], out: Path) -> Iterator[None]:
    """Where the engine fails while the block runs, the files are read one by one: the first damaged one is
    the InputError.

    A full disk is a StorageError that names `out`, where the user wanted it written. If all files can be read
    the engine's own error goes on: it is not about them.
    """
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        if "No space left" in str(error) or "max_temp_directory_size" in str(error):
            raise StorageError(
                f"{out}: cannot write: No space left on device; free the space and run it again"
            ) from error
        for table, paths in files.items():
            for path in paths:
                probe(path, table)
        raise


def probe(path: Path, table: Table) -> None:
    """Reads the table's columns of one file, row group by row group; an InputError names file, row and
    column.
    """
    with pq.ParquetFile(path) as file:
        start = 0
        for group in range(file.num_row_groups):
            for name in (n for n in table.schema.names if n in file.schema_arrow.names):
                try:
                    column = file.read_row_group(group, columns=[name]).column(name)
                except (pa.ArrowException, OSError) as error:
                    raise InputError(
                        path, f"column {name!r} is damaged ({str(error).splitlines()[0][:200]})"
                    ) from error
                _valid_text(path, name, column, start)
            start += file.metadata.row_group(group).num_rows


def _valid_text(path: Path, name: str, column: pa.ChunkedArray, start: int) -> None:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InputError(path, f"{name} is no valid UTF-8", row=_first_invalid(column, start)) from error


def _first_invalid(column: pa.ChunkedArray, start: int) -> int | None:
    """Place of the first value that does not decode, counted over the file from 0 as in quarantine's
    row_number.
    """
    for n, value in enumerate(_parts(column)):
        try:
            for part in value:
                part.decode("utf-8")
        except UnicodeDecodeError:
            return start + n
    return None


def _parts(column: pa.ChunkedArray) -> Iterator[list[bytes]]:
    """The bytes of each row: of its one string, or of each string of its list."""
    nested = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    for chunk in column.chunks:
        if nested:
            texts = pc.cast(chunk.values, pa.binary()) if len(chunk) else None
            for row in range(len(chunk)):
                low, high = chunk.offsets[row].as_py(), chunk.offsets[row + 1].as_py()
                yield [] if texts is None else [t for t in texts[low:high].to_pylist() if t is not None]
        elif pa.types.is_string(chunk.type) or pa.types.is_large_string(chunk.type):
            yield from ([] if value is None else [value] for value in pc.cast(chunk, pa.binary()).to_pylist())
