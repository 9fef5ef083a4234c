"""Opens the warehouse of an engine by its name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crops import cores
from crops.config.base import ENGINES
from crops.engines.warehouse import Warehouse
from crops.errors import ConfigError


@contextmanager
def opened(
    engine: str,
    *,
    scratch: Path,
    threads: int | None = None,
    memory_gb: float | None = None,
    spark_master: str = "local[*]",
) -> Iterator[Warehouse]:
    """The warehouse for `engine` while the block runs; what the engine says of a full disk or a broken file
    is one line. threads: None is one per core that this process may use, and Java's own count of them.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine is {engine!r}, expected {' or '.join(ENGINES)}")
    warehouse: Warehouse
    if engine == "duckdb":
        from crops.engines import duckdb

        warehouse = duckdb.DuckDBWarehouse(
            scratch=scratch, threads=threads or cores.count(), memory_gb=memory_gb
        )
    else:
        # Only here: the extra `spark` and Java are for those who ask for them.
        from crops.engines import spark

        warehouse = spark.SparkWarehouse(
            scratch=scratch, master=spark_master, threads=threads, memory_gb=memory_gb
        )
    try:
        yield warehouse
    except Exception as error:
        explained = warehouse.explain(error)
        if explained is None:
            raise
        raise explained from error
    finally:
        warehouse.close()
