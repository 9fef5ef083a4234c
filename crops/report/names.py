"""What people read in place of codes: test sets and systems; and the one colour of each system."""

import re

from crops.retriever import systems

# In the order in which they are read, with what each asks.
SETS = {
    "ct": "clicked on the held-out days; rewards imitation of the engine that wrote the log: a guardrail",
    "qr": "consumed after a reformulation, mapped to the first query, kept by θ (circular: θ "
    "gated training as well)",
    "qr_raw": "the same without θ",
    "qr_relevant": "the same, only what truth calls relevant",
    "truth": "all held-out queries, all relevant documents",
    "unseen": "held-out queries that the training days do not hold",
    "no_click": "held-out queries that nobody clicked for in the training days",
    "cold_start": "held-out queries, only the relevant documents that training had no positive of",
}
SET_NAMES = {
    "ct": "Clicks",
    "qr": "After a reformulation, kept by θ",
    "qr_raw": "After a reformulation",
    "qr_relevant": "After a reformulation, relevant",
    "truth": "All queries",
    "unseen": "New queries",
    "no_click": "Queries without a click",
    "cold_start": "New documents",
}
SLICE_NAMES = {
    "qr_head": "After a reformulation, frequent queries",
    "qr_torso": "After a reformulation, queries in between",
    "qr_tail": "After a reformulation, rare queries",
}
FUSED, RERANKED, GENERATIVE, BOTH = (
    name(systems.CHALLENGER)
    for name in (systems.fused_of, systems.reranked_of, systems.generative_of, systems.generative_fused)
)
SYSTEMS = {
    systems.BM25: "BM25",
    systems.CHAMPION: "Champion",
    systems.BASE: "Base",
    systems.BASELINE: "Clicks",
    systems.MNRL: "Clicks, MNRL",
    systems.LOG_ONLY: "CroPS without LLM",
    systems.PAPER: "CroPS, the paper's anchors",
    systems.CHALLENGER: "CroPS",
    FUSED: "CroPS and BM25",
    RERANKED: "CroPS, re-ranked",
    GENERATIVE: "CroPS, generative",
    BOTH: "CroPS, both retrievers",
}
SYSTEM_MEANS = {
    systems.BM25: "words, no training",
    systems.CHAMPION: "what the registry called champion when this run began",
    systems.BASE: "the encoder that training started from, untouched",
    systems.BASELINE: "the same base trained on clicks alone, by InfoNCE",
    systems.MNRL: "the same as sentence-transformers would: MultipleNegativesRankingLoss",
    systems.LOG_ONLY: "every perspective that the log has",
    systems.PAPER: "all perspectives, every label from 1 on an anchor, as in the paper",
    systems.CHALLENGER: "all perspectives, with the hierarchy that this log chose",
    FUSED: "both rankings by reciprocal rank, as a gateway with the setting fusion answers",
    RERANKED: "CroPS' ranking, its first documents in the order of θ",
    GENERATIVE: "the second retriever: from CroPS' vector of a query to semantic ids of documents",
    BOTH: "CroPS' ranking and the second retriever's by reciprocal rank",
}
# A system has the same colour in every chart and table, whichever others stand beside it.
SYSTEM_COLOURS = {
    systems.BM25: "#8c6d5a",
    systems.CHAMPION: "#3f8f50",
    systems.BASE: "#858a35",
    systems.BASELINE: "#d0692a",
    systems.MNRL: "#c94f6d",
    systems.LOG_ONLY: "#a86bc2",
    systems.PAPER: "#1f938b",
    systems.CHALLENGER: "#3b82c4",
    FUSED: "#5e6fbf",
    RERANKED: "#a9841f",
    GENERATIVE: "#7a7f8a",
    BOTH: "#4f93a8",
}


def plain(text: str) -> str:
    """`text` with the names of test sets in place of their codes."""
    names = SET_NAMES | SLICE_NAMES
    codes = "|".join(sorted(names, key=len, reverse=True))
    return re.sub(rf"\b({codes})\b", lambda match: f"“{names[match[1]]}”", text)
