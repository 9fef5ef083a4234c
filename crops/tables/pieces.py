"""Tables too large for memory, a piece at a time: rows in, in their order, and rows out."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crops.tables import artifacts
from crops.tables.records import Table


def whole(batches: Iterable[pa.RecordBatch], by: str, *, rows: int) -> Iterator[pa.Table]:
    """The rows of `batches`, sorted by the column `by`, in pieces of at least `rows` rows, but for the last:
    no two of them have a value of `by` in common.
    """
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(each.num_rows for each in held) < rows:
            continue
        piece = pa.Table.from_batches(held)
        end = pc.index(piece[by], piece[by][-1]).as_py()
        if end:
            yield piece.slice(0, end)
        held = piece.slice(end).to_batches()
    if held:
        yield pa.Table.from_batches(held)


class Writer:
    """Writes an unpartitioned table to `folder`, as artifacts.write does, as its rows come; a context
    manager.
    """

    def __init__(self, folder: Path, table: Table) -> None:
        self.table, self.rows = table, 0
        root = folder / table.name
        root.mkdir(parents=True)
        self._file = pq.ParquetWriter(root / artifacts.part(0), table.schema, compression="zstd")

    def add(self, rows: pa.Table) -> None:
        """Appends `rows`, which have the table's columns."""
        fields = self.table.schema
        ordered = pa.table([rows.column(f.name).cast(f.type) for f in fields], schema=fields)
        self._file.write_table(ordered, row_group_size=artifacts.ROW_GROUP)
        self.rows += rows.num_rows

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def holding(piece: pa.Table, column: str, holds: Callable[[str], bool]) -> pa.Table:
    """The rows whose value in `column` is held."""
    values = pc.unique(piece[column]).to_pylist()
    own = [value for value in values if holds(value)]
    return piece if len(own) == len(values) else artifacts.among(piece, **{column: own})
