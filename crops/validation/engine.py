"""Who runs the SQL of the split: DuckDB as it is written, or Spark in its own dialect. Few verbs, so that
both can keep them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from crops.tables import artifacts
from crops.tables.records import Table
from crops.validation.checks import quoted


class Engine(ABC):
    """Runs SQL that is written in DuckDB's dialect; tables that it keeps live as long as its session."""

    @abstractmethod
    def scan(self, view: str, files: Sequence[Path], types: Mapping[str, pa.DataType]) -> None:
        """Makes the view: these columns of the Parquet files, which are stored in these types, `filename` and
        `file_row_number`.
        """

    @abstractmethod
    def keep(self, name: str, sql: str) -> None:
        """Runs `sql` once and keeps its rows as table `name`, in place of an older one."""

    @abstractmethod
    def rows(self, sql: str) -> list[dict[str, Any]]:
        """A small answer."""

    @abstractmethod
    def save(self, sql: str, table: Table, folder: Path) -> None:
        """Writes the rows of `sql` (the table's columns and `day`) as the table, each day sorted by its
        key.
        """

    @abstractmethod
    def save_one(self, sql: str, folder: Path, order: Sequence[str]) -> None:
        """Writes the rows of `sql`, sorted, as Parquet into the new `folder`."""

    @abstractmethod
    def stream(self, sql: str, rows: int) -> Iterator[pa.RecordBatch]:
        """The rows of `sql` in batches of at most `rows`."""

    @abstractmethod
    def hashed(self, columns: Sequence[str], modulo: int) -> str:
        """SQL of a number in 0..modulo-1 that depends on the columns' values alone."""


class DuckDBEngine(Engine):
    """The embedded engine; what exceeds its memory spills to disk."""

    def __init__(self, base: duckdb.DuckDBPyConnection) -> None:
        self.base = base
        # A Parquet file's least and greatest value leave "not a number" out, and DuckDB (2.0) concludes from
        # them that there is none: isnan() is then false of every row.
        base.execute("SET disabled_optimizers = 'statistics_propagation'")

    def scan(self, view: str, files: Sequence[Path], types: Mapping[str, pa.DataType]) -> None:  # noqa: ARG002
        """See Engine.scan."""
        listed = ", ".join(quoted(str(f)) for f in files)
        self.base.execute(
            f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT * FROM read_parquet([{listed}], "
            "union_by_name=true, hive_partitioning=false, filename=true, file_row_number=true)"
        )

    def keep(self, name: str, sql: str) -> None:
        """See Engine.keep."""
        self.base.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {sql}")

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """See Engine.rows; fetched to its end, because a connection streams nothing while an answer is
        open.
        """
        answer = self.base.execute(sql)
        names = [column[0] for column in answer.description]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]

    def save(self, sql: str, table: Table, folder: Path) -> None:
        """See Engine.save; one file a day."""
        names = ", ".join(table.schema.names)
        for row in self.rows(f"SELECT DISTINCT day FROM ({sql}) ORDER BY 1"):
            day_folder = folder / (f"date={row['day']}" if table.partitioned else "")
            self.save_one(
                f"SELECT {names} FROM ({sql}) WHERE day = {quoted(row['day'])}", day_folder, table.key
            )

    def save_one(self, sql: str, folder: Path, order: Sequence[str]) -> None:
        """See Engine.save_one; one file, part-0.parquet."""
        folder.mkdir(parents=True, exist_ok=True)
        self.base.execute(
            f"COPY ({sql} ORDER BY {', '.join(order)}) TO {quoted(str(folder / 'part-0.parquet'))} "
            f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {artifacts.ROW_GROUP})"
        )

    def stream(self, sql: str, rows: int) -> Iterator[pa.RecordBatch]:
        """See Engine.stream; `sql` streams where `execute` would hold the whole answer."""
        reader: pa.RecordBatchReader = self.base.sql(sql).to_arrow_reader(rows)
        yield from reader

    def hashed(self, columns: Sequence[str], modulo: int) -> str:
        """See Engine.hashed."""
        return f"hash({', '.join(columns)}) % {modulo}"
