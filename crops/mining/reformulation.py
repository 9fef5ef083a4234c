"""P1: what people interacted with after they had put the same need in other words."""

import ibis
import ibis.expr.types as ir

from crops.reformulation import reformulates


def later_searches(
    first: ir.Table, later: ir.Table, *, window_s: int, windows: ir.Table | None = None
) -> ir.Table:
    """Every pair of one user's searches of which the later reformulates the first (crops.reformulation).
    windows: (query, window_s), shorter ones for first queries that have them.

    in: both (search_id, user_id, ts, date, query, wording); `later` may be a subset (say, searches with an
    interaction). out: (first_id, later_id, query, later_query, ts, date): query and date of the FIRST search,
    ts of the later one.

    An equality join on (user, time bucket) with the range as a filter: its cost is bounded by the searches of
    a user within two windows, where a join on the user alone grows with the square of all that the user ever
    searched.
    """
    # 2 s more than the window: engines round or cut an epoch to whole seconds, and a pair must never be two
    # buckets apart.
    width_s = window_s + 2
    bucket = first.ts.epoch_seconds() // width_s
    left = first.select(
        "user_id",
        first_id="search_id",
        first_ts="ts",
        query="query",
        first_wording="wording",
        date="date",
        bucket=bucket.cast("int64"),
    )
    own = (later.ts.epoch_seconds() // width_s).cast("int64")
    right = later.select(
        "user_id",
        later_id="search_id",
        ts="ts",
        later_query="query",
        wording="wording",
        bucket=ibis.array([own, own - 1]).unnest(),
    )
    # A view: both sides come from the same searches, and Ibis must tell their columns apart.
    pairs = left.join(right.view(), ["user_id", "bucket"])
    window = ibis.interval(seconds=window_s)
    another = reformulates(pairs.ts, pairs.wording, pairs.first_ts, pairs.first_wording, window)
    near = pairs.filter(another)
    if windows is not None:
        gap_us = near.ts.delta(near.first_ts, unit="microsecond")
        own = near.mutate(gap_us=gap_us).left_join(windows, "query")
        near = own.filter(own.window_s.isnull() | (own.gap_us <= own.window_s * 1_000_000))
    return near.select("first_id", "later_id", "query", "later_query", "ts", "date")


def reformulations(
    searches: ir.Table, touched: ir.Table, *, window_s: int, windows: ir.Table | None = None
) -> ir.Table:
    """in: searches(search_id, user_id, ts, date, query, wording), interacted(search_id, video_id).

    out: (query, later_query, video_id, event_id, ts, date): videos of the later search for the FIRST query
    (arXiv 2511.15443, query-level perspective). event_id is the later search, so a query typed twice before
    it counts once. `date` is the first search's day, `ts` the later search's time. windows: see
    later_searches.
    """
    with_videos = searches.semi_join(touched, "search_id").select(*searches.columns)
    pairs = later_searches(searches, with_videos, window_s=window_s, windows=windows)
    videos = touched.select("video_id", later_id="search_id")
    return pairs.join(videos, "later_id").select(
        "query", "later_query", "video_id", "ts", "date", event_id="later_id"
    )
