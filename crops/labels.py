"""Hierarchical labels: one per pair, the ladder (how relevant each label really is), and the choice of the
hierarchy.

Only the order of the labels matters. By default they are those of Table 1 of arXiv 2511.15443: see
crops.perspectives.
"""

import itertools
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from crops import perspectives

if TYPE_CHECKING:
    import ibis.expr.types as ir


def assign(scored: "ir.Table", labels: Mapping[str, int]) -> "ir.Table":
    """Kept rows of `scored` to samples (query, doc_id, perspective, label int8, theta), one row per pair.

    A pair of several origins keeps its highest label (ours) and the perspective that gave it, by name where
    several did; theta is the highest that was asked for it. A perspective without a label has no samples.
    """
    ordered = sorted(labels, key=lambda name: (-labels[name], name))
    rows = scored.filter(scored["kept"])
    place = rows["perspective"].cases(*((name, n) for n, name in enumerate(ordered)))
    best = rows.mutate(place=place).filter(lambda t: t["place"].notnull()).group_by("query", "doc_id")
    pairs = best.agg(place=lambda t: t["place"].min(), theta=lambda t: t["theta"].max())
    return pairs.select(
        "query",
        "doc_id",
        perspective=pairs["place"].cases(*enumerate(ordered)),
        label=pairs["place"].cases(*((n, labels[name]) for n, name in enumerate(ordered))).cast("int8"),
        theta="theta",
    )


def origins(scored: "ir.Table", *, kept: bool = True) -> "ir.Table":
    """Every perspective of every kept pair: (query, doc_id, perspective), distinct; not `kept`: of every pair
    that was dropped there.
    """
    return scored.filter(scored["kept"] == kept).select("query", "doc_id", "perspective").distinct()


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of the ladder: the share of relevant pairs among `pairs` of a label or perspective, with a 95
    % interval.
    """

    share: float
    low: float
    high: float
    pairs: int


def rung(probabilities: np.ndarray, margins: np.ndarray | None = None) -> Rung | None:
    """Mean of calibrated θ (or of 0/1 truth) with Wilson's interval; None without pairs: no answer is not an
    answer.

    margins  by how much each probability [N] may be off as a whole, beyond the chance of the sample: their
             mean widens the interval on both sides
    """
    mask = ~np.isnan(probabilities)
    measured = probabilities[mask]
    if len(measured) == 0:
        return None
    n, p, z = len(measured), float(measured.mean()), 1.959964
    centre, spread = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    off = 0.0 if margins is None else float(margins[mask].mean())
    return Rung(
        round(p, 4),
        round(max(0.0, (centre - spread) / scale - off), 4),
        round(min(1.0, (centre + spread) / scale + off), 4),
        n,
    )


def ladder(values: np.ndarray, groups: np.ndarray, margins: np.ndarray | None = None) -> dict[str, Rung]:
    """Per group (a label or a perspective, as text) its rung; groups without a known value are left out."""
    own = {g: groups == g for g in sorted(pd.unique(groups), key=str, reverse=True)}
    steps = {
        str(g): rung(values[here], None if margins is None else margins[here]) for g, here in own.items()
    }
    return {name: step for name, step in steps.items() if step is not None}


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Lowest labels that may be anchors, best guess first; more than one means that validation decides."""

    anchor_min_candidates: tuple[int, ...]
    reason: str
    merged: tuple[tuple[int, int], ...] = ()


def rank(label: int, labels: Mapping[str, int]) -> int:
    """The place of a label among the different ones of the perspectives: 1 for the lowest; 0 stays 0."""
    return 1 + sum(other < label for other in set(labels.values())) if label > 0 else label


def choose(
    by_label: Mapping[str, Rung],
    *,
    min_share: float,
    uncertain: float,
    anchor_min: int = 1,
    judged: Collection[str] = (),
    labels: Mapping[str, int] | None = None,
) -> Hierarchy:
    """Which labels may be anchors: those that are not much less relevant than the positives.

    `min_share` is the least relevance, as a share of that of the lowest positive label; within `uncertain`
    below it both hierarchies are listed. Below `anchor_min` only the labels that people have `judged` are
    taken. `labels` are those of the perspectives, by default their own. Neighbouring labels whose intervals
    overlap are named as merged: the log cannot tell them apart.
    """
    every = labels or perspectives.labels()
    border = perspectives.positive_min(every)
    levels = sorted({*every.values()}, reverse=True)
    positive = next((by_label[str(n)] for n in reversed(levels) if n >= border and str(n) in by_label), None)
    if positive is None or positive.share <= 0:
        return Hierarchy((border,), f"no measured relevance of label {border}: anchors >= {border}")
    anchors = [border]
    for label in (n for n in levels if n < border):
        step = by_label.get(str(label))
        if label < anchor_min and str(label) not in judged:
            break
        if step is None or step.share < (min_share - uncertain) * positive.share:
            break
        anchors.append(label)
        if step.share < min_share * positive.share:
            break
    measured = [(label, by_label[str(label)]) for label in levels if str(label) in by_label]
    merged = tuple(
        (a, b)
        for (a, one), (b, other) in itertools.pairwise(measured)
        if one.low <= other.high and other.low <= one.high
    )
    anchor = anchors[-1]
    share = by_label.get(str(anchor), positive).share
    if anchor < border and share < min_share * positive.share:
        return Hierarchy((anchors[-2], anchor), f"label {anchor} is at the limit: validation decides", merged)
    reasons = []
    if anchor < border:
        reasons.append(
            f"label {anchor} ({share:.2f}) keeps enough of the positives' relevance ({positive.share:.2f})"
        )
    below = next((label for label in levels if label < anchor), None)
    if step := by_label.get(str(below)):
        reasons.append(
            f"label {below} ({step.share:.2f}) keeps less than {min_share:.2f} of {positive.share:.2f}"
        )
    why = ", ".join(reasons) or "nothing is known of the lower labels"
    return Hierarchy((anchor,), f"anchors >= {anchor}: {why}", merged)
