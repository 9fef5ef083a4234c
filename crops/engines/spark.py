"""The same expressions on Spark: local, a cluster (spark://...) or Spark Connect (sc://...).

Tables stay in files that driver and executors both see: logs, `out` and the scratch folder inside it. Only
counts and examples come to the driver.
"""

import itertools
import os
import shutil
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from crops.engines.warehouse import Warehouse, full_disk
from crops.errors import ConfigError, InputError, StorageError
from crops.tables import artifacts

try:
    import pyspark
    from pyspark.sql import DataFrame, SparkSession
except ImportError as missing:
    raise ConfigError(
        "engine is 'spark', but PySpark is not installed: pip install 'crops[mine,spark]'"
    ) from missing

# What the expressions need to mean the same as on DuckDB, per session (the reason behind each):
SETTINGS = {
    # dates are UTC days
    "spark.sql.session.timeZone": "UTC",
    # else timestamps become INT96, which has neither unit nor zone
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "zstd",
    # counts and examples as Arrow
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    # a head query or a busy user must not be one task: oversized partitions of a join are split, small ones
    # merged
    "spark.sql.adaptive.enabled": "true",
    "spark.sql.adaptive.skewJoin.enabled": "true",
    # a column of the files that does not fit its type is an error, never null
    "spark.sql.ansi.enabled": "true",
}


class SparkWarehouse(Warehouse):
    """One Spark session; a table that is kept is a folder of Parquet files under `scratch`, so no lineage is
    run twice.
    """

    def __init__(
        self,
        *,
        scratch: Path,
        master: str = "local[*]",
        threads: int | None = None,
        memory_gb: float | None = None,
    ) -> None:
        """`threads` and `memory_gb` size the one JVM of a local master; a cluster brings its own
        (spark-defaults.conf).
        """
        # Ibis registers our functions by name; by value, executors need no CroPS of their own, nor can an
        # older one answer.
        pyspark.cloudpickle.register_pickle_by_value(sys.modules["crops"])
        self.scratch = scratch
        self._borrowed = SparkSession.getActiveSession() is not None
        self.session = _session(master, scratch, threads, memory_gb)
        for name, value in SETTINGS.items():
            self.session.conf.set(name, value)
        self.backend = ibis.pyspark.connect(self.session)

    def scan(self, files: list[Path]) -> ir.Table:
        """See Warehouse.scan."""
        return self._named(
            self.session.read.option("mergeSchema", "true").parquet(*(os.path.abspath(f) for f in files))
        )

    def keep(self, expr: ir.Table, name: str) -> ir.Table:
        """See Warehouse.keep; `name` names the folder."""
        folder = os.path.abspath(self.scratch / f"{name}-{uuid.uuid4().hex[:8]}")
        self._frame(expr).write.parquet(folder)
        return self._named(self.session.read.parquet(folder))

    def put(self, rows: pa.Table, name: str) -> ir.Table:  # noqa: ARG002
        """See Warehouse.put; for small tables, they pass through the driver."""
        return self._named(self.session.createDataFrame(rows))

    def drop(self, table: ir.Table) -> None:
        """See Warehouse.drop; the files go with the scratch folder, because an executor may still read
        them.
        """
        self.session.catalog.dropTempView(table.get_name())

    def save(self, exprs: Iterable[ir.Table], folder: Path) -> None:
        """See Warehouse.save; one file per partition of the sort."""
        folder.mkdir(parents=True)
        number = itertools.count()
        for expr in exprs:
            # Hidden: a reader of `folder` takes no notice of it.
            written = folder / ".making"
            self._frame(expr).write.parquet(os.path.abspath(written))
            for path in sorted(written.glob("part-*.parquet")):
                path.rename(folder / artifacts.part(next(number)))
            shutil.rmtree(written)

    def close(self) -> None:
        """See Warehouse.close; a session that was there before us is left running."""
        if not self._borrowed:
            self.backend.disconnect()

    def explain(self, error: Exception) -> Exception | None:
        """See Warehouse.explain."""
        if type(error).__module__.partition(".")[0] not in ("pyspark", "py4j"):
            return None
        text = str(error)
        line = " ".join(text.split())[:300]
        if "No space left" in text:
            return full_disk(self.scratch)
        if "java.lang.OutOfMemoryError" in text:
            return StorageError(
                f"Spark is out of memory; raise memory_gb, or the executors' memory on a cluster ({line})"
            )
        if "FAILED_READ_FILE" in text or "is not a Parquet file" in text:
            return InputError("logs", f"a Parquet file is damaged ({line})")
        return None

    def _frame(self, expr: ir.Table) -> DataFrame:
        # What Ibis does before it runs an expression itself: user-defined functions are registered with the
        # session.
        self.backend._run_pre_execute_hooks(expr)
        return self.session.sql(self.backend.compile(expr))

    def _named(self, frame: DataFrame) -> ir.Table:
        view = f"crops_{uuid.uuid4().hex}"
        frame.createOrReplaceTempView(view)
        return self.backend.table(view)


def _session(master: str, scratch: Path, threads: int | None, memory_gb: float | None) -> SparkSession:
    if master.startswith("sc://"):
        return SparkSession.builder.remote(master).getOrCreate()
    if threads and master == "local[*]":
        master = f"local[{threads}]"
    settings: dict[str, bool | float | int | str | None] = {"spark.ui.showConsoleProgress": "false"}
    if master.startswith("local"):
        settings |= {
            "spark.local.dir": os.path.abspath(scratch),
            "spark.ui.enabled": "false",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
        }
        # Workers of a local master are children of ours: the same Python, whatever `python3` is on the path.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        if memory_gb:
            settings["spark.driver.memory"] = f"{int(memory_gb * 1024)}m"
    builder: Any = SparkSession.builder.master(master).appName("crops").config(map=settings)
    try:
        return builder.getOrCreate()
    except Exception as error:
        if "JAVA_GATEWAY_EXITED" not in str(error):
            raise
        java = shutil.which("java") or "not found"
        raise ConfigError(
            f"engine is 'spark', but Java does not start (java: {java}); install Java 17"
        ) from error
