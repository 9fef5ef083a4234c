"""P0: what people clicked or liked in a search."""

import ibis.expr.types as ir


def clicks(searches: ir.Table, touched: ir.Table) -> ir.Table:
    """in: searches(search_id, user_id, ts, date, query), interacted(search_id, video_id, clicked).

    out: (query, video_id, event_id, ts, date): one row per clicked or liked video of a search; event_id is
    the search.
    """
    chosen = touched.filter(touched.clicked)
    joined = searches.join(chosen, "search_id")
    return joined.select("query", "video_id", "ts", "date", event_id="search_id")
