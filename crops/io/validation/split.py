"""Splits a table into accepted and quarantined rows with DuckDB; what exceeds its memory spills to disk."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from crops.config.validate import ValidateConfig
from crops.io import artifacts
from crops.io.validation import relation
from crops.io.validation.checks import Check, quoted, seen
from crops.records import Table

# The sample of a day is chosen in parts of this many.
SLICES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Counts of one table.

    reasons   reason -> quarantined rows whose first failing check it is
    concerned reason -> rows that the check is about;  failed: reason -> rows that fail it, whatever else they fail
    days      per day: date, rows, accepted, and what the expectations of a day look at
    """

    read: int
    reasons: dict[str, int]
    concerned: dict[str, int]
    failed: dict[str, int]
    days: list[dict[str, Any]]

    @property
    def quarantined(self) -> int:
        """Rows that were not accepted."""
        return sum(self.reasons.values())

    @property
    def accepted(self) -> int:
        """Rows that go on."""
        return self.read - self.quarantined


def judge(
    base: duckdb.DuckDBPyConnection, files: Sequence[Path], table: Table, checks: Sequence[Check], cfg: ValidateConfig
) -> None:
    """Makes the temporary table `judged`: every row with its helpers and the first reason against it (null: none)."""
    names = [[str(f) for f in files]]
    described = base.execute("DESCRIBE SELECT * FROM read_parquet($1, union_by_name=true)", names).fetchall()
    cases = " ".join(f"WHEN {check.sql} THEN {quoted(check.reason)}" for check in checks)
    rows = relation.helped(table, {row[0] for row in described}, cfg)
    base.execute("DROP TABLE IF EXISTS judged")
    base.execute(f"CREATE TEMP TABLE judged AS SELECT *, CASE {cases} END AS reason FROM ({rows})", names)


def count(base: duckdb.DuckDBPyConnection, table: Table, checks: Sequence[Check]) -> Split:
    """The counts of `judged`."""
    columns = ", ".join(f"count(*) FILTER ({c.concerns}), count(*) FILTER ({c.sql})" for c in checks)
    read, *counts = _row(base, f"SELECT count(*), {columns} FROM judged")
    reasons = base.execute("SELECT reason, count(*) FROM judged WHERE reason IS NOT NULL GROUP BY 1 ORDER BY 1").fetchall()
    names = [check.reason for check in checks]
    return Split(
        read=read, reasons=dict(reasons), concerned=dict(zip(names, counts[::2], strict=True)),
        failed=dict(zip(names, counts[1::2], strict=True)), days=_days(base, table),
    )  # fmt: skip


def write(base: duckdb.DuckDBPyConnection, out: Path, table: Table, logs: Path) -> None:
    """Writes `out`/TABLE (accepted, the schema of crops.records) and `out`/quarantine/TABLE (with reason, file, row)."""
    names = ", ".join(table.schema.names)
    own = relation.day_of(table)
    days = base.execute(f"SELECT DISTINCT {own} FROM judged WHERE reason IS NULL ORDER BY 1").fetchall()
    for (day,) in days:
        folder = out / table.name / (f"date={day}" if table.partitioned else "")
        folder.mkdir(parents=True, exist_ok=True)
        base.execute(
            f"COPY (SELECT {names} FROM judged WHERE reason IS NULL AND {own} = '{day}' ORDER BY {', '.join(table.key)}) "
            f"TO '{folder / 'part-0.parquet'}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {artifacts.ROW_GROUP})"
        )
    if _row(base, "SELECT count(*) FROM judged WHERE reason IS NOT NULL")[0]:
        folder = out / "quarantine" / table.name
        folder.mkdir(parents=True)
        # Paths below the logs folder: the same log gives the same bytes anywhere.
        base.execute(
            f"COPY (SELECT {names}, reason, replace(file, $1, '') AS file, row_number FROM judged "
            f"WHERE reason IS NOT NULL ORDER BY file, row_number) TO '{folder / 'part-0.parquet'}' (FORMAT parquet)", [f"{logs}/"]
        )  # fmt: skip


def remember(base: duckdb.DuckDBPyConnection, table: Table) -> None:
    """Keeps what the tables that come later refer to: every id, whether its row was accepted, and its time."""
    if table.name not in ("searches", "videos"):
        return
    key, time = table.key[0], "ts" if table.name == "searches" else "uploaded_at"
    base.execute(
        f"CREATE OR REPLACE TEMP TABLE known_{table.name} AS SELECT {key}, bool_or(reason IS NULL) AS accepted, "
        f"any_value({time}) FILTER (reason IS NULL) AS {time} FROM judged WHERE {key} IS NOT NULL GROUP BY 1"
    )


def batches(
    base: duckdb.DuckDBPyConnection, table: Table, checks: Sequence[Check], *, per_day: int | None, rows: int
) -> Iterator[pa.RecordBatch]:
    """`judged` in batches of at most `rows`, the columns that the checks read, as they look at them.

    Every row that has a reason, and of the others about `per_day` of each day (null: all), chosen by a hash of the key:
    the same ones each time.
    """
    columns = dict.fromkeys(name for check in checks for name in check.columns)
    day = relation.day_of(table)
    chosen = ""
    if per_day is not None:
        base.execute(
            f"CREATE OR REPLACE TEMP TABLE shares AS SELECT {day} AS day, "
            f"least({SLICES}, {SLICES * per_day}::BIGINT // count(*)) AS share FROM judged WHERE reason IS NULL GROUP BY 1"
        )
        key = ", ".join(table.key)
        chosen = f"LEFT JOIN shares ON shares.day = {day} WHERE reason IS NOT NULL OR hash({key}) % {SLICES} < share"
    listed = ", ".join(f"{seen(name)} AS {name}" for name in columns)
    # `sql` streams; `execute` would hold the whole answer.
    reader: pa.RecordBatchReader = base.sql(f"SELECT {listed} FROM judged {chosen}").to_arrow_reader(rows)
    yield from reader


def _days(base: duckdb.DuckDBPyConnection, table: Table) -> list[dict[str, Any]]:
    """Per day (one row where the table has none): rows, against the day before, clicks and positions of what was exposed.

    A day is compared with the day before it alone, so the first one and one after a gap are not (null).
    """
    if not table.partitioned:
        return [{"date": "all", "rows": _row(base, "SELECT count(*) FROM judged")[0]}]
    day = f"coalesce(folder_day, {relation.day_of(table)}, 'unknown')"
    extra = ", c.click_rate, p.position_gap_share" if table.name == "results" else ""
    joins = (
        f"LEFT JOIN ({_CLICKS.format(day=day)}) c USING (date) LEFT JOIN ({_GAPS.format(day=day)}) p USING (date)"
        if extra
        else ""
    )
    found = base.execute(f"""
        WITH d AS (SELECT {day} AS date, count(*) AS rows, count(*) FILTER (reason IS NULL) AS accepted FROM judged GROUP BY 1),
             e AS (SELECT *, lag(rows) OVER w AS before, date_diff('day', TRY_CAST(lag(date) OVER w AS DATE),
                          TRY_CAST(date AS DATE)) AS days_since FROM d WINDOW w AS (ORDER BY date))
        SELECT date, rows, accepted, days_since AS days_since_day_before,
               CASE WHEN days_since = 1 THEN rows / before END AS rows_against_day_before {extra}
        FROM e {joins} ORDER BY date
    """)
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


_CLICKS = "SELECT {day} AS date, avg(clicked::INT) AS click_rate FROM judged WHERE stage = 'exposed' GROUP BY 1"
# Positions 0 .. n-1, each once.
_GAPS = """
    SELECT date, avg((n <> different OR low <> 0 OR high <> n - 1)::INT) AS position_gap_share FROM (
        SELECT {day} AS date, search_id, count(*) AS n, count(DISTINCT position) AS different,
               min(position) AS low, max(position) AS high
        FROM judged WHERE stage = 'exposed' AND search_id IS NOT NULL GROUP BY 1, 2
    ) GROUP BY 1
"""


def _row(base: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    """The one row of an answer; fetched to its end, because a connection streams nothing while an answer is open."""
    (row,) = base.execute(sql).fetchall()
    return tuple(row)
