"""Expressions on DuckDB, inside this process."""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa

from crops.engines.warehouse import Warehouse, full_disk
from crops.errors import InputError, StorageError
from crops.tables import artifacts

# Rows of the largest tables (results, feed views) that are worked on at a time: a log of that size needs
# about 1 GB in all.
PART_ROWS = 4_000_000


class DuckDBWarehouse(Warehouse):
    """An embedded DuckDB without a database file; what exceeds its memory goes to `scratch`."""

    def __init__(self, *, scratch: Path, threads: int | None = None, memory_gb: float | None = None) -> None:
        self.scratch = scratch
        limits = {"threads": threads, "memory_limit": None if memory_gb is None else f"{memory_gb}GB"}
        settings = {name: value for name, value in limits.items() if value is not None}
        self.backend = ibis.duckdb.connect(temp_directory=str(scratch), **settings)
        self.backend.raw_sql("SET TimeZone = 'UTC'")
        # In a notebook without ipywidgets there is no bar to turn off, and saying so is an error.
        with contextlib.suppress(duckdb.InvalidInputException):
            self.backend.raw_sql("SET enable_progress_bar = false")
        # What is written is ordered by its key; keeping the input's order as well would only buffer large
        # tables.
        self.backend.raw_sql("SET preserve_insertion_order = false")

    def scan(self, files: list[Path]) -> ir.Table:
        """See Warehouse.scan."""
        return self.backend.read_parquet([str(f) for f in files], union_by_name=True, hive_partitioning=False)

    def keep(self, expr: ir.Table, name: str) -> ir.Table:
        """See Warehouse.keep."""
        return self.backend.create_table(name, expr, temp=True)

    def put(self, rows: pa.Table, name: str) -> ir.Table:
        """See Warehouse.put."""
        return self.backend.create_table(name, ibis.memtable(rows), temp=True)

    def drop(self, table: ir.Table) -> None:
        """See Warehouse.drop."""
        # Not drop_table of Ibis: with the SQLGlot that it is pinned to, it leaves out the name.
        self.backend.raw_sql(f'DROP TABLE "{table.op().name}"')

    def parts(self, rows: int) -> int:
        """See Warehouse.parts. DuckDB can spill, but what spills takes a multiple of the time."""
        return max(1, -(-rows // PART_ROWS))

    def split(self, exprs: list[ir.Table], name: str, *, parts: int) -> list[ir.Table]:
        """See Warehouse.split; the parts are files under `scratch`."""
        if parts == 1:
            return super().split(exprs, name, parts=parts)
        folder = self.scratch / name
        columns = exprs[0].drop("part").schema()
        for number, expr in enumerate(exprs):
            self.backend.to_parquet(
                expr,
                folder,
                partition_by="part",
                filename_pattern=f"e{number}-{{i}}",
                overwrite_or_ignore=True,
                compression="snappy",
                row_group_size=artifacts.ROW_GROUP,
            )
        by_part = [sorted(folder.glob(f"part={part}/*.parquet")) for part in range(parts)]
        none = ibis.memtable([], schema=columns)
        return [self.scan(files).cast(columns) if files else none for files in by_part]

    def save(self, exprs: Iterable[ir.Table], folder: Path) -> None:
        """See Warehouse.save; one file for each of `exprs`."""
        folder.mkdir(parents=True)
        for number, expr in enumerate(exprs):
            self.backend.to_parquet(
                expr, folder / artifacts.part(number), compression="zstd", row_group_size=artifacts.ROW_GROUP
            )

    def stream(self, expr: ir.Table, *, rows: int = artifacts.ROW_GROUP) -> Iterator[pa.RecordBatch]:
        """See Warehouse.stream."""
        # Not to_pyarrow_batches of Ibis: it calls a method that DuckDB has no more.
        backend: Any = self.backend
        yield from backend.con.sql(backend.compile(expr)).to_arrow_reader(rows)

    def close(self) -> None:
        """See Warehouse.close."""
        self.backend.disconnect()

    def explain(self, error: Exception) -> Exception | None:
        """See Warehouse.explain."""
        if not isinstance(error, duckdb.Error):
            return None
        text = str(error)
        line = " ".join(text.split())[:300]
        if "No space left" in text or "max_temp_directory_size" in text:
            return full_disk(self.scratch)
        if isinstance(error, duckdb.OutOfMemoryException):
            return StorageError(
                f"the embedded engine is out of memory; raise memory_gb or lower threads ({line})"
            )
        broken = ("parquet", "utf-8", "utf8", "snappy", "zstd", "thrift", "deserialize", "page")
        if isinstance(error, duckdb.IOException | duckdb.InvalidInputException) and any(
            word in text.lower() for word in broken
        ):
            return InputError("logs", f"a Parquet file is damaged ({line})")
        return None
