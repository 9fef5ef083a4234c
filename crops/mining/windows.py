"""Windows that the log's own gaps suggest: how long after a search the next one still continues its need.

Gaps between a user's searches are of two kinds, within a sitting and between two; their logarithms are about
two normal distributions (Jones and Klinkner, CIKM 2008, on finding the border between sessions of search).
"""

from collections.abc import Mapping

import ibis
import ibis.expr.types as ir
import numpy as np

# Classes of a query by its searches, as crops.evaluation has them by default; then everything below.
BANDS = {"head": 20, "torso": 4, "tail": 1}
LEAST_GAPS = 200  # of a class, for two distributions with five numbers; ours
MOST_GAPS = 100_000  # per class, a fixed draw: more changes no second of a window; ours
LONGEST_S = 3_600  # a later search continues nothing that a person remembers; ours
APART = 1.0  # of two means of log seconds: nearer ones are one kind of gap; ours


def banded(searches: ir.Table) -> ir.Table:
    """in: searches(query); out: (query, band), one row a query."""
    counted = searches.group_by("query").agg(searches=searches.count())
    head, torso = (counted.searches >= BANDS[name] for name in ("head", "torso"))
    return counted.select("query", band=ibis.cases((head, "head"), (torso, "torso"), else_="tail"))


def gaps(searches: ir.Table, bands: ir.Table) -> ir.Table:
    """in: searches(search_id, user_id, ts, query, wording), banded(query, band); out: (band, gap_s float64):
    from a search to the same user's next one, if that is in another wording; at most MOST_GAPS a band.
    """
    order = ibis.window(group_by="user_id", order_by=["ts", "search_id"])
    narrow = searches.select("search_id", "user_id", "ts", "query", "wording")
    paired = narrow.mutate(later_ts=narrow.ts.lead().over(order), later=narrow.wording.lead().over(order))
    other = paired.filter(paired.later_ts > paired.ts, paired.later != paired.wording)
    gap_s = other.later_ts.delta(other.ts, unit="microsecond") / 1e6
    draw = other.search_id.hexdigest("md5")
    rows = other.join(bands, "query").select("band", gap_s=gap_s, draw=draw)
    place = ibis.row_number().over(ibis.window(group_by="band", order_by="draw"))
    return rows.mutate(place=place).filter(lambda t: t.place < MOST_GAPS).select("band", "gap_s")


def learnt(of_band: Mapping[str, np.ndarray], *, default_s: int) -> dict[str, int]:
    """Seconds per band of `of_band` (float [N] > 0 each): the gap from which on a new sitting is likelier
    than the same one. `default_s` where a band has too few gaps or they are of one kind.
    """
    return {band: _border(gaps_s) or default_s for band, gaps_s in of_band.items()}


def _border(gaps_s: np.ndarray) -> int | None:
    from sklearn.mixture import GaussianMixture

    if len(gaps_s) < LEAST_GAPS:
        return None
    logs = np.log(np.maximum(gaps_s, 1.0))[:, None]
    two = GaussianMixture(2, n_init=3, random_state=0).fit(logs)
    one = GaussianMixture(1, random_state=0).fit(logs)
    near, far = np.argsort(two.means_[:, 0])
    apart = two.means_[far, 0] - two.means_[near, 0]
    if apart < APART or two.bic(logs) >= one.bic(logs):
        return None
    between = np.linspace(two.means_[near, 0], two.means_[far, 0], 1_000)
    later = two.predict_proba(between[:, None])[:, far] >= 0.5
    border = between[int(np.argmax(later))] if later.any() else between[-1]
    return int(min(LONGEST_S, round(float(np.exp(border)))))
