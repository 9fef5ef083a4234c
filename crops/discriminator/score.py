"""Scores pairs: each distinct pair once by the cross-encoder, each distinct text once by the dual encoder."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from crops.discriminator.model import CrossEncoder


@torch.inference_mode()
def logits(
    encoder: CrossEncoder,
    queries: Sequence[str],
    texts: Sequence[str],
    *,
    batch_tokens: int = 16_384,
    progress: Callable[[int], Any] = lambda _count: None,
) -> np.ndarray:
    """float64 [N], in the order given; each distinct (query, text) is scored once."""
    index: dict[tuple[str, str], int] = {}
    back = np.array(
        [index.setdefault(pair, len(index)) for pair in zip(queries, texts, strict=True)], dtype=np.int64
    )
    if not index:
        return np.empty(0)
    distinct = list(index)
    out = np.empty(len(distinct))
    encoder.model.eval()
    # Tokenized in slices: the token lists of millions of pairs would not fit.
    for start in range(0, len(distinct), 50_000):
        part = distinct[start : start + 50_000]
        pairs = encoder.tokenize([q for q, _ in part], [t for _, t in part])
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]))
        group: list[int] = []
        for i in [*order, -1]:
            if group and (i < 0 or (len(group) + 1) * len(pairs[i][0]) > batch_tokens):
                out[[start + j for j in group]] = encoder.logits([pairs[j] for j in group]).cpu().numpy()
                progress(len(group))
                group = []
            group.append(i)
    scores: np.ndarray = out[back]
    return scores


def cosines(
    embed: Callable[[Sequence[str], Any], np.ndarray], queries: Sequence[str], texts: Sequence[str]
) -> np.ndarray:
    """float64 [N]: the product of the unit vectors of each query and text, in the order given."""
    if not len(queries):
        return np.empty(0)
    q, of_query = np.unique(np.asarray(queries, dtype=object), return_inverse=True)
    d, of_text = np.unique(np.asarray(texts, dtype=object), return_inverse=True)
    left, right = embed(q.tolist(), "query"), embed(d.tolist(), "document")
    out = np.empty(len(queries))
    for start in range(0, len(out), 65_536):  # gathered vectors of millions of pairs would not fit
        part = slice(start, start + 65_536)
        out[part] = np.einsum("nh,nh->n", left[of_query[part]], right[of_text[part]])
    return out
