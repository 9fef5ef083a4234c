"""A first look at a log: what is there, what is missing, which perspectives it feeds and what it can tell.
Whatever is wrong in it is said, not refused: that is `crops validate`'s.
"""

import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import ibis.expr.types as ir
import pyarrow as pa

from crops import perspectives
from crops.adapters import release, search_log
from crops.config.augment import AugmentConfig
from crops.engines.duckdb import DuckDBWarehouse
from crops.errors import InputError
from crops.evaluation import power, sets
from crops.mining import click, feed, parts, queries, reformulation
from crops.report import first_look
from crops.tables import artifacts, records
from crops.text import script
from crops.validation import casts, damage, source
from crops.validation.relation import WHITE

# Texts of which the scripts are told: a share is then known to two points.
SAMPLE = 5_000
POINTS = 0.03  # the difference in recall for which the needed queries and days are said
MEMORY_GB = 2.0
TEXT = (
    "coalesce(caption, '') || coalesce(cover_text, '') || coalesce(array_to_string(keywords, ''), '') || "
    "coalesce(array_to_string(related_queries, ''), '')"  # of a list of nulls it is null
)
# What validate would keep, as far as one row tells.
USABLE = {
    "searches": "search_id IS NOT NULL AND user_id <> '' AND year(ts) BETWEEN 2000 AND 2099 "
    f"AND translate(query, {release.text(WHITE)}, '') <> ''",
    "results": "search_id IS NOT NULL AND video_id IS NOT NULL AND clicked IS NOT NULL AND liked IS NOT NULL",
    "feed": "user_id <> '' AND video_id IS NOT NULL AND clicked IS NOT NULL AND liked IS NOT NULL "
    "AND year(ts) BETWEEN 2000 AND 2099",
    "videos": "video_id IS NOT NULL",
}
ONCE = "QUALIFY row_number() OVER (PARTITION BY search_id ORDER BY ts) = 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Held-out queries. `chains` counts those that were reworded into the same as one."""

    reformulated: int
    chains: int
    clicked: int


def run(logs: Path, cfg: AugmentConfig, *, min_queries: int) -> dict[str, Any]:
    """What `crops look --json` prints. min_queries: fewer give no verdict (the gate's setting).

    `files` instead of anything else, where `logs` holds none of our tables but CSV, JSON lines or Parquet
    files. Raises InputError where there is nothing to look at.
    """
    if logs.is_file() or not any(artifacts.exists(logs, table) for table in records.logs()):
        answer: dict[str, Any] = {"logs": str(logs), "files": _files(logs)}
        return answer | {"next": first_look.commands(answer)}
    with tempfile.TemporaryDirectory(prefix="crops-look-") as scratch:
        house = DuckDBWarehouse(
            scratch=Path(scratch), threads=cfg.threads, memory_gb=cfg.memory_gb or MEMORY_GB
        )
        try:
            answer = _look(house, logs, cfg, min_queries)
        except duckdb.Error as error:
            raise (house.explain(error) or error) from error
        finally:
            house.close()
    answer["perspectives"] = first_look.rows(answer)
    return answer | {"next": first_look.commands(answer)}


def _files(logs: Path) -> list[dict[str, Any]]:
    below = [logs] if logs.is_file() else artifacts.walk(logs)
    files = [path for path in below if search_log.form(path)]
    if beside := [path for path in files if path.parent == logs]:
        files = beside
    if not files:
        raise InputError(logs, "holds no table of ours and no CSV, JSON lines or Parquet file")
    return [
        {"file": str(path), "bytes": path.stat().st_size, "columns": list(search_log.source(path).types)}
        for path in files[:20]
    ]


def _look(house: DuckDBWarehouse, logs: Path, cfg: AugmentConfig, min_queries: int) -> dict[str, Any]:
    tables, notes = {}, []
    for table in records.logs():
        if artifacts.exists(logs, table):
            tables[table.name], remarks = _table(house, logs, table)
            notes += remarks
    notes += source.beside(logs, records.logs())
    missing = [t.name for t in records.logs() if t.name not in tables]
    answer: dict[str, Any] = {"logs": str(logs), "tables": tables, "missing": missing, "notes": notes}
    for table in records.LOGS:
        if table.name not in tables:  # an empty one in its place: its numbers are 0
            _empty(house, table)
    answer["search"] = _search(house)
    answer["catalogue"] = _one(house, CATALOGUE)
    answer["scripts"] = {"queries": _scripts(house, QUERIES), "videos": _scripts(house, VIDEOS)}
    days = [row["date"] for row in _all(house, DAYS)]
    ends = {"first": days[0], "last": days[-1]} if days else {"first": None, "last": None}
    answer["days"] = {**ends, "count": len(days)}
    nothing = Held(reformulated=0, chains=0, clicked=0)
    mined, held_out, share = _mined(house, cfg, days) if days else ({}, nothing, 1.0)
    answer["mined"] = mined
    answer["feed"] = _one(house, FEED) | {"share_of_users_looked_at": share}
    answer["enough"] = _enough(held_out, days, cfg, min_queries)
    return answer


def _table(house: DuckDBWarehouse, logs: Path, table: records.Table) -> tuple[dict[str, Any], list[str]]:
    """Makes the view `raw_NAME` of all rows and the table or view NAME of those that can be used."""
    read, faults = source.of(logs, table)
    # Columns that cannot be read are null here, and said; the other ones still tell something.
    if not faults:
        read = source.rewritten(read, house.scratch / "anew", engine="duckdb")
    pieces = [_typed(table, shape) for shape in read.shapes] or [f"{_nothing(table)} LIMIT 0"]
    usable = USABLE.get(table.name, "true")
    once = ONCE if table is records.SEARCHES else ""
    fill = f"CREATE TEMP TABLE {table.name} AS SELECT * FROM raw_{table.name} WHERE {usable} {once}"
    _run(house, f"CREATE TEMP VIEW raw_{table.name} AS {' UNION ALL '.join(pieces)}")
    try:
        _run(house, fill)
    except duckdb.Error as error:
        faults = [_damaged(read, error)]
        _run(house, f"CREATE OR REPLACE TEMP VIEW raw_{table.name} AS {_nothing(table)} LIMIT 0")
        _run(house, fill)
    both = f"(SELECT count(*) FROM raw_{table.name}) AS rows, (SELECT count(*) FROM {table.name}) AS usable"
    rows = _one(house, f"SELECT {both}")
    names = {name for shape in read.shapes for name in shape.types}
    absent = [name for name in table.schema.names if name not in names]
    files = sum(len(shape.files) for shape in read.shapes)
    told = {"files": files, **rows, "absent_columns": absent, "faults": [str(f) for f in faults]}
    return told, list(read.notes)


def _damaged(read: source.Source, error: duckdb.Error) -> InputError:
    """Which file the engine failed on; its own error goes on where all of them can be read."""
    for path in read.files:
        try:
            damage.probe(path, read.table)
        except InputError as fault:
            return fault
    raise error


def _typed(table: records.Table, shape: source.Shape) -> str:
    columns = []
    for field in table.schema:
        way = casts.reading(shape.types.get(field.name, pa.null()), field.type)
        way = way or casts.reading(pa.null(), field.type)
        assert way is not None, field  # nulls can be read as anything
        columns.append(f"{way.typed(field.name)} AS {field.name}")
    files = ", ".join(release.text(path) for path in shape.files)
    options = "union_by_name=true, hive_partitioning=false"
    return f"SELECT {', '.join(columns)} FROM read_parquet([{files}], {options})"


def _nothing(table: records.Table) -> str:
    columns = (f"CAST(NULL AS {casts.SQL_TYPES[f.type]}) AS {f.name}" for f in table.schema)
    return f"SELECT {', '.join(columns)}"


def _empty(house: DuckDBWarehouse, table: records.Table) -> None:
    _run(house, f"CREATE TEMP TABLE {table.name} AS {_nothing(table)} LIMIT 0")


def _run(house: DuckDBWarehouse, sql: str) -> None:
    house.backend.con.execute(sql)


def _all(house: DuckDBWarehouse, sql: str) -> list[dict[str, Any]]:
    answer = house.backend.con.execute(sql)
    names = [column[0] for column in answer.description]
    return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]


def _one(house: DuckDBWarehouse, sql: str) -> dict[str, Any]:
    return _all(house, sql)[0]


SEARCH = """
    SELECT count(*) AS searches, count(DISTINCT user_id) AS users, count(DISTINCT query) AS queries,
        count(*) FILTER (WHERE ts = date_trunc('day', ts)) AS at_midnight FROM searches"""
RESULTS = """
    SELECT count(*) AS results, count(*) FILTER (WHERE stage = 'exposed') AS exposed,
        count(*) FILTER (WHERE stage = 'ranked') AS ranked,
        count(*) FILTER (WHERE stage = 'filtered') AS filtered,
        count(*) FILTER (WHERE clicked) AS clicked, count(*) FILTER (WHERE liked) AS liked,
        count(*) FILTER (WHERE play_s > 0) AS played,
        count(DISTINCT search_id) FILTER (WHERE clicked OR liked OR play_s > 0) AS searches_touched,
        count(*) FILTER (WHERE search_id NOT IN (SELECT search_id FROM searches)) AS of_unknown_searches,
        count(*) FILTER (WHERE video_id NOT IN (SELECT video_id FROM videos)) AS of_unknown_videos
    FROM results"""
DAYS = "SELECT DISTINCT strftime(ts, '%Y-%m-%d') AS date FROM searches ORDER BY 1"
CATALOGUE = f"""
    SELECT count(*) AS videos, count(*) FILTER (WHERE trim({TEXT}) = '') AS without_text,
        count(*) FILTER (WHERE duration_s > 0) AS with_duration FROM videos"""
FEED = """
    SELECT count(*) AS views, count(DISTINCT user_id) AS users,
        count(DISTINCT user_id) FILTER (WHERE user_id IN (SELECT user_id FROM searches)) AS users_who_search
    FROM feed"""
# One search, one voice; a video counts once. The draw is by hash: the same at each look.
QUERIES = f"SELECT query AS text FROM searches ORDER BY hash(search_id) LIMIT {SAMPLE}"
VIDEOS = f"SELECT {TEXT} AS text FROM videos ORDER BY hash(video_id) LIMIT {SAMPLE}"


def _search(house: DuckDBWarehouse) -> dict[str, Any]:
    return _one(house, SEARCH) | _one(house, RESULTS)


def _scripts(house: DuckDBWarehouse, sql: str) -> dict[str, float]:
    """Script -> share of the texts, most first; "" is a text without a letter."""
    counts = Counter(sorted(script([row["text"]]) for row in _all(house, sql)))
    return {name: round(n / counts.total(), 3) for name, n in counts.most_common()}


def _mined(house: DuckDBWarehouse, cfg: AugmentConfig, days: list[str]) -> tuple[dict[str, Any], Held, float]:
    """Events per perspective on all days, held-out queries, and the share of users whose feed was read."""

    def count(rows: ir.Table) -> int:
        return int(house.backend.to_pyarrow(rows.count()).as_py())

    raw, results = (house.backend.table(name) for name in ("searches", "results"))
    spelled = house.keep(queries.spellings(raw), "spellings")
    searches = house.keep(queries.normalised(raw, spelled), "normalised")
    touched = house.keep(queries.interacted(results, min_play_s=cfg.min_play_s), "touched")
    people = house.keep(queries.ordinary(searches, max_per_user_day=cfg.max_searches_per_user_day), "people")
    clicks = house.keep(click.clicks(searches, touched), "clicks")
    reworded = reformulation.reformulations(people, touched, window_s=cfg.window_s)
    reworded = house.keep(reworded, "reworded")
    _run(house, f"CREATE TEMP TABLE with_text AS SELECT video_id FROM videos WHERE trim({TEXT}) <> ''")
    with_text = house.backend.table("with_text")
    first = days[-cfg.test_days :][0]
    views = feed.feed_views(house.backend.table("feed"), min_play_s=cfg.min_play_s)
    shares = house.parts(
        count(views)
    )  # of a large feed one part of the users is enough to see whether it helps
    of_part = [rows.filter(parts.part_of_user(rows.user_id, shares) == 0) for rows in (people, views)]
    near = feed.around_searches(
        of_part[0],
        feed.users_of_query(of_part[0], max_users=cfg.feed_users_per_query),
        of_part[1],
        half_window_s=cfg.feed_half_window_s,
        max_videos=cfg.feed_videos_per_user,
    )
    gaps = house.fetch(queries.gap_summary(queries.gaps(searches), (cfg.window_s,)))[0]
    mined = {
        perspectives.CLICK.name: count(clicks),
        perspectives.REFORMULATION.name: count(reworded),
        perspectives.FEED.name: count(near) * shares,
        "gaps": gaps["gaps"],
        "gaps_within_window": gaps[f"within_{cfg.window_s}_s"] or 0,
    }
    tested = reworded.filter(reworded.date >= first).semi_join(with_text, "video_id")
    pairs = house.fetch(tested.select("query", "later_query", "video_id").distinct())
    chains = sets.chains(pairs)
    clicked = clicks.filter(clicks.date >= first).semi_join(with_text, "video_id").select("query").distinct()
    held_out = Held(reformulated=len(chains), chains=len(set(chains.values())), clicked=count(clicked))
    return mined, held_out, 1 / shares


def _enough(held_out: Held, days: list[str], cfg: AugmentConfig, min_queries: int) -> dict[str, Any]:
    """What a comparison on the held-out days could tell, and how many days would tell more."""
    tested = min(cfg.test_days, max(0, len(days) - 1))
    per_day = held_out.chains / tested if tested else 0.0

    def days_for(needed: int) -> int | None:
        return -(-needed // max(1, round(per_day))) if per_day >= 1 else None

    smallest = power.smallest_difference(held_out.chains) if tested else None
    answer = "no" if not tested or held_out.reformulated < min_queries else "yes"
    return {
        "answer": answer if answer == "no" or (smallest or 1.0) <= 2 * POINTS else "large differences only",
        "test_days": cfg.test_days,
        "queries_reformulated": held_out.reformulated,
        "queries_independent": held_out.chains,
        "queries_clicked": held_out.clicked,
        "min_queries": min_queries,
        "smallest_difference": smallest and round(smallest, 4),
        "spread": power.SPREAD,
        "queries_for_3_points": power.needed_queries(POINTS),
        "test_days_for_min_queries": days_for(min_queries),
        "test_days_for_3_points": days_for(power.needed_queries(POINTS)),
    }
