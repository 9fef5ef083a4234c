"""Splits a table into accepted and quarantined rows; see crops.validation.engine for who runs it."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
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


def count(engine: Engine, table: Table, checks: Sequence[Check], *, by: str = "''") -> dict[str, Split]:
    """The counts of `judged` for each value of the SQL `by`: one for all rows, or `folder_day`."""
    columns = ", ".join(
        f"count(*) FILTER (WHERE {c.concerns}) AS concerned_{n}, count(*) FILTER (WHERE "
        f"{c.sql}) AS failed_{n}"
        for n, c in enumerate(checks)
    )
    totals = engine.rows(f"SELECT {by} AS part, count(*) AS read, {columns} FROM judged GROUP BY 1")
    reasons = engine.rows(
        f"SELECT {by} AS part, reason, count(*) AS n FROM judged WHERE reason IS NOT NULL GROUP BY 1, 2"
    )
    days = _days(engine, table)
    return {
        row["part"]: Split(
            read=row["read"],
            reasons={r["reason"]: r["n"] for r in reasons if r["part"] == row["part"]},
            days=[day for day in days if day["date"] == row["part"]] if row["part"] else days,
            concerned={check.reason: row[f"concerned_{n}"] for n, check in enumerate(checks)},
            failed={check.reason: row[f"failed_{n}"] for n, check in enumerate(checks)},
        )
        for row in totals
    }


def added(parts: Collection[Split], table: Table, checks: Sequence[Check]) -> Split:
    """The counts of the whole table from those of its parts; its days, each against the day before."""

    def total(name: str) -> dict[str, int]:
        return {c.reason: sum(getattr(part, name)[c.reason] for part in parts) for c in checks}

    reasons = sum((Counter(part.reasons) for part in parts), Counter[str]())
    days = sorted((day for part in parts for day in part.days), key=lambda day: day["date"])
    return Split(
        read=sum(part.read for part in parts),
        reasons=dict(sorted(reasons.items())),
        concerned=total("concerned"),
        failed=total("failed"),
        days=_against_day_before(days) if table.partitioned else days,
    )


def write(engine: Engine, out: Path, table: Table) -> None:
    """Writes `out`/TABLE: what is accepted of `judged`, in the schema of crops.tables.records."""
    names = ", ".join(table.schema.names)
    engine.save(
        f"SELECT {names}, {relation.day_of(table)} AS day FROM judged WHERE reason IS NULL",
        table,
        out / table.name,
    )


def quarantined(table: Table, logs: Path) -> str:
    """SQL of what is not accepted of `judged`: with reason, file, row."""
    names = ", ".join(table.schema.names)
    # Paths below the logs folder: the same log gives the same bytes anywhere.
    below = f"replace(file, {quoted(f'{logs}/')}, '')"
    return f"SELECT {names}, reason, {below} AS file, row_number FROM judged WHERE reason IS NOT NULL"


def write_quarantine(engine: Engine, out: Path, table: Table, rows: str) -> None:
    """Writes `out`/quarantine/TABLE from the SQL `rows` of `quarantined`, where there are any."""
    if engine.rows(f"SELECT count(*) AS n FROM ({rows})")[0]["n"]:
        engine.save_one(rows, out / "quarantine" / table.name, ("file", "row_number"))


def remember(engine: Engine, table: Table, rows: str = "judged") -> None:
    """Keeps what the tables that come later refer to: every id of `rows`, whether its row was accepted, and
    its time.
    """
    if table.name not in ("searches", "videos"):
        return
    key, time = table.key[0], "ts" if table.name == "searches" else "uploaded_at"
    engine.keep(
        f"known_{table.name}",
        f"SELECT {key}, bool_or(reason IS NULL) AS accepted, "
        f"max({time}) FILTER (WHERE reason IS NULL) AS {time} FROM {rows} WHERE {key} IS NOT "
        f"NULL GROUP BY {key}",
    )


def batches(
    engine: Engine,
    table: Table,
    checks: Sequence[Check],
    *,
    per_day: int | None,
    rows: int,
    where: str = "true",
) -> Iterator[pa.RecordBatch]:
    """`judged`, of it what the SQL `where` says, in batches of at most `rows`, the columns that the checks
    read, as they look at them; rows that have a reason first, as they stand in the files.

    Every row that has a reason, and of the others about `per_day` of each day (null: all), chosen by a hash
    of the key: the same ones each time.
    """
    columns = dict.fromkeys(name for check in checks for name in check.columns)
    day = relation.day_of(table)
    join, chosen = "", "true"
    if per_day is not None:
        engine.keep(
            "shares",
            f"SELECT {day} AS day, least({SLICES}, CAST(floor({SLICES * per_day} / count(*)) AS "
            "BIGINT)) AS share "
            f"FROM judged WHERE reason IS NULL AND {where} GROUP BY {day}",
        )
        drawn = f"{engine.hashed(table.key, SLICES)} < share"
        join, chosen = f"LEFT JOIN shares ON shares.day = {day}", f"(reason IS NOT NULL OR {drawn})"
    listed = ", ".join(f"{seen(name)} AS {name}" for name in columns)
    order = "reason IS NULL, file, row_number"
    yield from engine.stream(
        f"SELECT {listed} FROM judged {join} WHERE {where} AND {chosen} ORDER BY {order}", rows
    )


def _days(engine: Engine, table: Table) -> list[dict[str, Any]]:
    """Per day (one row where the table has none): rows, and clicks and positions of what was exposed."""
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
            FROM judged GROUP BY 1)
        SELECT date, rows, accepted {extra} FROM d {joins}
    """)


def _against_day_before(days: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ascending days, each with the days since the one before (null: none, or no date) and its rows against
    that.

    A day is compared with the day before it alone, so the first one and one after a gap are not (null).
    """
    compared = []
    for before, day in zip([None, *days], days, strict=False):
        since = None if before is None else _days_between(before["date"], day["date"])
        ratio = day["rows"] / before["rows"] if before is not None and since == 1 else None
        first = {name: day[name] for name in ("date", "rows", "accepted")}
        compared.append({**first, "days_since_day_before": since, "rows_against_day_before": ratio, **day})
    return compared


def _days_between(one: str, other: str) -> int | None:
    try:
        return (date.fromisoformat(other) - date.fromisoformat(one)).days
    except ValueError:  # "unknown", or a folder that names no day
        return None


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
