"""From scores to probabilities: logistic regression on held-out pairs, its shift per perspective, and how far
to trust it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit

# θ is kept off 0 and 1, where its logit would be infinite.
EDGE = 1e-6


@dataclass(frozen=True, slots=True)
class Calibration:
    """θ = sigmoid(weights · features + offset) (Platt 1999, with several features); no weight is negative.

    prior   share of relevant pairs in the mix that it was fitted on: what θ = 0.6 refers to
    shifts  perspective -> what its own judged pairs add to the logit
    """

    weights: tuple[float, ...]
    offset: float
    prior: float = 0.5
    shifts: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """float [N, F] -> float64 [N] in 0..1, before any shift."""
        theta: np.ndarray = expit(
            np.asarray(features, dtype=np.float64) @ np.array(self.weights) + self.offset
        )
        return theta

    def shifted(self, theta: np.ndarray, perspective: str) -> np.ndarray:
        """θ as it holds for the pairs of one perspective; unchanged where nothing is known of it."""
        return shift(theta, self.shifts.get(perspective, 0.0))


def shift(theta: np.ndarray, by: float) -> np.ndarray:
    """Adds `by` to the log-odds of θ [N]; 0 changes nothing at all."""
    if by == 0.0:
        return theta
    moved: np.ndarray = expit(logit(np.clip(theta, EDGE, 1 - EDGE)) + by).astype(theta.dtype)
    return moved


def fit(features: np.ndarray, relevant: np.ndarray) -> Calibration:
    """Maximum likelihood on held-out pairs, with Platt's smoothed targets, so that few pairs give no
    certainty.

    features float [N, F], the larger the more relevant; relevant 0/1 [N], both kinds.
    """
    if len(features) == 0 or relevant.min() == relevant.max():
        raise ValueError("calibration needs held-out pairs of both kinds")
    positives, negatives = relevant.sum(), (1 - relevant).sum()
    target = np.where(relevant > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    # In units of their own spread: the features may differ in scale by orders of magnitude, which the search
    # cannot bear.
    centre, spread = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-12)
    unit = (features - centre) / spread

    def loss(x: np.ndarray) -> float:
        z = unit @ np.exp(x[:-1]) + x[-1]
        return float((np.logaddexp(0, z) - target * z).mean())

    solution = minimize(
        loss, np.zeros(features.shape[1] + 1), method="L-BFGS-B", bounds=[(-20, 20)] * (features.shape[1] + 1)
    ).x
    weights = np.exp(solution[:-1]) / spread
    return Calibration(
        tuple(weights.tolist()), float(solution[-1] - weights @ centre), float(relevant.mean())
    )


def shift_of(theta: np.ndarray, relevant: np.ndarray) -> float:
    """The shift of the log-odds under which θ [N] explains `relevant` [N] best; 0 for no pairs.

    Penalised by a standard normal prior: ten pairs move it a little, hundreds move it freely.
    """
    if len(theta) == 0:
        return 0.0
    z = logit(np.clip(theta, EDGE, 1 - EDGE))

    def loss(b: float) -> float:
        return float((np.logaddexp(0, z + b) - relevant * (z + b)).sum() + b * b / 2)

    return float(minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded").x)


def prevalence(theta: np.ndarray, prior: float, *, steps: int = 200) -> float:
    """Share of relevant pairs among pairs [N] whose mix is another than the one θ was calibrated on.

    Expectation-maximisation for a shift of the prior (Saerens, Latinne and Decaestecker 2002, eq. 2.10):
    right if the two kinds look as they did in the calibration mix and only their shares differ.
    """
    if len(theta) == 0:
        raise ValueError("prevalence of no pairs")
    odds, share = theta / (1 - np.clip(theta, 0, 1 - EDGE)), prior
    for _ in range(steps):
        ratio = share / (1 - share) * (1 - prior) / prior
        before, share = share, float(np.clip((odds * ratio / (1 + odds * ratio)).mean(), EDGE, 1 - EDGE))
        if abs(share - before) < 1e-7:
            break
    return share


def to_own_mix(theta: np.ndarray, prior: float) -> np.ndarray:
    """θ [N] of pairs whose share of relevant ones is not `prior` but their own, which `prevalence` finds. NaN
    stays NaN; all of it is NaN where less than one relevant pair would be left: then the two kinds do not
    look as they did in the calibration mix, and nothing is known of the share.
    """
    certain = ~np.isnan(theta)
    if not certain.any():
        return theta
    share = prevalence(theta[certain], prior)
    if share * certain.sum() < 1:
        return np.full_like(theta, np.nan)
    return shift(theta, float(logit(share) - logit(prior)))


def reliability(
    theta: np.ndarray, relevant: np.ndarray, *, bins: int = 10
) -> list[dict[str, float | int | None]]:
    """Per bin of θ: mean prediction, observed share and count; null for an empty bin."""
    which = np.minimum((theta * bins).astype(int), bins - 1)
    rows: list[dict[str, float | int | None]] = []
    for b in range(bins):
        here = which == b
        n = int(here.sum())
        rows.append(
            {
                "low": b / bins,
                "high": (b + 1) / bins,
                "count": n,
                "predicted": round(float(theta[here].mean()), 4) if n else None,
                "observed": round(float(relevant[here].mean()), 4) if n else None,
            }
        )
    return rows


def expected_error(theta: np.ndarray, relevant: np.ndarray, *, bins: int = 10) -> float:
    """Expected calibration error: mean |predicted - observed| over the bins, weighted by their pairs."""
    rows = [r for r in reliability(theta, relevant, bins=bins) if r["count"]]
    weights = np.array([r["count"] for r in rows], dtype=float)
    gaps = np.array([abs(float(r["predicted"] or 0) - float(r["observed"] or 0)) for r in rows])
    return float((weights * gaps).sum() / weights.sum())


def agreement(
    theta: np.ndarray, relevant: np.ndarray, queries: np.ndarray, *, draws: int = 200, seed: int = 0
) -> dict[str, float | int]:
    """θ [N] against judgements [N] of the same pairs: mean of both, the share's 95 % interval over queries
    (bootstrap), and the margin by which θ lies outside of it.
    """
    names, of_query = np.unique(queries, return_inverse=True)
    good, count = (
        np.bincount(of_query, weights=w, minlength=len(names)) for w in (relevant, np.ones(len(theta)))
    )
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(names), (draws, len(names)))
    low, high = np.quantile(good[drawn].sum(axis=1) / count[drawn].sum(axis=1), [0.025, 0.975])
    mean = float(theta.mean())
    return {
        "pairs": len(theta),
        "theta": round(mean, 4),
        "share": round(float(relevant.mean()), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
        "margin": round(max(0.0, float(low) - mean, mean - float(high)), 4),
    }


def auc(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Area under the ROC curve: the share of (relevant, not relevant) pairs in the right order, ties as a
    half.
    """
    from scipy.stats import rankdata

    positives = int((relevant > 0).sum())
    negatives = len(relevant) - positives
    if not positives or not negatives:
        raise ValueError("AUC needs pairs of both kinds")
    ranks = rankdata(scores)
    return float((ranks[relevant > 0].sum() - positives * (positives + 1) / 2) / (positives * negatives))
