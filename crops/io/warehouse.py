"""Where expressions run: DuckDB on one machine, Spark at scale (crops.io.spark). Stages see only `Warehouse`."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import ibis
import ibis.expr.types as ir
import pyarrow as pa

from crops.config.base import ENGINES
from crops.errors import ConfigError, InputError, StorageError
from crops.io import artifacts
from crops.records import TS, Table

# Rows of the largest tables (results, feed views) that are worked on at a time: a log of that size needs about 1 GB in all.
PART_ROWS = 4_000_000


class Warehouse(ABC):
    """Reads tables of crops.records as expressions, runs expressions, writes them as tables. Session time zone: UTC."""

    backend: ibis.BaseBackend

    @abstractmethod
    def scan(self, files: list[Path]) -> ir.Table:
        """The Parquet files as one expression; columns missing from some files are null there."""

    @abstractmethod
    def keep(self, expr: ir.Table, name: str) -> ir.Table:
        """Runs `expr` once and returns its rows as a table of this session (spilled to disk where memory is short)."""

    @abstractmethod
    def put(self, rows: pa.Table, name: str) -> ir.Table:
        """An Arrow table as a table of this session."""

    @abstractmethod
    def drop(self, table: ir.Table) -> None:
        """Gives back what a table of `keep` takes; it must not be used again."""

    def parts(self, rows: int) -> int:
        """Into how many parts work on `rows` rows is cut, so that each fits into memory; 1: the engine does that itself."""
        return 1

    def split(self, exprs: list[ir.Table], name: str, *, parts: int) -> list[ir.Table]:
        """Runs `exprs` one after another and returns their rows as `parts` tables, by their column `part` (0 to parts - 1).

        The column is gone from what is returned. `parts` is 1 or what `parts()` said; with 1 nothing has to run.
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
        """The table under `folder` with exactly its columns and types; optional columns that are absent are null.

        Raises InputError, naming the file, where a file is missing, unreadable or has another schema.
        """
        return conform(self.scan(artifacts.table_files(folder, table)), table)

    def fetch(self, expr: ir.Table) -> list[dict]:
        """Runs a small expression (counts, examples) and returns its rows; times are UTC and say so."""
        rows = self.backend.to_pyarrow(expr)
        # Spark's Arrow has times without a zone; they are of the session's zone, which is UTC.
        fields = [f.with_type(TS) if pa.types.is_timestamp(f.type) else f for f in rows.schema]
        return rows.cast(pa.schema(fields)).to_pylist()

    def write(self, expr: ir.Table, folder: Path, table: Table) -> int:
        """Writes `expr` as an unpartitioned table, sorted by its key, and returns the number of rows."""
        return self.write_parts([expr], folder, table)

    def write_parts(self, exprs: Iterable[ir.Table], folder: Path, table: Table) -> int:
        """As write, from parts whose keys ascend from one to the next; an iterator makes each when its turn comes."""
        self.save((conform(expr, table).order_by([*table.key]) for expr in exprs), folder / table.name)
        return artifacts.rows(folder, table)


def conform(found: ir.Table, table: Table) -> ir.Table:
    """`found` with exactly the columns and types of `table`, null where an optional column is absent."""
    types = ibis.Schema.from_pyarrow(table.schema)
    nullable = {name: dtype.copy(nullable=True) for name, dtype in types.items()}
    columns = {n: found[n].cast(d) if n in found.columns else ibis.null(d) for n, d in nullable.items()}
    return found.select(**columns)


class DuckDBWarehouse(Warehouse):
    """An embedded DuckDB without a database file; what exceeds its memory goes to `scratch`."""

    def __init__(self, *, scratch: Path, threads: int | None = None, memory_gb: float | None = None) -> None:
        self.scratch = scratch
        limits = {"threads": threads, "memory_limit": None if memory_gb is None else f"{memory_gb}GB"}
        settings = {name: value for name, value in limits.items() if value is not None}
        self.backend = ibis.duckdb.connect(temp_directory=str(scratch), **settings)
        self.backend.raw_sql("SET TimeZone = 'UTC'")
        self.backend.raw_sql("SET enable_progress_bar = false")
        # What is written is ordered by its key; keeping the input's order as well would only buffer large tables.
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
        for place, expr in enumerate(exprs):
            self.backend.to_parquet(
                expr, folder, partition_by="part", filename_pattern=f"e{place}-{{i}}", overwrite_or_ignore=True,
                compression="snappy", row_group_size=artifacts.ROW_GROUP,
            )  # fmt: skip
        found = [sorted(folder.glob(f"part={part}/*.parquet")) for part in range(parts)]
        none = ibis.memtable([], schema=columns)
        return [self.scan(files).cast(columns) if files else none for files in found]

    def save(self, exprs: Iterable[ir.Table], folder: Path) -> None:
        """See Warehouse.save; one file for each of `exprs`."""
        folder.mkdir(parents=True)
        for place, expr in enumerate(exprs):
            self.backend.to_parquet(expr, folder / artifacts.part(place), compression="zstd", row_group_size=artifacts.ROW_GROUP)

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
            return StorageError(f"the embedded engine is out of memory; raise memory_gb or lower threads ({line})")
        broken = ("parquet", "utf-8", "utf8", "snappy", "zstd", "thrift", "deserialize", "page")
        if isinstance(error, duckdb.IOException | duckdb.InvalidInputException) and any(word in text.lower() for word in broken):
            return InputError("logs", f"a Parquet file is damaged ({line})")
        return None


def full_disk(scratch: Path) -> StorageError:
    """The same words whichever engine met it; `scratch` lies in the folder that was being written."""
    return StorageError(f"{scratch.parent}: cannot write: no space left on the device; free the space and run it again")


@contextmanager
def opened(
    engine: str, *, scratch: Path, threads: int | None = None, memory_gb: float | None = None, spark_master: str = "local[*]"
) -> Iterator[Warehouse]:
    """The warehouse for `engine` while the block runs; what the engine says of a full disk or a broken file is one line."""
    if engine not in ENGINES:
        raise ConfigError(f"engine is {engine!r}, expected {' or '.join(ENGINES)}")
    warehouse: Warehouse
    if engine == "duckdb":
        warehouse = DuckDBWarehouse(scratch=scratch, threads=threads, memory_gb=memory_gb)
    else:
        # Only here: the extra `spark` and Java are for those who ask for them.
        from crops.io import spark

        warehouse = spark.SparkWarehouse(scratch=scratch, master=spark_master, threads=threads, memory_gb=memory_gb)
    try:
        yield warehouse
    except Exception as error:
        meant = warehouse.explain(error)
        if meant is None:
            raise
        raise meant from error
    finally:
        warehouse.close()
