"""Test and validation pairs: distinct (query, video) of certain days."""

import ibis.expr.types as ir


def clicked_pairs(clicked: ir.Table, *, days: tuple[str, ...]) -> ir.Table:
    """CT. in: clicks(query, video_id, date); out: (query, video_id), distinct, of searches on `days`."""
    return clicked.filter(clicked.date.isin(days)).select("query", "video_id").distinct()


def reformulated_pairs(reformulated: ir.Table, *, days: tuple[str, ...]) -> ir.Table:
    """QR. in: reformulations(query, video_id, later_query, date); out: (query, video_id, later_query),
    distinct.

    `days` are those of the first search; no similarity or relevance test is applied here.
    """
    return (
        reformulated.filter(reformulated.date.isin(days))
        .select("query", "video_id", "later_query")
        .distinct()
    )
