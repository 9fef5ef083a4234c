"""A large log for measurements, straight from DuckDB SQL to Parquet: skewed users and queries, sessions, feed
views.

    python benchmarks/synthetic_log.py OUT --searches 5000000

The simulated world (`crops world`) is what says something about quality; this says something about size only.
Chance is a hash of the row's number, so that the same call writes the same rows on every machine.
"""

import argparse
from pathlib import Path

import duckdb

RESULTS_PER_SEARCH = 10
VIEWS_PER_SEARCH = 10
FIRST_DAY = "2026-01-01"
ROW_GROUP = 250_000


def unit(*parts: str) -> str:
    """SQL for a number in [0, 1) that depends on `parts` alone."""
    return f"(hash({', '.join(parts)}) % 1000003 / 1000003.0)"


def skewed(size: str, power: float, *parts: str) -> str:
    """SQL for an integer in [0, size): the larger `power`, the more often the small ones come."""
    return f"floor({size} * pow({unit(*parts)}, {power}))::BIGINT"


def sessions(day: int, searches_per_day: int, users: int, topics: int) -> str:
    """SQL of one day's searches (s, j, user, topic, ts, variant): half of them continue the user's one
    before.

    A session holds 1, 2 or 3 searches (2 on average) 5 to 124 s apart, so that both sides of the 90 s window
    occur.
    """
    count = searches_per_day // 2
    gap_s = f"5 + {unit('s', 'j', '5')} * 120"
    return f"""
        WITH started AS (
            SELECT s, {skewed(str(users), 2, "s", "1")} AS u, {skewed(str(topics), 3, "s", "2")} AS topic,
                   {unit("s", "3")} * 85800 AS start_s, 1 + floor({unit("s", "4")} * 3)::BIGINT AS length
            FROM (SELECT {day}::BIGINT * {count} + range AS s FROM range({count}))
        ), steps AS (SELECT *, unnest(range(length)) AS j FROM started)
        SELECT s, j, u, topic,
               TIMESTAMPTZ '{FIRST_DAY} 00:00:00+00' + to_days({day})
                 + to_microseconds(((start_s + j * ({gap_s})) * 1e6)::BIGINT) AS ts,
               (hash(s, j, 6) % 7)::BIGINT AS variant
        FROM steps
    """


def _copy(base: duckdb.DuckDBPyConnection, sql: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    base.execute(
        f"COPY ({sql}) TO '{folder / 'part-0.parquet'}' (COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP})"
    )


def write_day(
    base: duckdb.DuckDBPyConnection, out: Path, day: int, *, searches_per_day: int, users: int, topics: int
) -> None:
    """One day of searches, results and feed views under `out`."""
    base.execute(f"CREATE OR REPLACE TEMP TABLE day AS {sessions(day, searches_per_day, users, topics)}")
    date = base.execute(f"SELECT strftime(DATE '{FIRST_DAY}' + {day}, '%Y-%m-%d')").fetchall()[0][0]
    place = f"date={date}"
    identity = "'s' || (s * 4 + j)"
    searches = f"""SELECT {identity} AS search_id, 'u' || u AS user_id, ts,
        'Topic ' || topic || ' wording ' || variant AS query FROM day ORDER BY ts, search_id"""
    _copy(base, searches, out / "searches" / place)
    # A video of the topic (50 of them) in nine of ten, of any topic otherwise; k * 5 keeps those of one
    # search apart.
    topic = f"CASE WHEN hash(s, j, k, 7) % 10 = 0 THEN hash(s, j, k, 8) % {topics} ELSE topic END"
    video = f"'v' || (({topic}) * 50 + k * 5 + hash(s, j, k, 9) % 5)"
    clicked = f"k < 6 AND {unit('s', 'j', 'k', '10')} < 0.1"
    results = f"""SELECT search_id, video_id, stage, position, clicked, liked, play_s FROM (
        SELECT {identity} AS search_id, {video} AS video_id,
               CASE WHEN k < 6 THEN 'exposed' WHEN k < 8 THEN 'ranked' ELSE 'filtered' END AS stage,
               CASE WHEN k < 6 THEN k END::INT AS position, {clicked} AS clicked, false AS liked,
               (CASE WHEN {clicked} THEN 20 * {unit("s", "j", "k", "11")} END)::FLOAT AS play_s
        FROM (SELECT *, unnest(range({RESULTS_PER_SEARCH})) AS k FROM day))"""
    _copy(base, results, out / "results" / place)
    views = f"""SELECT 'u' || u AS user_id, {video} AS video_id,
        greatest(TIMESTAMPTZ '{date} 00:00:00+00', least(TIMESTAMPTZ '{date} 23:59:59+00',
          ts + to_microseconds((({unit("s", "j", "k", "12")} - 0.5) * 7200e6)::BIGINT))) AS ts,
        {unit("s", "j", "k", "13")} < 0.2 AS clicked, false AS liked,
            (30 * {unit("s", "j", "k", "14")})::FLOAT AS play_s
        FROM (SELECT *, unnest(range({VIEWS_PER_SEARCH})) AS k FROM day)"""
    _copy(base, views, out / "feed" / place)


def write_videos(base: duckdb.DuckDBPyConnection, out: Path, *, topics: int) -> None:
    """50 videos a topic, each with some text."""
    _copy(
        base,
        f"""SELECT 'v' || range AS video_id,
            'Caption of video ' || range || ' on topic ' || range // 50 AS caption,
            ['topic ' || range // 50] AS keywords, '' AS cover_text, []::VARCHAR[] AS related_queries,
            NULL::VARCHAR AS author_id, NULL::FLOAT AS duration_s, NULL::TIMESTAMPTZ AS uploaded_at
                FROM range({topics} * 50)""",
        out / "videos",
    )


def generate(
    out: Path, *, searches: int, days: int = 10, threads: int | None = None, memory_gb: float = 4
) -> None:
    """The four tables under `out`: about `searches` searches, ten times as many results and feed views."""
    with duckdb.connect() as base:
        base.execute(
            f"SET TimeZone = 'UTC'; SET memory_limit = '{memory_gb}GB'; SET temp_directory = '{out}.spill'"
        )
        if threads:
            base.execute(f"SET threads = {threads}")
        # Users and topics grow with the log, as they do in practice: ten searches a user, 250 a topic on
        # average.
        users, topics = max(10, searches // 10), max(10, searches // 250)
        for day in range(days):
            write_day(base, out, day, searches_per_day=searches // days, users=users, topics=topics)
        write_videos(base, out, topics=topics)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--searches", type=int, default=100_000)
    parser.add_argument("--days", type=int, default=10)
    arguments = parser.parse_args()
    generate(arguments.out, searches=arguments.searches, days=arguments.days)
