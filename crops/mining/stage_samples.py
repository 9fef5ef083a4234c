"""What the engine considered and the user did not choose: exposed, ranked and filtered videos, and how
candidates add up.
"""

import ibis
import ibis.expr.types as ir


def stage_samples(searches: ir.Table, results: ir.Table) -> ir.Table:
    """in: searches(search_id, ts, query[, more]), results(search_id, video_id, stage, clicked, liked).

    out: (query, video_id, perspective, ts[, more]); perspective = stage; exposed only where neither clicked
    nor liked.
    """
    idle = results.filter(~(results.clicked | results.liked)).select(
        "search_id", "video_id", perspective="stage"
    )
    return searches.join(idle, "search_id").drop("search_id")


def add_up(events: ir.Table, *, perspective: str | None = None, once: bool = False) -> ir.Table:
    """in: (query, video_id, event_id, ts[, perspective][, later_query]).

    out: (query, video_id, perspective, later_query, first_ts, support): first time and number of distinct
    events.

    once: no event occurs twice for a query and video, so that rows are counted; a distinct count holds every
    id in memory.
    """
    if perspective is not None:
        events = events.mutate(perspective=ibis.literal(perspective))
    if "later_query" not in events.columns:
        events = events.mutate(later_query=ibis.null("string"))
    grouped = events.group_by("query", "video_id", "perspective", "later_query")
    number = (lambda t: t.count()) if once else (lambda t: t.event_id.nunique())
    return grouped.agg(first_ts=lambda t: t.ts.min(), support=lambda t: number(t).cast("int64"))


def add_up_stages(samples: ir.Table, *, max_videos: int) -> ir.Table:
    """in: stage_samples; out: as add_up, at most `max_videos` per query and stage, most support first, ties
    by video_id.

    A search holds a video once, so its number of events is the number of rows: no distinct count over the
    largest table.
    """
    grouped = samples.group_by("query", "video_id", "perspective")
    summed = grouped.agg(first_ts=lambda t: t.ts.min(), support=lambda t: t.count().cast("int64"))
    order = ibis.window(group_by=["query", "perspective"], order_by=[ibis.desc("support"), "video_id"])
    top = summed.mutate(rank=ibis.row_number().over(order)).filter(lambda t: t.rank < max_videos)
    return top.select(
        "query",
        "video_id",
        "perspective",
        later_query=ibis.null("string"),
        first_ts="first_ts",
        support="support",
    )
