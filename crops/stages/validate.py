"""Checks the logs: accepted rows go on, bad rows go to quarantine with a reason, Data Docs show what was expected."""

import shutil
from pathlib import Path

import duckdb

from crops import records
from crops.config.validate import ValidateConfig
from crops.errors import ConfigError, InputError
from crops.io import artifacts, warehouse
from crops.io.validation import rules, split, suites
from crops.stages.base import StageReport

# Videos and searches first: the others refer to them.
ORDER = (records.VIDEOS, records.SEARCHES, records.RESULTS, records.FEED)


def run(logs: Path, out: Path, cfg: ValidateConfig, *, engine: str = "duckdb") -> StageReport:
    """Writes the accepted tables, quarantine/, validation.json ({"success": ...}) and data_docs/."""
    if engine != "duckdb":
        raise ConfigError(f"engine is {engine!r}, expected duckdb")
    tables = [t for t in ORDER if t is not records.FEED or artifacts.exists(logs, t)]
    notes = () if records.FEED in tables else ("feed: no such table; there is no feed perspective",)
    with artifacts.replacing(out) as folder:
        scratch = folder / ".scratch"
        asked = {t.name: rules.rules(t.name, cfg) for t in tables}
        with warehouse.opened("duckdb", scratch=scratch, memory_gb=cfg.memory_gb) as house:
            base: duckdb.DuckDBPyConnection = house.backend.con
            splits = {t.name: _split(base, logs, folder, t, asked[t.name]) for t in tables}
        shutil.rmtree(scratch, ignore_errors=True)
        outcomes = suites.check(splits, asked, cfg, folder / "data_docs")
        critical = [
            f"{name}: {o['column']} is {o['observed']}, expected {o.get('min_value', '')}..{o.get('max_value', '')}"
            for name, found in outcomes.items() for o in found if not o["success"] and o["severity"] == "critical"
        ]  # fmt: skip
        about = {
            name: {"read": s.read, "accepted": s.accepted, "quarantined": s.quarantined, "reasons": s.reasons,
                   "expectations": outcomes[name]} for name, s in splits.items()
        }  # fmt: skip
        artifacts.write_json(
            folder / "validation.json", {"success": not critical, "critical_failures": critical, "tables": about}
        )
    warned = sum(not o["success"] and o["severity"] != "critical" for found in outcomes.values() for o in found)
    counts = {f"{n}_{k}": v for n, s in splits.items() for k, v in (("accepted", s.accepted), ("quarantined", s.quarantined))}
    numbers = {**counts, "expectations": sum(map(len, outcomes.values())), "warnings": warned}
    return StageReport(numbers={**numbers, "critical_failures": len(critical)}, notes=(*notes, *critical))


def _split(
    base: duckdb.DuckDBPyConnection, logs: Path, folder: Path, table: records.Table, asked: list[rules.Rule]
) -> split.Split:
    """Splits one table; keeps the ids that other tables refer to. An empty searches, results or videos table ends it."""
    found = split.split(base, logs, folder, table, asked)
    if found.accepted == 0 and table is not records.FEED:
        why = f"; reasons: {found.reasons}" if found.reasons else ""
        raise InputError(logs / table.name, f"{found.read} rows, none of them acceptable, expected at least one{why}")
    if table in (records.VIDEOS, records.SEARCHES):
        key = table.key[0]
        base.execute(f"CREATE TEMP TABLE good_{table.name} AS SELECT {key} FROM judged WHERE reason IS NULL")
    return found
