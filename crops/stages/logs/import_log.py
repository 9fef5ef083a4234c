"""A public data set, or a log of another shape, to the tables: read the files, convert, write."""

import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.compute as pc
import pyarrow.dataset as ds

from crops.adapters import kuaisar, qilin, recflow, search_log, trec_session
from crops.adapters.columns import ColumnMap
from crops.adapters.release import Piece, Release, text
from crops.engines import session
from crops.errors import ConfigError, InputError
from crops.stages.base import StageReport
from crops.tables import artifacts, records

LARGE = {"kuaisar": kuaisar.read, "qilin": qilin.read, "recflow": recflow.read}
DATASETS = ("trec-session", *LARGE)
# What the engine may hold in memory; beyond it, it spills into the output folder. KuaiSAR and RecFlow are
# larger than that.
MEMORY_GB = 4.0
TABLES = {table.name: table for table in records.LOGS}


def run(src: Path, out: Path, *, dataset: str = "trec-session", memory_gb: float = MEMORY_GB) -> StageReport:
    """Writes the tables that the data set has under `out`; trec-session has truth/relevance as well (weak:
    what others clicked for the same topic). Raises InputError, and says what to do, where `src` is not that
    data set.
    """
    if dataset not in DATASETS:
        raise ConfigError(f"dataset is {dataset!r}, expected one of {', '.join(DATASETS)}")
    if dataset == "trec-session":
        return _trec_session(src, out)
    return _large(LARGE[dataset](src), [src], out, memory_gb)


def run_table(
    src: Path,
    out: Path,
    columns: ColumnMap,
    more: Mapping[str, Path] | None = None,
    *,
    memory_gb: float = MEMORY_GB,
) -> StageReport:
    """Writes the tables of a search log in CSV, JSON lines or Parquet; `more`: files of results, feed and
    videos by these names. The notes say how times were read and what could not be. Raises InputError that
    names file, column and expectation.
    """
    inputs = [src, *(more or {}).values()]
    return _large(search_log.read(src, columns, more), inputs, out, memory_gb)


def _trec_session(src: Path, out: Path) -> StageReport:
    if src.is_dir():
        raise InputError(src, "a folder, expected the file sessiontrack2013.xml")
    tables = trec_session.convert(src.read_bytes(), str(src))
    with artifacts.replacing(out, inputs=[src]) as folder:
        for table in records.REQUIRED:
            artifacts.write(folder, table, getattr(tables, table.name))
        artifacts.write(folder / "truth", records.RELEVANCE, tables.relevance)
    return StageReport(
        numbers={
            **{name: getattr(tables, name).num_rows for name in ("searches", "results", "videos")},
            "clicked_results": pc.sum(tables.results["clicked"]).as_py() or 0,
            "weak_truth_pairs": tables.relevance.num_rows,
        },
        notes=(
            "feed: no such table in this data set",
            "times are relative in the file: the dates are made up",
            "truth/relevance is weak: what other sessions clicked for the same topic",
        ),
    )


def _large(release: Release, inputs: list[Path], out: Path, memory_gb: float) -> StageReport:
    """Piece by piece through the embedded engine: memory does not grow with the data set."""
    src = inputs[0]
    rows: Counter[str] = Counter()
    with artifacts.replacing(out, inputs=inputs) as folder:
        scratch = folder / ".scratch"
        with session.opened("duckdb", scratch=scratch, memory_gb=memory_gb) as house:
            engine: Any = house.backend.con
            for number, piece in enumerate(release.pieces):
                rows.update(_piece(engine, piece, number, folder, src))
            counts = {name: int(engine.execute(sql).fetchone()[0]) for name, sql in release.counts.items()}
            notes = [note for r in release.remarks for note in r.say(engine.execute(r.sql).fetchall())]
        shutil.rmtree(scratch, ignore_errors=True)
        if not rows["searches"]:
            raise InputError(src, f"no search could be read{f'; {counts}' if counts else ''}")
    return StageReport(numbers={**rows, **counts}, notes=(*release.notes, *notes))


def _piece(engine: Any, piece: Piece, number: int, folder: Path, src: Path) -> Counter[str]:
    try:
        for name, path in piece.feather.items():
            engine.register(name, ds.dataset(path, format="feather"))
        for statement in piece.setup:
            engine.execute(statement)
        return Counter(
            {name: _write(engine, sql, TABLES[name], number, folder) for name, sql in piece.tables.items()}
        )
    except (duckdb.InvalidInputException, duckdb.ConversionException) as error:
        raise search_log.unread(src, error) from error


def _write(engine: Any, sql: str, table: records.Table, number: int, folder: Path) -> int:
    """One file per date, or one in all, each in the order of time and key; returns the number of rows."""
    names = ", ".join(f'"{name}"' for name in table.schema.names)
    timed = ["ts"] if "ts" in table.schema.names else []
    order = ", ".join(f'"{name}"' for name in [*timed, *_order(table)])
    engine.execute(f"CREATE OR REPLACE TEMP TABLE whole AS {sql}")
    dates = (
        [d for (d,) in engine.execute("SELECT DISTINCT date FROM whole ORDER BY 1").fetchall()]
        if table.partitioned
        else [None]
    )
    for date in dates:
        path = folder / table.name / (f"date={date}" if date else "") / f"part-{number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        of_day = f"WHERE date = {text(date)}" if date else ""
        engine.execute(
            f"COPY (SELECT {names} FROM whole {of_day} ORDER BY {order}) TO {text(path)} "
            f"(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {artifacts.ROW_GROUP})"
        )
        artifacts.check_schema(path, table)
    written = int(engine.execute("SELECT count(*) FROM whole").fetchone()[0])
    engine.execute("DROP TABLE whole")
    return written


def _order(table: records.Table) -> tuple[str, ...]:
    return ("search_id", "position", "video_id") if table is records.RESULTS else table.key
