"""The split on Spark: the same SQL in Spark's dialect; rows stay with the executors, counts and the sample
come to the driver.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlglot

from crops.engines.spark import SparkWarehouse
from crops.tables.records import TS, Table
from crops.validation.engine import Engine

# Parquet files of a day are not larger than this many rows: readers take them as one row group each.
ROWS_PER_FILE = 2_000_000

# As Spark's own reader maps them: an unsigned number needs the next wider type.
SPARK_TYPES = {
    pa.bool_(): "boolean",
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.uint8(): "smallint",
    pa.uint16(): "int",
    pa.uint32(): "bigint",
    pa.uint64(): "decimal(20,0)",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.date32(): "date",
}


class SparkEngine(Engine):
    """What is kept is a folder of Parquet files under the warehouse's scratch, so no lineage is run twice."""

    def __init__(self, house: SparkWarehouse) -> None:
        self.session, self.scratch = house.session, house.scratch
        self._kept: dict[str, Path] = {}
        self._made = 0

    def scan(self, view: str, files: Sequence[Path], types: Mapping[str, pa.DataType]) -> None:
        """See Engine.scan. The schema is said, so that columns which nobody reads may be of any type."""
        schema = ", ".join(f"`{name}` {_ddl(dtype)}" for name, dtype in types.items())
        frame = self.session.read.schema(schema).parquet(*(os.path.abspath(f) for f in files))
        columns = [
            f"timestamp_micros(`{name}` div 1000) AS `{name}`" if _is_nanos(dtype) else f"`{name}`"
            for name, dtype in types.items()
        ]
        # Spark writes paths as URLs with encoded characters; they are put back.
        path = "url_decode(replace(regexp_replace(_metadata.file_path, '^file:/+', '/'), '+', '%2B'))"
        rows = frame.selectExpr(*columns, f"{path} AS filename", "_metadata.row_index AS file_row_number")
        rows.createOrReplaceTempView(view)

    def keep(self, name: str, sql: str) -> None:
        """See Engine.keep."""
        self._made += 1
        folder = Path(os.path.abspath(self.scratch)) / f"{name}-{self._made}"
        self._frame(sql).write.parquet(str(folder))
        self.session.read.parquet(str(folder)).createOrReplaceTempView(name)
        if old := self._kept.pop(name, None):
            shutil.rmtree(old, ignore_errors=True)
        self._kept[name] = folder

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """See Engine.rows."""
        return [row.asDict() for row in self._frame(sql).collect()]

    def save(self, sql: str, table: Table, folder: Path) -> None:
        """See Engine.save; as many files a day as its rows fill, in the order of the key over all of them."""
        frame = self._frame(sql)
        if not table.partitioned:
            self._write(frame.drop("day").orderBy(*table.key), folder)
            return
        # By ranges of day and key, not by day: one busy day must not be one task.
        sorted_rows = frame.withColumnRenamed("day", "date").repartitionByRange("date", *table.key)
        sorted_rows = sorted_rows.sortWithinPartitions("date", *table.key)
        self._write(sorted_rows, folder, by="date")

    def save_one(self, sql: str, folder: Path, order: Sequence[str]) -> None:
        """See Engine.save_one."""
        self._write(self._frame(sql).orderBy(*order), folder)

    def stream(self, sql: str, rows: int) -> Iterator[pa.RecordBatch]:
        """See Engine.stream; the sample is bounded, so it comes to the driver in one piece."""
        frame = self._frame(sql).toArrow()
        # Its times have the session's zone, which is UTC, and say so only in other words.
        fields = [f.with_type(TS) if pa.types.is_timestamp(f.type) else f for f in frame.schema]
        yield from frame.cast(pa.schema(fields)).to_batches(max_chunksize=rows)

    def hashed(self, columns: Sequence[str], modulo: int) -> str:
        """See Engine.hashed; Spark's own function, which the dialect's translation would not touch."""
        return f"pmod(xxhash64({', '.join(columns)}), {modulo})"

    def _frame(self, sql: str) -> Any:
        return self.session.sql(sqlglot.transpile(sql, read="duckdb", write="spark")[0])

    def _write(self, frame: Any, folder: Path, by: str | None = None) -> None:
        writer = frame.write.option("maxRecordsPerFile", ROWS_PER_FILE)
        (writer.partitionBy(by) if by else writer).parquet(os.path.abspath(folder))
        for day_folder in [folder, *(p for p in folder.iterdir() if p.is_dir())]:
            for number, path in enumerate(sorted(day_folder.glob("part-*.parquet"))):
                path.rename(day_folder / f"part-{number:05d}.parquet")
        for rest in (*folder.rglob("_SUCCESS"), *folder.rglob(".*.crc")):
            rest.unlink()


def _ddl(dtype: pa.DataType) -> str:
    """The type as which Spark reads a stored column."""
    if pa.types.is_null(dtype):
        return "int"  # what Arrow stores a column of nulls as
    if pa.types.is_timestamp(dtype):
        return "bigint" if _is_nanos(dtype) else "timestamp" if dtype.tz else "timestamp_ntz"
    if pa.types.is_decimal(dtype):
        return f"decimal({dtype.precision},{dtype.scale})"
    if hasattr(dtype, "value_type"):
        return "array<string>"
    return SPARK_TYPES.get(dtype, "string")


def _is_nanos(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(dtype)) and dtype.unit == "ns"
