"""What a system is trained on, as expressions over the tables: pairs of numbers, each with a label."""

from collections.abc import Mapping

import ibis
import ibis.expr.types as ir

from crops.retriever import systems


def visible(
    samples: ir.Table, origins: ir.Table, system: systems.System, ranks: Mapping[str, int], labels: set[int]
) -> ir.Table:
    """in: samples(query, doc_id, label), origins(query, doc_id, perspective); out: (query, doc_id, label), of
    what `system` sees; one that sees only some of a pair's perspectives grades it by those. Labels come out
    by their rank among `labels`.

    ranks  perspective -> rank of its label
    """
    if not system.only and not system.hides:
        place = sum(((samples.label > label).cast("int8") for label in labels), ibis.literal(1, "int8"))
        label = ibis.ifelse(samples.label > 0, place, samples.label)
        return samples.select("query", "doc_id", label=label.cast("int8"))
    own = _seen(origins, system)
    graded = own.mutate(label=own.perspective.cases(*ranks.items()).cast("int8"))
    best = graded.group_by("query", "doc_id").agg(label=graded.label.max())
    return best.semi_join(samples, ["query", "doc_id"])


def dropped(pairs: ir.Table, system: systems.System) -> ir.Table:
    """in: dropped(query, doc_id, perspective); out: (query, doc_id), of the perspectives that it sees."""
    return _seen(pairs, system).select("query", "doc_id").distinct()


def _seen(pairs: ir.Table, system: systems.System) -> ir.Table:
    """As systems.sees."""
    if system.only:
        return pairs.filter(pairs.perspective.isin(system.only))
    return pairs.filter(pairs.perspective.notin(system.hides)) if system.hides else pairs


def numbered(distinct: ir.Table, column: str, number: str) -> ir.Table:
    """Adds `number`, from 0 in the order of `column`."""
    place = ibis.row_number().over(ibis.window(order_by=distinct[column]))
    return distinct.mutate(place.cast("int32").name(number))


def best(pairs: ir.Table, held_out: ir.Table) -> ir.Table:
    """in: (query, text, label, maybe weight and theta), held_out(query, text), as numbers; out: the first
    without the second, one row a pair with the highest of each value.
    """
    kept = pairs.anti_join(held_out, ["query", "text"])
    values = [name for name in kept.columns if name not in ("query", "text")]
    return kept.group_by("query", "text").agg(**{name: kept[name].max() for name in values})


def masked(pairs: ir.Table, doubted: ir.Table, alike: ir.Table, *, positive_min: int) -> ir.Table:
    """in: pairs(query, text, label, maybe weight and theta), doubted(query, text), alike(text, other); out:
    rows like those of `pairs`, label -1, of what is no sample but in doubt, or nearly the same as a positive
    of the query.
    """
    positives = pairs.filter(pairs.label >= positive_min)
    near = positives.join(alike, "text").select("query", text="other")
    both = ibis.union(doubted.select("query", "text"), near, distinct=True)
    rest = both.anti_join(pairs, ["query", "text"])
    values = {
        "label": ibis.literal(-1, "int8"),
        "weight": ibis.literal(1.0, "float32"),
        "theta": ibis.null("float32"),
    }
    return rest.mutate(**{name: value for name, value in values.items() if name in pairs.columns})
