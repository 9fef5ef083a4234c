"""Where expressions run. Stages see only `Warehouse`; crops.engines.session opens one."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from crops.errors import StorageError
from crops.tables import artifacts
from crops.tables.records import TS, Table


class Warehouse(ABC):
    """Reads tables of crops.tables.records as expressions, runs expressions, writes them as tables. Session
    time zone: UTC.
    """

    backend: ibis.BaseBackend

    @abstractmethod
    def scan(self, files: list[Path]) -> ir.Table:
        """The Parquet files as one expression; columns missing from some files are null there."""

    @abstractmethod
    def keep(self, expr: ir.Table, name: str) -> ir.Table:
        """Runs `expr` once and returns its rows as a table of this session (spilled to disk where memory is
        short).
        """

    @abstractmethod
    def put(self, rows: pa.Table, name: str) -> ir.Table:
        """An Arrow table as a table of this session."""

    @abstractmethod
    def drop(self, table: ir.Table) -> None:
        """Gives back what a table of `keep` takes; it must not be used again."""

    def parts(self, rows: int) -> int:  # noqa: ARG002
        """Into how many parts work on `rows` rows is cut, so that each fits into memory; 1: the engine does
        that itself.
        """
        return 1

    def split(self, exprs: list[ir.Table], name: str, *, parts: int) -> list[ir.Table]:  # noqa: ARG002
        """Runs `exprs` one after another and returns their rows as `parts` tables, by their column `part` (0
        to parts - 1).

        The column is gone from what is returned. `parts` is 1 or what `parts()` said; with 1 nothing has to
        run.
        """
        return [ibis.union(*[expr.drop("part") for expr in exprs])]

    @abstractmethod
    def save(self, exprs: Iterable[ir.Table], folder: Path) -> None:
        """Runs `exprs` one after another and writes their rows into the new `folder`.

        Parquet (zstd), part-00000.parquet and so on, in the order of the rows from file to file by name.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends the session; its tables are gone."""

    @abstractmethod
    def explain(self, error: Exception) -> Exception | None:
        """What `error`, raised by the engine, means to the user; None where it is not for them (a bug)."""

    def read(self, folder: Path, table: Table) -> ir.Table:
        """The table under `folder` with exactly its columns and types; optional columns that are absent are
        null.

        Raises InputError, naming the file, where a file is missing, unreadable or has another schema.
        """
        return conform(self.scan(artifacts.table_files(folder, table)), table)

    def fetch(self, expr: ir.Table) -> list[dict]:
        """Runs a small expression (counts, examples) and returns its rows; times are UTC and say so."""
        rows = self.backend.to_pyarrow(expr)
        # Spark's Arrow has times without a zone; they are of the session's zone, which is UTC.
        fields = [f.with_type(TS) if pa.types.is_timestamp(f.type) else f for f in rows.schema]
        return rows.cast(pa.schema(fields)).to_pylist()

    def stream(self, expr: ir.Table, *, rows: int = artifacts.ROW_GROUP) -> Iterator[pa.RecordBatch]:
        """Runs `expr` and returns its rows in their order, at most `rows` at a time; no other expression may
        run before the last one.
        """
        yield from self.backend.to_pyarrow(expr).to_batches(max_chunksize=rows)

    def write(self, expr: ir.Table, folder: Path, table: Table) -> int:
        """Writes `expr` as an unpartitioned table, sorted by its key, and returns the number of rows."""
        return self.write_parts([expr], folder, table)

    def write_parts(self, exprs: Iterable[ir.Table], folder: Path, table: Table) -> int:
        """As write, from parts whose keys ascend from one to the next; an iterator makes each when its turn
        comes.
        """
        self.save((conform(expr, table).order_by([*table.key]) for expr in exprs), folder / table.name)
        return artifacts.rows(folder, table)


def conform(raw: ir.Table, table: Table) -> ir.Table:
    """`found` with exactly the columns and types of `table`, null where an optional column is absent."""
    types = ibis.Schema.from_pyarrow(table.schema)
    nullable = {name: dtype.copy(nullable=True) for name, dtype in types.items()}
    columns = {n: raw[n].cast(d) if n in raw.columns else ibis.null(d) for n, d in nullable.items()}
    return raw.select(**columns)


def full_disk(scratch: Path) -> StorageError:
    """The same words whichever engine met it; `scratch` lies in the folder that was being written."""
    return StorageError(
        f"{scratch.parent}: cannot write: no space left on the device; free the space and run it again"
    )
