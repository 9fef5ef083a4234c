"""Parts of a log that fit into memory one at a time: ranges of queries for what is per query, users by hash
for the feed.
"""

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir


def cuts(searches: ir.Table, *, parts: int) -> ir.Table:
    """in: searches(query); out: (part, query): the first query of every part but the first, at most `parts` -
    1 rows.

    Parts are ranges of the queries in byte order with about equally many searches; one query is never in two.
    """
    counted = searches.group_by("query").agg(searches=searches.count())
    upto = counted.searches.sum().over(ibis.cumulative_window(order_by="query"))
    total = counted.searches.sum().over(ibis.window())
    part = ((upto - 1) * parts // total).cast("int64")
    placed = counted.select("query", part=part)
    return placed.filter(placed.part > 0).group_by("part").agg(query=lambda t: t["query"].min())


def part_of(query: ir.StringValue, cuts: Sequence[str]) -> ir.IntegerValue:
    """The part of a query, 0 to len(cuts): the number of cuts (ascending) that do not come after it."""
    part = ibis.literal(0, "int64")
    for cut in cuts:
        part = part + (query >= cut).cast("int64")
    return part


def part_of_user(user: ir.StringValue, parts: int) -> ir.IntegerValue:
    """The part of a user, 0 to parts - 1, by the engine's own hash: the same for every table of one session
    only.
    """
    # A hash may be negative, and the remainder of a negative number is.
    return (user.hash() % parts + parts) % parts
