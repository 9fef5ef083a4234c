"""How much a positive counts: the chance with which it comes into a batch when its query has its turn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir

from crops import perspectives
from crops.tables import records

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What positives are weighed by, after how many days `age` halves one, and whether the samples bring
    their θ as well, for a training that learns from it.
    """

    kinds: tuple[str, ...] = ()
    half_life_days: float = 14.0
    bring_theta: bool = False

    @property
    def tables(self) -> frozenset[records.Table]:
        """What they are read from, beside the samples."""
        return frozenset(table for kind in self.kinds for table in (TABLE.get(kind),) if table)


PLAIN = Weights()


def theta(samples: ir.Table, _weights: Weights) -> ir.Table:
    """in: samples(query, doc_id, perspective, theta); out: (query, doc_id, weight): θ of what the
    discriminator gates.
    """
    gated = samples.filter(samples.perspective.isin(perspectives.names(gated=True)), samples.theta.notnull())
    return gated.select("query", "doc_id", weight="theta")


def support(candidates: ir.Table, _weights: Weights) -> ir.Table:
    """in: candidates(query, video_id, perspective, support); out: n / (n + 1) of n events of all positive
    perspectives.
    """
    own = candidates.filter(candidates.perspective.isin(perspectives.names(positive=True)))
    times = own.group_by("query", doc_id=own.video_id).agg(times=own.support.sum())
    return times.select("query", "doc_id", weight=times.times / (times.times + 1.0))


def rate(evidence: ir.Table, _weights: Weights) -> ir.Table:
    """in: evidence(query, video_id, shown, examined, clicked); out: clicks for each time that the pair was
    looked at (inverse propensity: Joachims, Swaminathan and Schnabel, WSDM 2017), both with one more; at most
    1. Pairs that were never shown have none.
    """
    seen = evidence.filter(evidence.shown > 0)
    per_look = (seen.clicked + 1.0) / (seen.examined + 1.0)
    return seen.select("query", doc_id="video_id", weight=ibis.least(per_look, 1.0))


def dwell(evidence: ir.Table, _weights: Weights) -> ir.Table:
    """in: evidence(query, video_id, watched); out: the played share of a long play, at least a tenth."""
    played = evidence.filter(evidence.watched.notnull())
    return played.select("query", doc_id="video_id", weight=ibis.greatest(played.watched, 0.1))


def age(evidence: ir.Table, weights: Weights) -> ir.Table:
    """in: evidence(query, video_id, last_ts); out: a half for every half-life between the pair's last event
    and the last one of all.
    """
    second = evidence.last_ts.epoch_seconds()
    days = (second.max().over(ibis.window()) - second) / DAY_S
    return evidence.select("query", doc_id="video_id", weight=0.5 ** (days / weights.half_life_days))


KINDS: Mapping[str, Callable[[ir.Table, Weights], ir.Table]] = {
    f.__name__: f for f in (theta, support, rate, dwell, age)
}
TABLE = {"support": records.CANDIDATES, **dict.fromkeys(("rate", "dwell", "age"), records.EVIDENCE)}


def weighed(
    pairs: ir.Table, weights: Weights, tables: Mapping[str, ir.Table], *, positive_min: int
) -> ir.Table:
    """in: pairs(query, doc_id, label); out: the same with `weight` float32, 0..1: the product of what the
    kinds say of a positive, 1 of everything else.

    tables: by the name of the kind, what its function takes.
    """
    product = pairs.mutate(weight=ibis.literal(1.0, "float64"))
    for kind in weights.kinds:
        own = KINDS[kind](tables[kind], weights).select("query", "doc_id", factor="weight")
        both = product.left_join(own, ["query", "doc_id"])
        factor = ibis.ifelse(both.label >= positive_min, both.factor.cast("float64").fill_null(1.0), 1.0)
        product = both.select(*pairs.columns, weight=both.weight * factor)
    return product.mutate(weight=product.weight.cast("float32"))
