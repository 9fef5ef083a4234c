"""Human judgement: a blinded sample per perspective, the grades of several raters, and how far they
agree.
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

GRADES = (0, 1, 2, 3)  # as in truth/relevance: 0 irrelevant, 1 on the topic, 2 relevant, 3 just right


def sample(pairs: pd.DataFrame, *, per_perspective: int, seed: int) -> pd.DataFrame:
    """At most `per_perspective` distinct (query, doc_id) of each perspective.

    pairs  (query, doc_id, perspective, theta); a pair of several perspectives is drawn for the rarest of them
           and judged once
    """
    rng = np.random.default_rng(seed)
    rarest = pairs["perspective"].map(pairs["perspective"].value_counts())
    one = pairs.assign(rarest=rarest).sort_values(["rarest", "perspective", "query", "doc_id"])
    one = one.drop_duplicates(["query", "doc_id"]).drop(columns="rarest")
    drawn = [
        own.iloc[np.sort(rng.permutation(len(own))[:per_perspective])]
        for _name, own in one.groupby("perspective", sort=True)
    ]
    return pd.concat(drawn, ignore_index=True)


def pool(results: pd.DataFrame, *, queries: int, depth: int, seed: int) -> pd.DataFrame:
    """The pooled results of at most `queries` queries, down to rank `depth`.

    results  (query, doc_id, rank) of all systems, without what any of them was trained on; rank 0: consumed,
             asked whatever its rank
    """
    deep = results[results["rank"] <= depth].sort_values(["query", "doc_id"])
    names = sorted(deep["query"].unique())
    drawn = [names[n] for n in np.random.default_rng(seed).permutation(len(names))[:queries]]
    return deep[deep["query"].isin(drawn)].reset_index(drop=True)


def shuffled(pairs: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """`pairs` in another order, with a pair_id that tells nothing."""
    mixed = pairs.iloc[np.random.default_rng(seed).permutation(len(pairs))].reset_index(drop=True)
    return mixed.assign(pair_id=[f"p{n:04d}" for n in range(1, len(mixed) + 1)])


@dataclass(frozen=True, slots=True)
class Agreement:
    """Cohen's kappa with quadratic weights (Cohen 1968), mean over the pairs of raters; `pairs` both judged;
    None: one rater.
    """

    kappa: float | None
    pairs: int


def agreement(sheets: Sequence[Mapping[str, int]]) -> Agreement:
    """`sheets`: per rater pair_id -> grade. 1: always the same, 0: no better than chance; unknown if
    no grade varies.
    """
    kappas, shared = [], 0
    for one, other in itertools.combinations(sheets, 2):
        both = sorted(one.keys() & other.keys())
        shared += len(both)
        if both:
            kappas.append(_kappa(*(np.array([sheet[p] for p in both]) for sheet in (one, other))))
    certain = [kappa for kappa in kappas if kappa is not None]
    return Agreement(round(float(np.mean(certain)), 4) if certain else None, shared)


def _kappa(a: np.ndarray, b: np.ndarray) -> float | None:
    """1 - observed / expected squared distance; None if the marginals leave nothing to expect."""
    observed = float(((a - b) ** 2).mean())
    expected = float(((a[:, None] - b[None, :]) ** 2).mean())
    return None if expected == 0 else 1 - observed / expected


def settle(sheets: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """pair_id -> the median grade of those who judged it; the lower of the two middle grades of an even
    number.
    """
    ids = sorted({p for sheet in sheets for p in sheet})
    return {p: statistics.median_low([sheet[p] for sheet in sheets if p in sheet]) for p in ids}
