"""Windows that the log's own gaps suggest: how long after a search the next one still continues its need.

Gaps between a user's searches are of two kinds, within a sitting and between two; their logarithms are about
two normal distributions (Jones and Klinkner, CIKM 2008, on finding the border between sessions of search).
Gaps to feed views are of one kind, whatever was searched: how near a view still has to do with the search
shows in what is viewed. Of the views at a gap some share is of videos clicked for the query; hours away that
share is what the user's taste makes it.
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
FAR_S = 6 * 3_600, 24 * 3_600  # from a search: views by taste alone; ours
LEAST_MATCHES = 50  # near views of clicked videos in a class, below which a share says nothing; ours
MOST_SEARCHES = 20_000  # per class, a fixed draw, each with a day of views on both sides; ours
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


def views_near(searches: ir.Table, views: ir.Table, clicks: ir.Table, bands: ir.Table) -> ir.Table:
    """in: searches(search_id, user_id, ts, query), views(user_id, video_id, ts), clicks(query, video_id),
    banded(query, band); out: (band, gap_s float64, matches bool): a search, a view of its user at most a day
    before or after it, and whether anybody clicked that video for the query. Queries without clicks are left
    out; at most MOST_SEARCHES a band.
    """
    matching = clicks.select("query", "video_id").distinct().mutate(matches=True)
    asked = searches.semi_join(matching, "query").select("search_id", "user_id", "ts", "query")
    classed = asked.join(bands, "query").mutate(draw=lambda t: t.search_id.hexdigest("md5"))
    place = ibis.row_number().over(ibis.window(group_by="band", order_by="draw"))
    drawn = classed.mutate(place=place).filter(lambda t: t.place < MOST_SEARCHES)
    width_s = FAR_S[1] + 2  # see reformulation.later_searches
    bucket = (drawn.ts.epoch_seconds() // width_s).cast("int64")
    spread = drawn.mutate(bucket=ibis.array([bucket - 1, bucket, bucket + 1]).unnest())
    own = (views.ts.epoch_seconds() // width_s).cast("int64")
    viewed = views.select("user_id", "video_id", view_ts="ts", bucket=own)
    pairs = spread.join(viewed, ["user_id", "bucket"])
    gap_s = pairs.view_ts.cast("timestamp").delta(pairs.ts.cast("timestamp"), unit="microsecond").abs() / 1e6
    near = pairs.mutate(gap_s=gap_s).filter(lambda t: t.gap_s <= FAR_S[1])
    told = near.left_join(matching, ["query", "video_id"])
    return told.select("band", "gap_s", matches=told.matches.fill_null(False))


def learnt_of_views(
    of_band: Mapping[str, tuple[np.ndarray, np.ndarray]], *, default_s: int
) -> dict[str, int]:
    """Seconds per band of `of_band` (gaps float [N] and matches bool [N] each): the gap up to which a view of
    a clicked video is more likely for the search than by taste. `default_s` where a band has too few of them.
    """
    return {band: _reach(*told) or default_s for band, told in of_band.items()}


def _reach(gaps_s: np.ndarray, matches: np.ndarray) -> int | None:
    """By isotonic regression the share of matching views falls with the gap; half of them are by taste where
    it is twice that of far ones.
    """
    from scipy.optimize import isotonic_regression

    far = gaps_s >= FAR_S[0]
    near = np.argsort(gaps_s, kind="stable")[: int((gaps_s <= LONGEST_S).sum())]
    if matches[near].sum() < LEAST_MATCHES or not far.any():
        return None
    share = isotonic_regression(matches[near].astype(float), increasing=False).x
    within = share > 2 * matches[far].mean()
    return int(np.ceil(gaps_s[near][within][-1])) if within.any() else None


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
