"""Splits a table into accepted and quarantined rows with DuckDB; what exceeds its memory spills to disk."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from crops.io import artifacts
from crops.io.validation.rules import Rule
from crops.records import Table


@dataclass(frozen=True, slots=True)
class Split:
    """Counts of one table, and per day what the expectations look at."""

    read: int
    accepted: int
    reasons: dict[str, int]
    days: list[dict[str, Any]] = field(default_factory=list)

    @property
    def quarantined(self) -> int:
        """Rows that were not accepted."""
        return sum(self.reasons.values())


def _columns(table: Table, present: set[str]) -> str:
    return ", ".join(name if name in present else f"NULL AS {name}" for name in table.schema.names)


def split(base: duckdb.DuckDBPyConnection, logs: Path, out: Path, table: Table, rules: Sequence[Rule]) -> Split:
    """Writes `out`/TABLE (accepted, same schema) and `out`/quarantine/TABLE (all columns, reason, file, row)."""
    files = artifacts.table_files(logs, table)
    base.execute("DROP TABLE IF EXISTS judged")
    base.execute(f"CREATE TEMP TABLE judged AS {_judged(base, files, table, rules)}", [[str(f) for f in files]])
    total = _one(base, "SELECT count(*) FROM judged")
    reasons = dict(base.execute("SELECT reason, count(*) FROM judged WHERE reason IS NOT NULL GROUP BY 1 ORDER BY 1").fetchall())
    _write(base, out, table, logs)
    return Split(total, total - sum(reasons.values()), reasons, _days(base, table))


def _judged(base: duckdb.DuckDBPyConnection, files: list[Path], table: Table, rules: Sequence[Rule]) -> str:
    """Every row with its day, file, place, and the first reason against it (null: none)."""
    described = base.execute("DESCRIBE SELECT * FROM read_parquet($1, union_by_name=true)", [[str(f) for f in files]]).fetchall()
    columns = _columns(table, {row[0] for row in described})
    key = ", ".join(table.key)
    search = "search_id IN (SELECT search_id FROM good_searches)" if "search_id" in table.schema.names else "true"
    video = "video_id IN (SELECT video_id FROM good_videos)" if table.name in ("results", "feed") else "true"
    cases = " ".join(f"WHEN {rule.sql} THEN '{rule.reason}'" for rule in rules)
    return f"""
        WITH raw AS (
            SELECT {columns}, filename AS file, file_row_number AS row_number,
                   regexp_extract(filename, 'date=([0-9-]{{10}})', 1) AS folder
            FROM read_parquet($1, union_by_name=true, filename=true, file_row_number=true, hive_partitioning=false)
        ), helped AS (
            SELECT *, nullif(folder, '') AS day,
                   row_number() OVER (PARTITION BY {key} ORDER BY file, row_number) AS copy,
                   {"true" if table.name == "searches" else search} AS known_search, {video} AS known_video
            FROM raw
        )
        SELECT * EXCLUDE (copy, known_search, known_video, folder), CASE {cases} END AS reason FROM helped
    """


def _write(base: duckdb.DuckDBPyConnection, out: Path, table: Table, logs: Path) -> None:
    names = ", ".join(table.schema.names)
    order = ", ".join(table.key)
    days = [None]
    if table.partitioned:
        own = "strftime(ts, '%Y-%m-%d')" if "ts" in table.schema.names else "coalesce(day, 'unknown')"
        days = [r[0] for r in base.execute(f"SELECT DISTINCT {own} FROM judged WHERE reason IS NULL ORDER BY 1").fetchall()]
    for day in days:
        folder = out / table.name / (f"date={day}" if day else "")
        folder.mkdir(parents=True, exist_ok=True)
        where = f"AND {own} = '{day}'" if day else ""
        base.execute(
            f"COPY (SELECT {names} FROM judged WHERE reason IS NULL {where} ORDER BY {order}) "
            f"TO '{folder / 'part-0.parquet'}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {artifacts.ROW_GROUP})"
        )
    if _one(base, "SELECT count(*) FROM judged WHERE reason IS NOT NULL"):
        folder = out / "quarantine" / table.name
        folder.mkdir(parents=True)
        # Paths as the user gave them, below the logs folder: the same log gives the same bytes anywhere.
        base.execute(
            f"COPY (SELECT {names}, reason, replace(file, '{logs}/', '') AS file, row_number FROM judged "
            f"WHERE reason IS NOT NULL ORDER BY file, row_number) TO '{folder / 'part-0.parquet'}' (FORMAT parquet)"
        )


def _days(base: duckdb.DuckDBPyConnection, table: Table) -> list[dict[str, Any]]:
    """Per day (one row where the table has none): rows, against the day before, clicks per exposed result."""
    day = "coalesce(day, strftime(ts, '%Y-%m-%d'))" if "ts" in table.schema.names and table.partitioned else "day"
    day = day if table.partitioned else "'all'"
    shown = "avg(clicked::INT) FILTER (WHERE stage = 'exposed')" if table.name == "results" else "NULL"
    found = base.execute(f"""
        SELECT {day} AS date, count(*) AS rows, {shown} AS click_rate FROM judged GROUP BY 1 ORDER BY 1
    """).fetchall()
    out, before = [], None
    for date, rows, rate in found:
        out.append({"date": date, "rows": rows, "against_day_before": rows / before if before else 1.0, "click_rate": rate})
        before = rows
    return out


def _one(base: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = base.execute(sql).fetchone()
    return int(row[0]) if row else 0
