"""Text as every encoder sees it: in training, evaluation and serving alike. The lowest layer; standard
library only.
"""

import unicodedata
from collections.abc import Sequence

# Characters kept of one field: the encoder reads 128 tokens (arXiv 2511.15443, section "Implementation"), and
# no tokenizer here makes fewer than one token of 16 characters; more would only cost tokenizer time.
MAX_FIELD_CHARS = 2048


def normalise_query(text: str) -> str:
    """NFKC, case-folded, white space collapsed and stripped; idempotent.

    >>> normalise_query("  Ｓｏｕｒ\\tDOUGH  bread ")
    'sour dough bread'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    # Case folding can leave a string that is no longer in NFKC form (for example U+0345): normalise once
    # more.
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def document_text(
    caption: str, keywords: Sequence[str] = (), cover_text: str = "", related_queries: Sequence[str] = ()
) -> str:
    """Caption, keywords, OCR of the cover, related queries (arXiv 2511.15443), normalised like a query, empty
    fields left out.

    >>> document_text("Sourdough, day 1", ["bread", "baking"], "", ["how to bake bread"])
    'sourdough, day 1 | bread baking | how to bake bread'
    """
    fields = (caption, " ".join(keywords), cover_text, " ; ".join(related_queries))
    clean = (normalise_query(field[:MAX_FIELD_CHARS]) for field in fields)
    return " | ".join(field for field in clean if field)
