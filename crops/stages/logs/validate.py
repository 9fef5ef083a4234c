"""Checks the logs: accepted rows go on, bad rows go to quarantine with a reason, Data Docs show what was
expected.
"""

import functools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from crops import perspectives
from crops.config.validate import ValidateConfig
from crops.engines import session
from crops.engines.duckdb import DuckDBWarehouse
from crops.engines.warehouse import Warehouse
from crops.errors import ConfigError, InputError
from crops.stages.base import StageReport
from crops.tables import artifacts, records
from crops.validation import by_day, clocks, damage, docs, rules, shape, source, split, suite
from crops.validation.engine import DuckDBEngine, Engine
from crops.validation.source import Source
from crops.validation.suite import Outcome

# Rows that Great Expectations holds at once: 20 columns of them are some 50 MB.
BATCH_ROWS = 250_000
PARTS = ("read", "accepted", "quarantined", "reasons", "days")
# Of Great Expectations: the expectation that names all values that are allowed.
IN_SET = "expect_column_values_to_be_in_set"
# Warnings on the terminal.
SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One table: its counts, how it is distributed, every expectation with its outcome, and how many days
    were in the store.
    """

    split: split.Split
    shape: dict[str, Any]
    outcomes: list[Outcome]
    from_store: int


def run(logs: Path, out: Path, cfg: ValidateConfig, *, engine: str | None = None) -> StageReport:
    """Writes the accepted tables, quarantine/, validation.json ({"success": ...}) and data_docs/.

    An InputError lists everything in the files' footers that cannot be read, of all tables at once.
    """
    logs, name = Path(os.path.abspath(logs)), engine or cfg.engine
    # All footers first: what is of another shape ends it before a row is read.
    sources = _sources(logs)
    files = {table: source.files for table, source in sources.items()}
    with artifacts.replacing(out, inputs=[logs]) as folder:
        scratch = folder / ".scratch"
        opened = session.opened(name, scratch=scratch, memory_gb=cfg.memory_gb, spark_master=cfg.spark_master)
        with opened as house, damage.named(files, out):
            runner = _runner(house, cfg)
            # Made when first asked for: importing Great Expectations takes longer than finding a damaged
            # file.
            project = functools.cache(suite.context)
            checked = {
                t.name: _table(
                    runner,
                    project,
                    logs,
                    folder,
                    source.rewritten(s, scratch / "anew", engine=name),
                    cfg,
                    scratch / "days",
                )
                for t, s in sources.items()
            }
            apart = clocks.compared(runner) if "feed" in checked else None
        shutil.rmtree(scratch, ignore_errors=True)
        splits = {name: table.split for name, table in checked.items()}
        outcomes = {name: table.outcomes for name, table in checked.items()}
        shapes = {name: table.shape for name, table in checked.items()}
        docs.build(splits, outcomes, shapes, folder / "data_docs", cfg=cfg, at=datetime.now(UTC))
        notes = [note for s in sources.values() for note in s.notes] + source.beside(logs, records.logs())
        notes += [f"feed against searches: {apart.words}"] if apart else []
        artifacts.write_json(folder / "validation.json", _summary(checked, cfg, notes, apart))
    report = _report(checked, notes)
    if cfg.store is None:
        return report
    days = {"days_from_store": sum(table.from_store for table in checked.values())}
    return replace(report, numbers={**report.numbers, **days})


def _sources(logs: Path) -> dict[records.Table, Source]:
    """What is there of every table; an InputError with all that cannot be read."""
    if not any(artifacts.exists(logs, table) for table in records.REQUIRED):
        names = ", ".join(table.name for table in records.REQUIRED)
        raise InputError(logs, f"no Parquet file of the tables {names} found here, in folders of these names")
    checked, faults = {}, []
    for table in records.logs():
        if table in records.REQUIRED or artifacts.exists(logs, table):
            checked[table], wrong = source.of(logs, table)
            faults += wrong
    if faults:
        raise InputError.of(logs, faults)
    return checked


def _runner(house: Warehouse, cfg: ValidateConfig) -> Engine:
    if isinstance(house, DuckDBWarehouse):
        return DuckDBEngine(house.backend.con)
    from crops.engines.spark import SparkWarehouse
    from crops.validation.spark_engine import SparkEngine

    if cfg.rows_per_day_looked_at is None:
        raise ConfigError(
            "rows_per_day_looked_at is null: with engine spark it needs a number, the rows come to the driver"
        )
    assert isinstance(house, SparkWarehouse)
    return SparkEngine(house)


def _table(
    engine: Engine,
    project: Callable[[], Any],
    logs: Path,
    out: Path,
    source: Source,
    cfg: ValidateConfig,
    scratch: Path,
) -> Checked:
    """Splits one table and asks its suite. An empty searches, results or videos table ends the run."""
    table, root = source.table, logs / source.table.name
    checks = rules.checks(table, cfg, source.unsure)
    kept = by_day.taken(engine, source, root, checks, cfg, scratch / table.name)
    kept, rest, shared = by_day.judge(engine, source, root, checks, cfg, kept)
    parts: dict[str, by_day.Part] = {**kept.parts}
    if rest.shapes:
        by, where = ("folder_day", "folder_day = '{}'") if kept.names else ("''", "true")
        look = partial(split.batches, per_day=cfg.rows_per_day_looked_at, rows=BATCH_ROWS)
        for part, counts in split.count(engine, table, checks, by=by).items():
            rows = look(engine, table, checks, where=where.format(part))
            parts[part] = by_day.Part(counts, suite.watch(project(), table.name, rows, checks))
        split.write(engine, out, table)
        new = {day: parts[day] for day in kept.names.keys() & parts.keys() - kept.parts.keys() - shared}
        by_day.keep(engine, logs, out, cfg, kept, new)
    counts = split.added([part.split for part in parts.values()], table, checks)
    if counts.accepted == 0 and table in records.REQUIRED:
        reasons = f"; reasons: {counts.reasons}" if counts.reasons else ""
        raise InputError(root, f"{counts.read} rows, none of them acceptable, expected at least one{reasons}")
    tallies = suite.added([parts[part].tallies for part in sorted(parts)], checks)
    every = _bring(engine, kept, rest, logs, out)
    split.remember(engine, table, every)
    clocks.remember(engine, table, every)
    outcomes = [
        *suite.row_outcomes(checks, tallies, counts, cfg),
        *suite.day_outcomes(project(), table, counts.days, cfg),
        *suite.file_outcomes(project(), source),
    ]
    return Checked(
        split=counts, shape=shape.of(engine, table, every), outcomes=outcomes, from_store=len(kept.parts)
    )


def _bring(engine: Engine, kept: by_day.Kept, rest: Source, logs: Path, out: Path) -> str:
    """Puts the accepted rows of the kept days beside those of `judged`, writes the quarantine of both, and
    returns the SQL of all rows with their reasons.
    """
    table = kept.table
    for day in kept.parts:
        if (accepted := kept.folder / day / by_day.ACCEPTED).exists():
            shutil.copytree(accepted, out / table.name / f"date={day}")
    bad = [split.quarantined(table, logs)] if rest.shapes else []
    if older := kept.quarantined(engine):
        bad.append(older)
    if bad:
        split.write_quarantine(engine, out, table, " UNION ALL ".join(bad))
    return kept.rows(engine, judged=bool(rest.shapes)) if kept.parts else "judged"


def _summary(
    checked: dict[str, Checked], cfg: ValidateConfig, notes: list[str], apart: clocks.Lag | None
) -> dict[str, Any]:
    failed = _failed(checked)
    return {
        "success": not failed["critical"],
        "critical_failures": failed["critical"],
        "warnings": failed["warning"],
        "notes": notes,
        "feed_after_searches_s": apart and round(apart.seconds),
        "rows_per_day_looked_at": cfg.rows_per_day_looked_at,
        "tables": {
            name: {
                **{part: getattr(c.split, part) for part in PARTS},
                "shape": c.shape,
                "expectations": [o.as_json() for o in c.outcomes],
            }
            for name, c in checked.items()
        },
    }


def _failed(
    checked: dict[str, Checked], more: Callable[[Outcome], str] = lambda _outcome: ""
) -> dict[str, list[str]]:
    """severity -> one line for each expectation that does not hold; `more`: what else to say of it."""
    lines: dict[str, list[str]] = {"critical": [], "warning": []}
    for name, table in checked.items():
        for outcome in table.outcomes:
            if not outcome.success:
                lines[outcome.severity].append(
                    f"{name}: {outcome.reason}: {outcome.observed}, expected {outcome.expected}"
                    f"{more(outcome)}"
                )
    return lines


def _seen(outcome: Outcome) -> str:
    """What was seen and what is allowed, where the values of a column are few."""
    config = outcome.result.expectation_config
    # Of values that are not to be seen (`missing` of a foreign key), none says what is wrong.
    allowed = config.kwargs.get("value_set") if config.type == IN_SET else None
    unexpected = [*dict.fromkeys(str(v) for v in outcome.result.result.get("partial_unexpected_list", []))]
    if outcome.part != "rows" or not unexpected or allowed in (None, [False]):
        return ""
    return f"; seen: {', '.join(unexpected[:3])}; allowed: {', '.join(map(str, allowed))}"


def _report(checked: dict[str, Checked], unread: list[str]) -> StageReport:
    failed = _failed(checked, more=_seen)
    numbers: dict[str, float | int] = {
        f"{name}_{kind}": getattr(c.split, kind) for name, c in checked.items() for kind in PARTS[1:3]
    }
    numbers |= {
        "expectations": sum(len(c.outcomes) for c in checked.values()),
        "warnings": len(failed["warning"]),
        "critical_failures": len(failed["critical"]),
    }
    missing = (
        f"{p.table}: {'no acceptable row' if p.table in checked else 'no such table'}; there is no {p.name} "
        "perspective"
        for p in perspectives.every()
        if p.table and (p.table not in checked or not checked[p.table].split.accepted)
    )
    warnings = failed["warning"]
    notes = [*missing, *unread, *failed["critical"], *warnings[:SHOWN]]
    if len(warnings) > SHOWN:
        notes.append(f"{len(warnings) - SHOWN} more warnings in validation.json and data_docs/")
    return StageReport(numbers=numbers, notes=tuple(notes))
