"""What a log says of a pair beside that somebody chose it: how often it was shown, how well it could be seen,
how often it was clicked, how long it was played, and when it last happened.
"""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import ibis
import ibis.expr.types as ir

from crops.long_play import LONG_PLAY_S

# Clicks that each of two neighbouring positions is given beside its own: without evidence both are looked at
# alike. Ours.
PRIOR_CLICKS = 1.0


def shown(searches: ir.Table, results: ir.Table, videos: ir.Table) -> ir.Table:
    """in: searches(search_id, ts, query), results(search_id, video_id, stage, position, clicked, liked,
    play_s), videos(video_id, duration_s).

    out: (query, video_id, position, clicked, watched, ts), a row per result that a user saw. watched: the
    played share of a long play (or of the video, where it is shorter), 0..1; null where nothing was played.
    """
    seen = results.filter((results.stage == "exposed") | results.clicked | results.liked)
    whole = ibis.least(videos.duration_s.fill_null(LONG_PLAY_S), LONG_PLAY_S)
    length = videos.select("video_id", long_s=ibis.ifelse(whole > 0, whole, LONG_PLAY_S))
    rows = searches.select("search_id", "ts", "query").join(seen, "search_id").left_join(length, "video_id")
    share = rows.play_s.cast("float64") / rows.long_s.fill_null(LONG_PLAY_S)
    return rows.select(
        "query",
        "video_id",
        "position",
        "ts",
        clicked=rows.clicked | rows.liked,
        watched=ibis.ifelse(share > 1, 1.0, share),
    )


def neighbours(seen: ir.Table) -> ir.Table:
    """in: shown(query, video_id, position, clicked); out: (position, here, after): over all pairs that were
    shown at a position and at the next one, clicks here and there, as if each was shown at both as often as
    at the rarer one.

    A pair is as relevant at either, so what differs is how often people look (intervention harvesting,
    Agarwal et al., WSDM 2019, its AdjacentChain estimator).
    """
    placed = seen.filter(seen.position.notnull()).group_by("query", "video_id", "position")
    rates = placed.agg(rate=lambda t: t.clicked.cast("float64").mean(), times=lambda t: t.count())
    after = rates.view().select(
        "query", "video_id", position=lambda t: t.position - 1, later="rate", later_times="times"
    )
    both = rates.join(after, ["query", "video_id", "position"])
    both = both.mutate(times=ibis.least(both.times, both.later_times))
    return both.group_by("position").agg(
        here=(both.rate * both.times).sum(), after=(both.later * both.times).sum()
    )


def propensities(rows: Iterable[Mapping[str, float]]) -> list[float]:
    """How often each position is looked at for each time the first one is, from the rows of `neighbours`; as
    far as positions follow one another without a gap, none above the one before it.

    The ratios of neighbours are chained first, and made to fall then, by the nearest falling series of their
    logarithms (isotonic regression). To cut each ratio at 1 would keep its chance downwards and drop that
    upwards: where people look at twenty positions alike, a thousand clicks at each came out as 0.7.

    >>> propensities([{"position": 0, "here": 9.0, "after": 4.0}])
    [1.0, 0.5]
    """
    clicks = {int(r["position"]): (r["here"] + PRIOR_CLICKS, r["after"] + PRIOR_CLICKS) for r in rows}
    pairs = [clicks[k] for k in itertools.takewhile(lambda k: k in clicks, itertools.count())]
    if not pairs:
        return [1.0]
    from scipy.optimize import isotonic_regression  # not at the top: mining that counts no looks does without

    chained = [*itertools.accumulate(math.log(after / here) for here, after in pairs)]
    # Of the logarithm of a ratio of two counts, which adds up along the chain.
    variance = itertools.accumulate(1 / here + 1 / after for here, after in pairs)
    falling = isotonic_regression(chained, weights=[1 / v for v in variance], increasing=False).x
    return [1.0, *(math.exp(min(0.0, x)) for x in falling.tolist())]


def collected(seen: ir.Table, mined: Sequence[ir.Table], chances: Sequence[float]) -> ir.Table:
    """in: shown; mined, each (query, video_id, ts); propensities. out: (query, video_id, shown, examined,
    clicked, watched, last_ts), one row a pair.

    examined: times it was looked at, as if at the first position; further down than `chances` as at its last.
    watched: mean over the plays.
    """
    place = seen.position.fill_null(0).clip(0, len(chances) - 1)
    looked = place.cases(*enumerate(chances)) if len(chances) > 1 else ibis.literal(1.0)
    never = ibis.literal(0.0).cast("float32")  # SQL reads a number with a point as a decimal
    rows = [
        seen.select(
            "query", "video_id", "ts", "clicked", "watched", looked=looked.cast("float32"), seen=True
        ),
        *(
            events.select(
                "query",
                "video_id",
                ts=events.ts.cast(seen.ts.type()),  # Spark gives back some times without their zone
                clicked=False,
                watched=ibis.null("float64"),
                looked=never,
                seen=False,
            )
            for events in mined
        ),
    ]
    every = ibis.union(*rows) if len(rows) > 1 else rows[0]
    return every.group_by("query", "video_id").agg(
        shown=every.count(where=every.seen),
        examined=every.looked.sum(),
        clicked=every.count(where=every.clicked),
        watched=every.watched.mean(),
        last_ts=every.ts.max(),
    )
