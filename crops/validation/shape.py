"""How the accepted rows of a table are distributed: no bound judges it, but who knows the log sees at once
what is odd.
"""

from collections.abc import Sequence
from typing import Any

from crops.long_play import LONG_PLAY_S
from crops.tables.records import Table
from crops.validation.engine import Engine

# Upper ends of the bins, seconds; what is longer has a bin of its own.
GAPS_S = (10, 30, 60, 90, 180, 600, 1_800, 86_400)
PLAYS_S = (3, 7, int(LONG_PLAY_S), 30, 60, 120, 300, 600)
# Characters of a query by this many, the last bin open; positions that are listed.
WIDTH, LONGEST, POSITIONS = 5, 60, 20


def of(engine: Engine, table: Table, rows: str = "judged") -> dict[str, Any]:
    """Of the accepted ones of `rows`, by the table's name; {} for a table of another perspective.

    searches  users, queries (different ones), query_length {"1–5": rows} in characters, gaps {"≤ 10 s": rows}
              between two searches of one user
    results   positions [{"position", "shown", "clicks"}] of what was exposed, clicked, played, plays
    feed      clicked, played, plays {"≤ 3 s": rows} of how long was watched
    videos    durations, like plays; without: those of no known duration
    """
    queries = {"searches": _searches, "results": _results, "feed": _feed, "videos": _videos}
    accepted = f"FROM {rows} WHERE reason IS NULL"
    return queries[table.name](engine, accepted) if table.name in queries else {}


def _searches(engine: Engine, accepted: str) -> dict[str, Any]:
    (counts,) = engine.rows(
        f"SELECT count(DISTINCT user_id) AS users, count(DISTINCT query) AS queries {accepted}"
    )
    lengths = engine.rows(
        f"SELECT CAST(floor((least(length(query), {LONGEST + 1}) - 1) / {WIDTH}) AS BIGINT) AS bin, "
        f"count(*) AS n {accepted} GROUP BY 1"
    )
    ends = range(WIDTH, LONGEST + 1, WIDTH)
    names = [*(f"{end - WIDTH + 1}–{end}" for end in ends), f"over {LONGEST}"]
    seconds = "CAST(floor(epoch(ts)) AS BIGINT)"
    gap = f"{seconds} - lag({seconds}) OVER (PARTITION BY user_id ORDER BY ts, search_id)"
    return {
        **counts,
        "query_length": _named(names, lengths),
        "gaps": _binned(engine, f"SELECT {gap} AS value {accepted}", GAPS_S),
    }


def _results(engine: Engine, accepted: str) -> dict[str, Any]:
    positions = engine.rows(
        f"SELECT position, count(*) AS shown, count(*) FILTER (WHERE clicked) AS clicks {accepted} "
        f"AND stage = 'exposed' AND position < {POSITIONS} GROUP BY 1 ORDER BY 1"
    )
    return {"positions": positions, **_played(engine, accepted)}


def _feed(engine: Engine, accepted: str) -> dict[str, Any]:
    return _played(engine, accepted)


def _played(engine: Engine, accepted: str) -> dict[str, Any]:
    (counts,) = engine.rows(
        f"SELECT count(*) FILTER (WHERE clicked) AS clicked, count(play_s) AS played {accepted}"
    )
    return {**counts, "plays": _binned(engine, f"SELECT play_s AS value {accepted}", PLAYS_S)}


def _videos(engine: Engine, accepted: str) -> dict[str, Any]:
    (counts,) = engine.rows(f"SELECT count(*) - count(duration_s) AS without {accepted}")
    return {**counts, "durations": _binned(engine, f"SELECT duration_s AS value {accepted}", PLAYS_S)}


def _binned(engine: Engine, values: str, ends: Sequence[int]) -> dict[str, int]:
    """Rows of `values` (a column `value`, seconds; null is none) up to each of `ends`, and above."""
    cases = " ".join(f"WHEN value <= {end} THEN {n}" for n, end in enumerate(ends))
    rows = engine.rows(
        f"SELECT CASE {cases} ELSE {len(ends)} END AS bin, count(*) AS n FROM ({values}) "
        "WHERE value IS NOT NULL GROUP BY 1"
    )
    return _named([*(f"≤ {_words(end)}" for end in ends), "longer"], rows)


def _named(names: Sequence[str], counted: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Bin to rows, also where a bin has none; {} where there is no row at all."""
    rows = {row["bin"]: row["n"] for row in counted}
    return {name: rows.get(n, 0) for n, name in enumerate(names)} if rows else {}


def _words(seconds: int) -> str:
    for size, unit in ((86_400, "day"), (3_600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0 and seconds > 90:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
