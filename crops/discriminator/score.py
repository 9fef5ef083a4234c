"""Scores pairs: each distinct pair once by the cross-encoder, each distinct text once by the dual encoder."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from crops.discriminator.model import CrossEncoder

MOST_KEPT = 200_000  # vectors that `remembering` keeps: at width 384 0.3 GB


def remembering(
    embed: Callable[[Sequence[str], Any], np.ndarray], *, most: int = MOST_KEPT
) -> Callable[[Sequence[str], Any], np.ndarray]:
    """`embed` for pairs that come in pieces: a document in many of them is read once, if it is one of the
    first `most`. Queries are read each time.
    """
    place: dict[str, int] = {}
    kept: list[np.ndarray] = []  # one [most, H], whose pages are memory once they are written

    def embedded(texts: Sequence[str], kind: Any) -> np.ndarray:
        if kind != "document":
            return embed(texts, kind)
        new = np.array([text not in place for text in texts], dtype=bool)
        read = embed([text for text, is_new in zip(texts, new, strict=True) if is_new], kind)
        if not kept:
            kept.append(np.empty((most, read.shape[1]), read.dtype))
        out = np.empty((len(texts), kept[0].shape[1]), kept[0].dtype)
        out[new] = read
        out[~new] = kept[0][[place[text] for text in texts if text in place]]
        for row in np.flatnonzero(new)[: most - len(place)].tolist():
            kept[0][len(place)] = out[row]
            place[texts[row]] = len(place)
        return out

    return embedded


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
    return cosines_and_nearest(embed, queries, texts, {})[0]


def cosines_and_nearest(
    embed: Callable[[Sequence[str], Any], np.ndarray],
    queries: Sequence[str],
    texts: Sequence[str],
    clicked: Mapping[str, Sequence[str]],
) -> tuple[np.ndarray, np.ndarray]:
    """float64 [N] each: as `cosines`, and the product of the text's vector with that of the nearest other
    text that was clicked for the query; NaN where there is none. Each distinct text is read once.
    """
    if not len(queries):
        return np.empty(0), np.empty(0)
    q, of_query = np.unique(np.asarray(queries, dtype=object), return_inverse=True)
    more = [text for query in q for text in clicked.get(query, ())]
    d, of_text = np.unique(np.asarray([*texts, *more], dtype=object), return_inverse=True)
    left, right = embed(q.tolist(), "query"), embed(d.tolist(), "document")
    near_to = dict(zip(more, of_text[len(texts) :].tolist(), strict=True))
    of_text = of_text[: len(texts)]
    out, nearest = np.empty(len(queries)), np.full(len(queries), np.nan)
    for start in range(0, len(out), 65_536):  # gathered vectors of millions of pairs would not fit
        part = slice(start, start + 65_536)
        out[part] = np.einsum("nh,nh->n", left[of_query[part]], right[of_text[part]])
    order = np.argsort(of_query, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(of_query[order])) + 1):
        others = np.array([near_to[text] for text in clicked.get(q[of_query[rows[0]]], ())], dtype=np.int64)
        if len(others):
            cosines = right[of_text[rows]] @ right[others].T  # [pairs of the query, clicked texts]
            cosines[of_text[rows][:, None] == others] = -np.inf
            best = cosines.max(axis=1)
            nearest[rows] = np.where(np.isneginf(best), np.nan, best)
    return out, nearest
