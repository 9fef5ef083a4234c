"""How far a mined pair is more than chance: θ of reformulation and feed pairs.

Nobody judges most of these pairs, and those that the engine showed are another kind: they share words with
their query. What can be had from the log alone is how pairs look that came together by chance: take the same
queries and the same videos and pair them anew. A pair that looks like those is noise; one of a kind that is
far more frequent than chance makes it is there because of the query. This is the local false discovery rate
(Efron, Tibshirani, Storey and Tusher 2001) with an empirical null.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, logit

from crops.discriminator.calibrate import EDGE
from crops.text import words

# What is known of a pair, each the larger the more it speaks for the pair: the log-odds of θ by the text
# alone; the cosine to the nearest other video clicked for the query; the share of the query's words that the
# text has; the log of the events behind the pair, and of their number over what chance would bring, given how
# much is mined for the query and how popular the video is in it.
EVIDENCE = ("text", "nearest", "shared", "support", "lift")
# How many of the query's words the text has.
BANDS = ("none", "up to half", "more")
# Pairs and queries below which a perspective has too little to tell a pattern from chance.
MIN_PAIRS, MIN_QUERIES = 300, 50


@dataclass(frozen=True, slots=True)
class Marginals:
    """Events of each query and of each video among the pairs of one perspective."""

    queries: Mapping[str, int]
    videos: Mapping[str, int]
    total: int

    def expected(self, queries: Sequence[str], doc_ids: Sequence[str]) -> np.ndarray:
        """Events [N] of each pair if queries and videos had nothing to do with one another; what was never
        mined counts as once.
        """
        of_query = np.array([self.queries.get(q, 1) for q in queries], dtype=float)
        return of_query * np.array([self.videos.get(d, 1) for d in doc_ids], dtype=float) / self.total


def gathered(rows: pd.DataFrame) -> pd.DataFrame:
    """Mined rows (query, doc_id, support[, more]) as one row per pair (query, doc_id, support), sorted."""
    return rows.groupby(["query", "doc_id"], as_index=False)["support"].sum()


def marginals(pairs: pd.DataFrame) -> Marginals:
    """in: (query, doc_id, support), one row per pair."""
    of_query, of_video = (pairs.groupby(name)["support"].sum().to_dict() for name in ("query", "doc_id"))
    return Marginals(of_query, of_video, max(1, int(pairs["support"].sum())))


def evidence(pairs: pd.DataFrame, texts: Mapping[str, str], usual: Marginals) -> np.ndarray:
    """float64 [N, len(EVIDENCE)]. in: (query, doc_id, support, theta by the text alone, nearest or NaN)."""
    queries, doc_ids = pairs["query"].tolist(), pairs["doc_id"].tolist()
    expected = usual.expected(queries, doc_ids)
    support = pairs["support"].to_numpy(float)
    columns = {
        "text": logit(np.clip(pairs["theta"].to_numpy(float), EDGE, 1 - EDGE)),
        "nearest": pairs["nearest"].to_numpy(float),
        "shared": shared(queries, [texts[d] for d in doc_ids]),
        "support": np.log(support),
        "lift": np.log(support / expected),
    }
    return np.stack([columns[name] for name in EVIDENCE], axis=1)


def shared(queries: Sequence[str], texts: Sequence[str]) -> np.ndarray:
    """float64 [N]: the share of a query's words that stand in the text; 0 for a query without words."""
    of = {text: frozenset(words(text)) for text in {*queries, *texts}}
    return np.array(
        [len(of[q] & of[t]) / max(1, len(of[q])) for q, t in zip(queries, texts, strict=True)], dtype=float
    )


def repaired(pairs: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """The same queries and videos, each as often as before, paired anew: what chance makes of the log.

    in and out: (query, doc_id, support), one row per pair.
    """
    events = pairs.loc[pairs.index.repeat(pairs["support"]), ["query", "doc_id"]]
    anew = events.assign(doc_id=rng.permutation(events["doc_id"].to_numpy()))
    return anew.groupby(["query", "doc_id"], as_index=False).size().rename(columns={"size": "support"})


@dataclass(frozen=True, slots=True)
class Chance:
    """θ of one perspective's pairs: no evidence lowers it.

    weights, offset  of the logistic score, one weight per EVIDENCE
    unknown          what stands for a `nearest` of a query without clicks
    scores, thetas   θ between these points is on the line between them; outside it is that of the end
    null_share       share of the mined pairs that are chance
    """

    weights: tuple[float, ...]
    offset: float
    unknown: float
    scores: tuple[float, ...]
    thetas: tuple[float, ...]
    null_share: float

    def __call__(self, evidence: np.ndarray) -> np.ndarray:
        """float64 [N, len(EVIDENCE)] -> float64 [N] in 0..1."""
        filled = np.where(np.isnan(evidence), self.unknown, evidence)
        theta: np.ndarray = np.interp(filled @ np.array(self.weights) + self.offset, self.scores, self.thetas)
        return theta


def fit(mined: np.ndarray, null: np.ndarray, null_weight: np.ndarray) -> Chance:
    """From the evidence of mined pairs [N, F] and of chance pairs [M, F] with weights [M].

    With f and f0 the densities of the score among mined and chance pairs and p0 the share of chance pairs
    among the mined, θ = 1 - p0 · f0 / f. The score itself is logistic regression with such controls (as for
    presence-only data: Ward et al. 2009), which counts evidence for as much as it adds to the other's; f0 / f
    is then read off by isotonic regression, and p0 is Storey's (2002): what lies below the median of chance.
    """
    nearest = null[:, EVIDENCE.index("nearest")]
    unknown = 0.0 if np.isnan(nearest).all() else float(np.nanmean(nearest))
    mined, null = (np.where(np.isnan(rows), unknown, rows) for rows in (mined, null))
    weights, offset = _score(mined, null, null_weight / null_weight.sum())
    z, z0 = mined @ weights + offset, null @ weights + offset
    share = np.concatenate([np.full(len(z), 1 / len(z)), null_weight / null_weight.sum()])
    order = np.argsort(np.concatenate([z, z0]), kind="stable")
    scores, is_mined = np.concatenate([z, z0])[order], (np.arange(len(share)) < len(z))[order]
    below = np.searchsorted(np.cumsum(share[order] * ~is_mined), 0.5)
    null_share = float(min(1.0, share[order][: below + 1][is_mined[: below + 1]].sum() / 0.5))
    risen = isotonic_regression(is_mined.astype(float), weights=share[order]).x  # f / (f + f0)
    theta = 1 - null_share * (1 - risen) / np.maximum(risen, EDGE)
    # The ends of each level stretch say it all.
    edge = np.concatenate([[True], np.diff(risen) > 0, [True]])
    keep = np.flatnonzero(edge[:-1] | edge[1:])
    return Chance(
        tuple(weights.tolist()),
        float(offset),
        unknown,
        tuple(scores[keep].tolist()),
        tuple(np.clip(theta[keep], 0.0, 1.0).tolist()),
        round(null_share, 4),
    )


def _score(mined: np.ndarray, null: np.ndarray, null_share: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights [F], none negative, and offset of s = sigmoid(weights · x + offset), the share of pairs that
    are more than chance: mined pairs have c / (1 - s) times the density of chance pairs, c to be found.
    """
    both = np.concatenate([mined, null])
    centre, spread = both.mean(axis=0), np.maximum(both.std(axis=0), 1e-12)
    unit, unit0 = (mined - centre) / spread, (null - centre) / spread

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        slopes, odds = np.exp(x[:-2]), -np.logaddexp(0, -x[-1])  # log c
        out, slope = 0.0, np.zeros_like(x)
        for rows, share, sign in ((unit, np.full(len(unit), 1 / len(unit)), 1.0), (unit0, null_share, -1.0)):
            z = rows @ slopes + x[-2]
            d = odds + np.logaddexp(0, z)  # log-odds of being mined
            out += float(share @ np.logaddexp(0, -sign * d))
            pull = -sign * share * expit(-sign * d)
            by_z = pull * expit(z)
            slope[:-2] += (by_z @ rows) * slopes
            slope[-2] += by_z.sum()
            slope[-1] += pull.sum() * expit(-x[-1])
        # A weak pull to small weights: without it two columns that say the same could grow without end.
        slope[:-2] += 2e-4 * slopes**2
        return out + 1e-4 * float(slopes @ slopes), slope

    start = np.concatenate([np.zeros(mined.shape[1]), [-2.0, 1.0]])
    bounds = [(-8.0, 3.0)] * mined.shape[1] + [(-20.0, 20.0), (-6.0, 6.0)]
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = np.exp(fitted[:-2]) / spread
    return weights, float(fitted[-2] - weights @ centre)


def bands(share: np.ndarray) -> np.ndarray:
    """Per pair the name of its band of shared words: none, up to half, more."""
    names: np.ndarray = np.select([share == 0, share <= 0.5], list(BANDS[:2]), BANDS[2])
    return names
