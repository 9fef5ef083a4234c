"""What a report says first: the challenger against the best that the user has without it, and where the gain
comes from.
"""

from collections.abc import Mapping
from typing import Any

from crops.retriever.systems import ALTERNATIVES, CHALLENGER, LOG_ONLY

# The first of these that the log offers.
TELLING = ("truth", "qr_relevant", "qr_raw")


def of(metrics: Mapping[str, Any]) -> dict[str, Any] | None:
    """{"set", "ours", "against", "recall_at_100": {both}, "difference", "from_log", "from_llm"} of
    metrics.json; None if no set holds the challenger and an alternative.

    A gap is {"difference", "low", "high"}, paired by query, or None where it was not measured. against: the
    alternative with the highest recall on the set; the highest of several is high by chance too, so the
    interval is, if anything, unkind to the challenger. from_log: trained without knowledge, minus that
    alternative; from_llm: the challenger minus trained without knowledge. The two add up to the difference.
    """
    best = (
        on(name, row, (metrics.get("intervals") or {}).get(name) or {})
        for name in TELLING
        if (row := metrics["recall_at_100"].get(name))
    )
    return next((one for one in best if one is not None), None)


def on(name: str, row: Mapping[str, float], intervals: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same for one set: `row` is its recall@100 by system, `intervals` what metrics.json says of it."""
    rivals = [system for system in ALTERNATIVES if system in row]
    if CHALLENGER not in row or not rivals:
        return None
    best = max(rivals, key=row.__getitem__)

    def gap(ours: str, other: str) -> dict[str, float] | None:
        difference: dict[str, float] | None = intervals.get(f"{ours}_minus", {}).get(other)
        return difference

    return {
        "set": name,
        "ours": CHALLENGER,
        "against": best,
        "recall_at_100": {CHALLENGER: row[CHALLENGER], best: row[best]},
        "difference": gap(CHALLENGER, best),
        "from_log": gap(LOG_ONLY, best),
        "from_llm": gap(CHALLENGER, LOG_ONLY),
    }


def sentence(headline: Mapping[str, Any]) -> str:
    """One line for the console: who, against whom, by how much."""
    ours, against = headline["ours"], headline["against"]
    recall = headline["recall_at_100"]
    text = (
        f"recall@100 on {headline['set']}: {ours} {100 * recall[ours]:.1f} %, best alternative {against} "
        f"{100 * recall[against]:.1f} %"
    )
    gap = headline["difference"]
    return text if gap is None else f"{text}, difference {points(gap)}"


def points(gap: Mapping[str, float]) -> str:
    """A gap in points with its 95 % interval."""
    return (
        f"{100 * gap['difference']:+.1f} points (95 % interval {100 * gap['low']:+.1f} to "
        f"{100 * gap['high']:+.1f})"
    )
