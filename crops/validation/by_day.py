"""Days of a table that need not be checked again: what was computed of them is in the store.

A day is the files below one `date=` folder. What is kept of it holds as long as they are the same to the byte
(so are the checks and this code) and two things outside of them: every search and video that its rows name
has met the same fate at the same time (its premises), and no other day has a row with one of its keys.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import pyarrow as pa

from crops.config.validate import ValidateConfig
from crops.services import days
from crops.tables import artifacts, fingerprint
from crops.tables.records import TS, Table
from crops.validation import relation, split
from crops.validation.checks import Check, quoted
from crops.validation.engine import Engine
from crops.validation.source import Source
from crops.validation.split import Split
from crops.validation.suite import Tally

CODE = ("crops/validation", "crops/tables/records.py", "crops/perspectives.py", "crops/arms.py")
VERSIONS = ("duckdb", "great_expectations", "pyspark")
ACCEPTED, QUARANTINE, PREMISES, KEYS = "accepted", "quarantine", "premises", "keys"
DAY = re.compile(r"/date=([0-9-]{10})/")
# Keys are compared by a hash below this: two of a billion keys are alike with a chance of 10 %, and then
# their days are checked again.
HASHES = 1 << 62
TYPES: dict[str, dict[str, pa.DataType]] = {
    PREMISES: {"day": pa.string(), "refers": pa.string(), "id": pa.string(), "fate": pa.string(), "time": TS},
    KEYS: {"day": pa.string(), "hash": pa.int64()},
}


@dataclass(frozen=True, slots=True)
class Part:
    """What is known of some rows of a table: their counts, and what Great Expectations saw, by check."""

    split: Split
    tallies: list[Tally]


@dataclass(frozen=True, slots=True)
class Kept:
    """Days of one table that are as they were. names: of every day of the log, its entry in the store; parts:
    of those that were taken from there, their files below folder/DAY.
    """

    table: Table
    folder: Path
    names: Mapping[str, str]
    parts: Mapping[str, Part]

    def files(self, piece: str) -> list[Path]:
        """The Parquet files of one piece of all days that were taken."""
        return [f for day in sorted(self.parts) for f in artifacts.walk(self.folder / day / piece)]

    def without(self, names: Collection[str]) -> "Kept":
        """The same without these days."""
        rest = {day: part for day, part in self.parts.items() if day not in names}
        return Kept(self.table, self.folder, self.names, rest)

    def rows(self, engine: Engine, *, judged: bool) -> str:
        """SQL of all rows with the table's columns and `reason`: those of the days, and (judged) of
        `judged`.
        """
        names = ", ".join(self.table.schema.names)
        parts = [f"SELECT {names}, reason FROM judged"] if judged else []
        own = {field.name: field.type for field in self.table.schema}
        for piece, reason, types in (
            (ACCEPTED, "CAST(NULL AS VARCHAR)", own),
            (QUARANTINE, "reason", own | {"reason": pa.string()}),
        ):
            if files := self.files(piece):
                engine.scan(f"kept_{piece}", files, types)
                parts.append(f"SELECT {names}, {reason} AS reason FROM kept_{piece}")
        return f"({' UNION ALL '.join(parts)})"

    def quarantined(self, engine: Engine) -> str | None:
        """SQL of the quarantined rows of the days, as split.quarantined has them; None where there are
        none.
        """
        if not (files := self.files(QUARANTINE)):
            return None
        place = {"reason": pa.string(), "file": pa.string(), "row_number": pa.int64()}
        engine.scan("kept_bad", files, {f.name: f.type for f in self.table.schema} | place)
        return f"SELECT {', '.join([*self.table.schema.names, *place])} FROM kept_bad"


def taken(
    engine: Engine, source: Source, root: Path, checks: Sequence[Check], cfg: ValidateConfig, folder: Path
) -> Kept:
    """The days that the store has, as far as their premises hold; none where it is not asked for, or where
    the table is not wholly in folders by day. root: the table's folder.
    """
    names = _names(engine, source, root, checks, cfg) if cfg.store else {}
    parts = {}
    for day, name in names.items():
        facts = days.take(str(cfg.store), name, folder / day)
        if facts is not None:
            tallies = [Tally(**tally) for tally in facts["tallies"]]
            parts[day] = Part(Split(**facts["split"]), tallies)
    kept = Kept(source.table, folder, names, parts)
    return kept.without(_broken(engine, kept, cfg))


def judge(
    engine: Engine, source: Source, root: Path, checks: Sequence[Check], cfg: ValidateConfig, kept: Kept
) -> tuple[Kept, Source, set[str]]:
    """Makes `judged` of what is not kept, as split.judge does. Returns the days that stay kept, the rest of
    the source, and the days that share a key with another: what is computed of these is nobody's to keep.
    """
    while True:
        mine = [file for file in source.origins if _day(file, root) in kept.parts]
        rest = source.without(mine)
        if rest.shapes:
            split.judge(engine, rest, root, checks, cfg)
        shared = _sharing(engine, kept, judged=bool(rest.shapes)) if kept.names else set()
        if not shared & kept.parts.keys():
            return kept, rest, shared
        kept = kept.without(shared)


def keep(
    engine: Engine, logs: Path, out: Path, cfg: ValidateConfig, kept: Kept, parts: Mapping[str, Part]
) -> None:
    """Puts `parts`, days of `judged` whose accepted rows lie under `out`, into the store."""
    table = kept.table
    for day, part in parts.items():
        folder, of_day = kept.folder / f"{day}.new", f"folder_day = {quoted(day)}"
        folder.mkdir(parents=True)
        accepted = out / table.name / f"date={day}"
        if accepted.exists():
            (folder / ACCEPTED).symlink_to(accepted)
        if part.split.quarantined:
            bad = f"{split.quarantined(table, logs)} AND {of_day}"
            engine.save_one(bad, folder / QUARANTINE, ("file", "row_number"))
        if references := _references(table):
            told = " UNION ALL ".join(f"{sql} AND {of_day}" for sql in references)
            engine.save_one(told, folder / PREMISES, ("refers", "id"))
        engine.save_one(f"{_hashes(engine, table)} AND {of_day}", folder / KEYS, ("hash",))
        facts = {"split": asdict(part.split), "tallies": [asdict(tally) for tally in part.tallies]}
        days.put(str(cfg.store), kept.names[day], facts, folder)


def _names(
    engine: Engine, source: Source, root: Path, checks: Sequence[Check], cfg: ValidateConfig
) -> dict[str, str]:
    """Day -> the name of its entry; {} where a file is of no day."""
    table = source.table
    by_day: dict[str | None, list[Path]] = defaultdict(list)
    for file in source.origins:
        by_day[_day(file, root)].append(file)
    if not table.partitioned or None in by_day:
        return {}
    versions = {d.name: d.version for d in metadata.distributions() if d.name in VERSIONS}
    same = {
        "checks": checks,
        "code": fingerprint.source(*CODE),
        "engine": type(engine).__name__,
        "looked_at": cfg.rows_per_day_looked_at,
        "skew_s": cfg.max_clock_skew_s,
        "table": table,
        "unsure": source.unsure,
        "versions": sorted(versions.items()),
    }
    return {str(day): f"validate/{days.key(files, root, **same)}" for day, files in sorted(by_day.items())}


def _day(file: Path, root: Path) -> str | None:
    """As relation.helped has it in SQL."""
    day = DAY.search(str(file)[len(str(root)) :].replace("%2D", "-"))
    return day[1] if day else None


def _references(table: Table) -> list[str]:
    """SQL of what the rows of `judged` name, once each, and what became of it."""
    names = table.schema.names
    told = {}
    if "video_id" in names and table.name != "videos":
        told["videos"] = ("video_id", "video", "earliest_ts")
    if table.name == "results":
        told["searches"] = ("search_id", "search", "search_ts")
    return [
        f"SELECT DISTINCT folder_day AS day, '{refers}' AS refers, {key} AS id, {fate} AS fate, "
        f"{time} AS time FROM judged WHERE {key} IS NOT NULL"
        for refers, (key, fate, time) in told.items()
    ]


def _broken(engine: Engine, kept: Kept, cfg: ValidateConfig) -> set[str]:
    """The days that name a search or a video which is not any more what it was."""
    if not (files := kept.files(PREMISES)):
        return set()
    engine.scan("kept_premises", files, TYPES[PREMISES])
    broken = set()
    ways = {"videos": ("video_id", relation.earliest("k", cfg)), "searches": ("search_id", "k.ts")}
    for refers, (key, time) in ways.items():
        if refers == "searches" and kept.table.name != "results":
            continue
        broken |= {
            row["day"]
            for row in engine.rows(
                f"SELECT DISTINCT p.day FROM kept_premises p LEFT JOIN known_{refers} k ON k.{key} = p.id "
                f"WHERE p.refers = '{refers}' AND ({relation.fate('p.id', 'k')} IS DISTINCT FROM p.fate "
                f"OR {time} IS DISTINCT FROM p.time)"
            )
        }
    return broken


def _hashes(engine: Engine, table: Table) -> str:
    whole = " AND ".join(f"{name} IS NOT NULL" for name in table.key)
    hashed = f"CAST({engine.hashed(table.key, HASHES)} AS BIGINT)"
    return f"SELECT DISTINCT folder_day AS day, {hashed} AS hash FROM judged WHERE {whole}"


def _sharing(engine: Engine, kept: Kept, *, judged: bool) -> set[str]:
    """The days that have a key which another day has too."""
    parts = [_hashes(engine, kept.table)] if judged else []
    if files := kept.files(KEYS):
        engine.scan("kept_keys", files, TYPES[KEYS])
        parts.append("SELECT day, hash FROM kept_keys")
    keys = " UNION ALL ".join(parts)
    # A day has a hash once.
    twice = f"SELECT hash FROM ({keys}) GROUP BY hash HAVING count(*) > 1"
    if not engine.rows(f"SELECT count(*) AS n FROM ({twice})")[0]["n"]:
        return set()
    rows = engine.rows(f"SELECT DISTINCT day FROM ({keys}) k JOIN ({twice}) t ON t.hash = k.hash")
    return {row["day"] for row in rows}
