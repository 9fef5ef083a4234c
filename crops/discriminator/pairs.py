"""Judged pairs from the logs: what people watched for long (or, in a log that knows no long play, clicked)
against what they looked at and skipped, and random documents. And the mined pairs that θ reads.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import ibis
import ibis.expr.types as ir
import numpy as np
import pandas as pd
from ibis import _

from crops import perspectives
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


def learnable(rows: ir.Table, documents: ir.Table, valid: ir.Table) -> ir.Table:
    """in: rows(query, video_id, ...), documents(doc_id, text), valid(query, video_id, ...); out: the rows
    that have a text and are no validation pair, with doc_id for video_id.

    Hierarchy and length are chosen by validation pairs, so nothing before may know them: by text, because one
    video may be there under two ids.
    """
    own = rows.rename(doc_id="video_id")
    held_out = valid.select("query", doc_id="video_id").join(documents, "doc_id").select("query", "text")
    apart = held_out.join(documents, "text").select("query", "doc_id").distinct()
    return own.semi_join(documents, "doc_id").anti_join(apart, ["query", "doc_id"])


def asked(mined: ir.Table, names: Collection[str]) -> ir.Table:
    """in: mined(query, doc_id, perspective); out: (query, doc_id, asked bool, clicked bool), a row for each
    pair that is of one of `names`, asked, or was clicked.
    """
    pairs = mined.group_by("query", "doc_id").agg(
        asked=mined["perspective"].isin([*names]).max(),
        clicked=(mined["perspective"] == perspectives.CLICK.name).max(),
    )
    return pairs.filter(pairs["asked"] | pairs["clicked"])


def clicked(pairs: pd.DataFrame, texts: Mapping[str, str]) -> dict[str, list[str]]:
    """query -> the texts of the documents clicked for it. in: (query, doc_id, clicked bool)."""
    own = pairs[pairs["clicked"]]
    return own["doc_id"].map(texts).groupby(own["query"]).agg(list).to_dict()


def weighed(rows: ir.Table, scores: ir.Table, counted: Mapping[str, str]) -> ir.Table:
    """in: rows(query, doc_id, perspective, support, ...), scores(query, doc_id, theta, nearest); out: the
    rows with theta and nearest, null where there is no score, and of_video, the events of their document in
    one perspective, null where there is none.

    counted  perspective of the row -> the one in which the events count
    """
    once = scores.group_by("query", "doc_id").agg(theta=_.theta.max(), nearest=_.nearest.max())
    read = rows.left_join(once, ["query", "doc_id"]).select(*rows.columns, "theta", "nearest")
    read = read.mutate(
        counted=read["perspective"].cases(*counted.items()) if counted else ibis.null("string")
    )
    of_video = rows.group_by(counted="perspective", doc_id="doc_id").agg(of_video=_.support.sum())
    return read.left_join(of_video, ["counted", "doc_id"]).select(*read.columns, "of_video").drop("counted")
