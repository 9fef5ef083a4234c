"""What people read in place of codes: test sets and systems; and the one colour of each system."""

import re

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
}
SET_NAMES = {
    "ct": "Clicks",
    "qr": "After a reformulation, kept by θ",
    "qr_raw": "After a reformulation",
    "qr_relevant": "After a reformulation, relevant",
    "truth": "All queries",
    "unseen": "New queries",
    "no_click": "Queries without a click",
}
SLICE_NAMES = {
    "qr_head": "After a reformulation, frequent queries",
    "qr_torso": "After a reformulation, queries in between",
    "qr_tail": "After a reformulation, rare queries",
}
SYSTEMS = {
    "bm25": "BM25",
    "champion": "Champion",
    "base": "Base",
    "clicks": "Clicks",
    "clicks_mnrl": "Clicks, MNRL",
    "crops_no_knowledge": "CroPS without LLM",
    "crops_paper": "CroPS, the paper's anchors",
    "crops": "CroPS",
}
SYSTEM_MEANS = {
    "bm25": "words, no training",
    "champion": "what the registry called champion when this run began",
    "base": "the encoder that training started from, untouched",
    "clicks": "the same base trained on clicks alone, by InfoNCE",
    "clicks_mnrl": "the same as sentence-transformers would: MultipleNegativesRankingLoss",
    "crops_no_knowledge": "every perspective that the log has",
    "crops_paper": "all perspectives, every label from 1 on an anchor, as in the paper",
    "crops": "all perspectives, with the hierarchy that this log chose",
}
# A system has the same colour in every chart and table, whichever others stand beside it.
SYSTEM_COLOURS = {
    "bm25": "#8c6d5a",
    "champion": "#3f8f50",
    "base": "#858a35",
    "clicks": "#d0692a",
    "clicks_mnrl": "#c94f6d",
    "crops_no_knowledge": "#a86bc2",
    "crops_paper": "#1f938b",
    "crops": "#3b82c4",
}


def plain(text: str) -> str:
    """`text` with the names of test sets in place of their codes."""
    known = SET_NAMES | SLICE_NAMES
    codes = "|".join(sorted(known, key=len, reverse=True))
    return re.sub(rf"\b({codes})\b", lambda found: f"“{known[found[1]]}”", text)
