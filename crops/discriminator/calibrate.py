"""From logits to probabilities: Platt scaling on held-out pairs, and how far the result can be trusted."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit


@dataclass(frozen=True, slots=True)
class Calibration:
    """θ = sigmoid(slope * logit + offset) (Platt 1999); the slope is never negative."""

    slope: float
    offset: float

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """float [N] in 0..1."""
        theta: np.ndarray = expit(self.slope * np.asarray(logits, dtype=np.float64) + self.offset)
        return theta


def fit(logits: np.ndarray, relevant: np.ndarray) -> Calibration:
    """Maximum likelihood on held-out pairs, with Platt's smoothed targets, so that few pairs give no certainty."""
    if len(logits) == 0 or relevant.min() == relevant.max():
        raise ValueError("calibration needs held-out pairs of both kinds")
    positives, negatives = relevant.sum(), (1 - relevant).sum()
    target = np.where(relevant > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(x: np.ndarray) -> float:
        z = np.exp(x[0]) * logits + x[1]
        return float((np.logaddexp(0, z) - target * z).mean())

    found = minimize(loss, np.zeros(2), method="L-BFGS-B").x
    return Calibration(float(np.exp(found[0])), float(found[1]))


def reliability(theta: np.ndarray, relevant: np.ndarray, *, bins: int = 10) -> list[dict[str, float | int | None]]:
    """Per bin of θ: mean prediction, observed share and count; null where no pair fell into the bin."""
    which = np.minimum((theta * bins).astype(int), bins - 1)
    rows: list[dict[str, float | int | None]] = []
    for b in range(bins):
        here = which == b
        n = int(here.sum())
        rows.append({
            "low": b / bins, "high": (b + 1) / bins, "count": n,
            "predicted": round(float(theta[here].mean()), 4) if n else None,
            "observed": round(float(relevant[here].mean()), 4) if n else None,
        })  # fmt: skip
    return rows


def expected_error(theta: np.ndarray, relevant: np.ndarray, *, bins: int = 10) -> float:
    """Expected calibration error: mean |predicted - observed| over the bins, weighted by their pairs."""
    rows = [r for r in reliability(theta, relevant, bins=bins) if r["count"]]
    weights = np.array([r["count"] for r in rows], dtype=float)
    gaps = np.array([abs(float(r["predicted"] or 0) - float(r["observed"] or 0)) for r in rows])
    return float((weights * gaps).sum() / weights.sum())


def auc(scores: np.ndarray, relevant: np.ndarray) -> float:
    """Area under the ROC curve: the share of (relevant, not relevant) pairs in the right order, ties as a half."""
    from scipy.stats import rankdata

    positives = int((relevant > 0).sum())
    negatives = len(relevant) - positives
    if not positives or not negatives:
        raise ValueError("AUC needs pairs of both kinds")
    ranks = rankdata(scores)
    return float((ranks[relevant > 0].sum() - positives * (positives + 1) / 2) / (positives * negatives))
