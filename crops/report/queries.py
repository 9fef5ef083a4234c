"""Queries won and lost: the challenger against the best alternative, query by query."""

from collections.abc import Iterable, Mapping
from typing import Any

from crops.report import headline
from crops.retriever.systems import CHALLENGER

Row = Mapping[str, Any]  # of per_query.parquet


def compared(rows: Iterable[Row], report: Mapping[str, Any], *, most: int) -> list[dict[str, Any]]:
    """One entry for each set that a headline may be of and that was measured, the headline's first: {"set",
    "against", "won", "lost", "same", "left_out", "rows": [[query, challenger's recall@100, the other's]]},
    the largest differences first.

    rows  (set, system, query, recall_at_100); report: report.json; most: rows kept of a set
    """
    by_set: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        by_set.setdefault(row["set"], {}).setdefault(row["system"], {})[row["query"]] = row["recall_at_100"]
    compared_queries = []
    for name in headline.TELLING:
        first = headline.on(name, report["recall_at_100"].get(name) or {}, {})
        if first is None or name not in by_set:
            continue
        ours, other = by_set[name][CHALLENGER], by_set[name][first["against"]]
        pairs = sorted(
            ((query, round(ours[query], 4), round(other[query], 4)) for query in ours.keys() & other.keys()),
            key=lambda row: (-abs(row[1] - row[2]), row[0]),
        )
        won, lost = (sum(sign * (a - b) > 0 for _, a, b in pairs) for sign in (1, -1))
        compared_queries.append(
            {
                "set": name,
                "against": first["against"],
                "won": won,
                "lost": lost,
                "same": len(pairs) - won - lost,
                "left_out": max(0, len(pairs) - most),
                "rows": [list(row) for row in pairs[:most]],
            }
        )
    return compared_queries


def ends(rows: Iterable[list[Any]], *, each: int) -> list[list[Any]]:
    """The first `each` rows that were won, and the first `each` that were lost: what a page shows unasked."""
    listed = list(rows)
    return [row for sign in (1, -1) for row in [r for r in listed if sign * (r[1] - r[2]) > 0][:each]]
