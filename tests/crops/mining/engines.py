"""Which engines a test runs on, and the one Spark session that its process has."""

import functools
import importlib.util
import os
import shutil
import sys

import pytest

ENGINES = ["duckdb", pytest.param("spark", marks=pytest.mark.spark)]


def need_spark():
    """Skips, with the reason, where a part is missing; else starts the session that SparkWarehouse will find
    and leave.
    """
    if importlib.util.find_spec("pyspark") is None:
        pytest.skip("not run: PySpark is not installed (extra 'spark')")
    if shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        pytest.skip("not run: Spark needs Java (tests/install_system_parts)")
    _session()


@functools.cache
def _session():
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    # The default of 200 partitions would spend the tests on empty ones.
    settings = {
        "spark.sql.shuffle.partitions": "4",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
    }
    builder = SparkSession.builder.master("local[2]").appName("tests")
    session = builder.config(map=settings).getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session
