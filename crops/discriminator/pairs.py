"""Judged pairs from the logs: what people watched for long (or, in a log that knows no long play, clicked)
against what they looked at and skipped, and random documents.
"""

from dataclasses import dataclass

import ibis
import ibis.expr.types as ir
import numpy as np
from ibis import _

from crops.long_play import is_long


@dataclass(frozen=True, slots=True)
class Judged:
    """Pairs [P] with 1.0 for relevant; `held_out` marks the pairs of the queries kept apart for
    calibration.
    """

    queries: list[str]
    texts: list[str]
    relevant: np.ndarray
    held_out: np.ndarray


def judged(
    searches: ir.Table, results: ir.Table, videos: ir.Table, *, long_play_s: float, plays: bool = True
) -> ir.Table:
    """in: searches(search_id, query normalised), results, videos(video_id, duration_s); out: (query,
    video_id, relevant bool).

    Relevant: played for `long_play_s`, or whole where shorter, in any search of the query. Not relevant:
    never clicked, and skipped above a click or like at least once (who clicks lower down has seen it; below
    the last click nobody knows). Without `plays`, as in a shop, a click or like is what is relevant.
    """
    exposed = results.filter(_.stage == "exposed").join(searches, "search_id").left_join(videos, "video_id")
    touched = exposed.clicked | exposed.liked
    last = ibis.window(group_by="search_id")
    rows = exposed.mutate(
        touched=touched,
        long=is_long(exposed.play_s, exposed.duration_s, long_play_s).fill_null(False) if plays else touched,
        last=touched.ifelse(exposed.position, ibis.literal(-1, "int32")).max().over(last),
    )
    pairs = rows.group_by("query", "video_id").agg(
        long=_.long.max(), touched=_.touched.max(), skipped=((_.position < _.last) & ~_.touched).max()
    )
    certain = pairs.filter(pairs.long | (~pairs.touched & pairs.skipped))
    return certain.select("query", "video_id", relevant=certain.long).order_by(["query", "video_id"])


def sample(
    queries: list[str],
    doc_ids: list[str],
    relevant: np.ndarray,
    texts: dict[str, str],
    *,
    max_pairs: int,
    random_per_positive: float,
    held_out_share: float,
    seed: int,
) -> Judged:
    """Balances the judged pairs: all positives, as many skipped ones, and random documents; splits by query.

    A pair stands once. No random document is one that the log knows as relevant for its query, drawn as a
    positive or not. The mix that calibration refers to is 1 positive : at most 1 skipped :
    `random_per_positive` random.
    """
    rng = np.random.default_rng(seed)
    listed = np.array([d in texts for d in doc_ids], dtype=bool)
    positive = rng.permutation(np.flatnonzero(relevant & listed))[
        : int(max_pairs / (2 + random_per_positive))
    ]
    negative = rng.permutation(np.flatnonzero(~relevant & listed))[: len(positive)]
    drawn = rng.choice(positive, int(len(positive) * random_per_positive)) if len(positive) else positive
    catalogue = sorted(texts)
    random = rng.integers(0, len(catalogue), len(drawn))
    own = {(queries[i], doc_ids[i]) for i in np.flatnonzero(relevant)}
    pairs = {(queries[i], doc_ids[i]): 1.0 for i in positive} | {
        (queries[i], doc_ids[i]): 0.0 for i in negative
    }
    for i, d in zip(drawn, random, strict=True):
        if (pair := (queries[i], catalogue[d])) not in own:
            pairs.setdefault(pair, 0.0)
    distinct = sorted({q for q, _d in pairs})
    # Calibration is fitted on one half of these queries and judged on the other: one query each at the least.
    count = max(2, int(len(distinct) * held_out_share)) if len(distinct) > 2 else 0
    apart = set(rng.permutation(np.array(distinct, dtype=object))[:count].tolist())
    return Judged(
        queries=[q for q, _d in pairs],
        texts=[texts[d] for _q, d in pairs],
        relevant=np.array(list(pairs.values()), dtype=np.float32),
        held_out=np.array([q in apart for q, _d in pairs], dtype=bool),
    )
