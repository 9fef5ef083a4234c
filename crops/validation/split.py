"""Splits a table into accepted and quarantined rows; see crops.validation.engine for who runs it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from crops.config.validate import ValidateConfig
from crops.tables.records import Table
from crops.validation import relation
from crops.validation.checks import Check, quoted, seen
from crops.validation.engine import Engine
from crops.validation.source import Source

# The sample of a day is chosen in parts of this many.
SLICES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Counts of one table.

    reasons   reason -> quarantined rows whose first failing check it is
    concerned reason -> rows that the check is about;  failed: reason -> rows that fail it, whatever else they
                                                       fail
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


def judge(engine: Engine, source: Source, root: Path, checks: Sequence[Check], cfg: ValidateConfig) -> None:
    """Makes the table `judged`: every row with its helpers and the first reason against it (null: none).
    root: the table's folder.
    """
    cases = " ".join(f"WHEN {check.sql} THEN {quoted(check.reason)}" for check in checks)
    views = [f"raw_files_{n}" for n in range(len(source.shapes))]
    for view, shape in zip(views, source.shapes, strict=True):
        engine.scan(view, shape.files, shape.types)
    rows = relation.helped(source, root, views, cfg)
    engine.keep("judged", f"SELECT *, CASE {cases} END AS reason FROM ({rows})")


def count(engine: Engine, table: Table, checks: Sequence[Check]) -> Split:
    """The counts of `judged`."""
    columns = ", ".join(
        f"count(*) FILTER (WHERE {c.concerns}) AS concerned_{n}, count(*) FILTER (WHERE "
        f"{c.sql}) AS failed_{n}"
        for n, c in enumerate(checks)
    )
    (totals,) = engine.rows(f"SELECT count(*) AS read, {columns} FROM judged")
    reasons = engine.rows(
        "SELECT reason, count(*) AS n FROM judged WHERE reason IS NOT NULL GROUP BY reason ORDER BY reason"
    )
    return Split(
        read=totals["read"],
        reasons={row["reason"]: row["n"] for row in reasons},
        days=_days(engine, table),
        concerned={check.reason: totals[f"concerned_{n}"] for n, check in enumerate(checks)},
        failed={check.reason: totals[f"failed_{n}"] for n, check in enumerate(checks)},
    )


def write(engine: Engine, out: Path, table: Table, logs: Path) -> None:
    """Writes `out`/TABLE (accepted, the schema of crops.tables.records) and `out`/quarantine/TABLE (with
    reason, file, row).
    """
    names = ", ".join(table.schema.names)
    engine.save(
        f"SELECT {names}, {relation.day_of(table)} AS day FROM judged WHERE reason IS NULL",
        table,
        out / table.name,
    )
    if engine.rows("SELECT count(*) AS n FROM judged WHERE reason IS NOT NULL")[0]["n"]:
        # Paths below the logs folder: the same log gives the same bytes anywhere.
        below = f"replace(file, {quoted(f'{logs}/')}, '')"
        engine.save_one(
            f"SELECT {names}, reason, {below} AS file, row_number FROM judged WHERE reason IS NOT NULL",
            out / "quarantine" / table.name,
            ("file", "row_number"),
        )


def remember(engine: Engine, table: Table) -> None:
    """Keeps what the tables that come later refer to: every id, whether its row was accepted, and its
    time.
    """
    if table.name not in ("searches", "videos"):
        return
    key, time = table.key[0], "ts" if table.name == "searches" else "uploaded_at"
    engine.keep(
        f"known_{table.name}",
        f"SELECT {key}, bool_or(reason IS NULL) AS accepted, "
        f"max({time}) FILTER (WHERE reason IS NULL) AS {time} FROM judged WHERE {key} IS NOT "
        f"NULL GROUP BY {key}",
    )


def batches(
    engine: Engine, table: Table, checks: Sequence[Check], *, per_day: int | None, rows: int
) -> Iterator[pa.RecordBatch]:
    """`judged` in batches of at most `rows`, the columns that the checks read, as they look at them.

    Every row that has a reason, and of the others about `per_day` of each day (null: all), chosen by a hash
    of the key: the same ones each time.
    """
    columns = dict.fromkeys(name for check in checks for name in check.columns)
    day = relation.day_of(table)
    chosen = ""
    if per_day is not None:
        engine.keep(
            "shares",
            f"SELECT {day} AS day, least({SLICES}, CAST(floor({SLICES * per_day} / count(*)) AS "
            "BIGINT)) AS share "
            f"FROM judged WHERE reason IS NULL GROUP BY {day}",
        )
        drawn = f"{engine.hashed(table.key, SLICES)} < share"
        chosen = f"LEFT JOIN shares ON shares.day = {day} WHERE reason IS NOT NULL OR {drawn}"
    listed = ", ".join(f"{seen(name)} AS {name}" for name in columns)
    yield from engine.stream(f"SELECT {listed} FROM judged {chosen}", rows)


def _days(engine: Engine, table: Table) -> list[dict[str, Any]]:
    """Per day (one row where the table has none): rows, against the day before, clicks and positions of what
    was exposed.

    A day is compared with the day before it alone, so the first one and one after a gap are not (null).
    """
    if not table.partitioned:
        return engine.rows("SELECT 'all' AS date, count(*) AS rows FROM judged")
    day = f"coalesce(folder_day, {relation.day_of(table)}, 'unknown')"
    extra = ", c.click_rate, p.position_gap_share" if table.name == "results" else ""
    joins = (
        f"LEFT JOIN ({_CLICKS.format(day=day)}) c USING (date) LEFT JOIN "
        f"({_GAPS.format(day=day)}) p USING (date)"
        if extra
        else ""
    )
    return engine.rows(f"""
        WITH d AS (SELECT {day} AS date, count(*) AS rows, count(*) FILTER (reason IS NULL) AS accepted
            FROM judged GROUP BY 1),
             e AS (SELECT *, lag(rows) OVER w AS before, date_diff('day', TRY_CAST(lag(date) OVER w AS DATE),
                          TRY_CAST(date AS DATE)) AS days_since FROM d WINDOW w AS (ORDER BY date))
        SELECT date, rows, accepted, days_since AS days_since_day_before,
               CASE WHEN days_since = 1 THEN rows / before END AS rows_against_day_before {extra}
        FROM e {joins} ORDER BY date
    """)


_CLICKS = (
    "SELECT {day} AS date, avg(clicked::INT) AS click_rate FROM judged WHERE stage = 'exposed' GROUP BY 1"
)
# Positions 0 .. n-1, each once.
_GAPS = """
    SELECT date, avg((n <> different OR low <> 0 OR high <> n - 1)::INT) AS position_gap_share FROM (
        SELECT {day} AS date, search_id, count(*) AS n, count(DISTINCT position) AS different,
               min(position) AS low, max(position) AS high
        FROM judged WHERE stage = 'exposed' AND search_id IS NOT NULL GROUP BY 1, 2
    ) GROUP BY 1
"""
