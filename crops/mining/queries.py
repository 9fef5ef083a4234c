"""Searches with normalised queries, days, and what a query is worth: how often searched, how often
clicked.
"""

from collections.abc import Callable
from typing import Any

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pyarrow as pa

from crops.text import normalise_query, wording


def _each(of_text: Callable[[str], str], raw: Any) -> Any:
    """DuckDB hands over a whole Arrow array, Spark's Arrow function one value at a time."""
    if isinstance(raw, pa.Array | pa.ChunkedArray):
        return pa.array([_each(of_text, text) for text in raw.to_pylist()], pa.string())
    return None if raw is None else of_text(raw)


def _normalise(raw: Any) -> Any:
    return _each(normalise_query, raw)


def _word(raw: Any) -> Any:
    return _each(wording, raw)


_normalised = ibis.udf.scalar.pyarrow(_normalise, signature=((dt.string,), dt.string))
_worded = ibis.udf.scalar.pyarrow(_word, signature=((dt.string,), dt.string))


def spellings(searches: ir.Table) -> ir.Table:
    """in: searches(query); out: (raw, query, wording), one row per distinct raw query: `query` normalised,
    and its wording, by which reformulations are told (crops.text).

    Neither DuckDB nor Spark folds case or knows NFKC: the caller materialises this table, so that each
    distinct text is normalised once.
    """
    distinct = searches.select(raw=searches.query).distinct()
    return distinct.select("raw", query=_normalised(distinct.raw), wording=_worded(distinct.raw))


def normalised(searches: ir.Table, spelled: ir.Table) -> ir.Table:
    """in: searches(search_id, user_id, ts, query), spellings(raw, query, wording); out: (search_id, user_id,
    ts, date, query, wording).

    `query` is normalised, `date` the UTC day as YYYY-MM-DD. Searches whose query is empty after normalisation
    are left out.
    """
    joined = searches.select("search_id", "user_id", "ts", raw="query").join(spelled, "raw")
    return joined.filter(joined.query != "").select(
        "search_id", "user_id", "ts", "query", "wording", date=joined.ts.date().cast("string")
    )


def ordinary(searches: ir.Table, *, max_per_user_day: int) -> ir.Table:
    """Out: the searches without those of users who issued more than `max_per_user_day` on that day (bots).

    in, out: (search_id, user_id, ts, date, query, wording).
    """
    per_day = searches.group_by("user_id", "date").agg(searches_of_day=searches.count())
    crowded = per_day.filter(per_day.searches_of_day > max_per_user_day)
    # select closes the join: Ibis cannot join an open one with another view of itself.
    return searches.anti_join(crowded, ["user_id", "date"]).select(*searches.columns)


def interacted(results: ir.Table, *, min_play_s: float) -> ir.Table:
    """in: results(search_id, video_id, clicked, liked, play_s); out: (search_id, video_id, clicked).

    Rows that were clicked, liked or played for at least `min_play_s`; `clicked` is true for a click or a
    like.
    """
    chosen = results.clicked | results.liked
    watched = (results.play_s >= min_play_s).fill_null(False)
    return results.filter(chosen | watched).select("search_id", "video_id", clicked=chosen)


def summary(searches: ir.Table, touched: ir.Table, *, first_test_day: str) -> ir.Table:
    """in: searches(search_id, user_id, date, query), interacted(search_id, clicked); out: (query, split,
    searches, clicks, users).

    `split` is test from `first_test_day` on, train before; `clicks` counts searches with at least one click
    or like, `users` distinct users.
    """
    clicked = touched.filter(touched.clicked).select("search_id").distinct().mutate(one=1)
    rows = searches.left_join(clicked, "search_id").select("query", "user_id", "date", "one")
    split = (rows.date >= first_test_day).ifelse("test", "train")
    grouped = rows.mutate(split=split).group_by("query", "split")
    return grouped.agg(
        searches=lambda t: t.count().cast("int64"),
        clicks=lambda t: t.one.count().cast("int64"),
        users=lambda t: t.user_id.nunique().cast("int64"),
    )


def gaps(searches: ir.Table) -> ir.Table:
    """in: searches(user_id, ts, search_id); out: (gap_s float64), between consecutive searches of a user, any
    query.
    """
    window = ibis.window(group_by="user_id", order_by=["ts", "search_id"])
    narrow = searches.select("user_id", "ts", "search_id")
    paired = narrow.select("ts", before=narrow.ts.lag().over(window))
    gap_s = paired.ts.delta(paired.before, unit="microsecond") / 1e6
    return paired.filter(paired.before.notnull()).select(gap_s=gap_s)


def gap_summary(gap: ir.Table, edges_s: tuple[int, ...]) -> ir.Table:
    """in: gaps(gap_s); out: one row: gaps, median_s, and within_<edge>_s = number of gaps of at most that
    edge.
    """
    within = {f"within_{edge}_s": (gap.gap_s <= edge).sum() for edge in edges_s}
    return gap.agg(gaps=gap.count(), median_s=gap.gap_s.median(), **within)
