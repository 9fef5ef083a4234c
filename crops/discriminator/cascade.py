"""θ in cascade: where the dual encoder is sure it decides alone, and the cross-encoder reads the rest.

The dual encoder reads each text once, the cross-encoder each pair, which are many times as many.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from crops.discriminator import calibrate

LEVELS = ("dual", "cross")


@dataclass(frozen=True, slots=True)
class Cascade:
    """What the dual encoder alone says, and where that is enough: below `low` and above `high` of its cosine
    over its temperature. `alone`: of that one feature.
    """

    alone: calibrate.Calibration
    low: float
    high: float
    alpha: float

    def __call__(self, dual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """θ float64 [N] by the dual encoder alone, on its own side of α where it decides, and bool [N] where
        it does not.
        """
        theta = self.alone(dual[:, None])
        below, above = dual < self.low, dual > self.high
        theta[below] = np.minimum(theta[below], self.alpha)
        theta[above] = np.maximum(theta[above], np.nextafter(self.alpha, 1))
        return theta, ~(below | above)


def fit(dual: np.ndarray, theta: np.ndarray, relevant: np.ndarray, *, alpha: float, share: float) -> Cascade:
    """Of held-out pairs [N]: the dual encoder's feature, θ by both readers, and what is relevant. On each
    side it decides as many pairs as it can, so that no more than `share` of them would be on the other side
    of α by both: one more than were seen, of one more than there are, as few pairs prove little.
    """
    alone = calibrate.fit(dual[:, None], relevant)
    order = np.argsort(dual, kind="stable")
    ranked, kept = dual[order], theta[order] > alpha
    low = _edge(ranked, kept, share)
    high = -_edge(-ranked[::-1], ~kept[::-1], share)
    return Cascade(alone, min(low, high), max(low, high), alpha)


def _edge(ranked: np.ndarray, wrong: np.ndarray, share: float) -> float:
    """The value below which the pairs, ascending, are wrong at most in that share; -inf: nowhere."""
    counts = np.arange(1, len(ranked) + 1)
    passed = np.flatnonzero((np.cumsum(wrong) + 1) / (counts + 1) <= share)
    return float(ranked[passed[-1]]) if len(passed) else float("-inf")


def edges(cascade: Cascade) -> dict[str, float | None]:
    """As JSON, where null is an edge that no pair is beyond; `of` reads it."""
    low, high = (edge if np.isfinite(edge) else None for edge in (cascade.low, cascade.high))
    (weight,), offset = cascade.alone.weights, cascade.alone.offset
    return {"weight": weight, "offset": offset, "low": low, "high": high, "alpha": cascade.alpha}


def of(edges: Mapping[str, float | None]) -> Cascade:
    """See `edges`."""
    numbers = {"low": float("-inf"), "high": float("inf")} | {
        name: value for name, value in edges.items() if value is not None
    }
    alone = calibrate.Calibration((numbers["weight"],), numbers["offset"])
    return Cascade(alone, numbers["low"], numbers["high"], numbers["alpha"])


def judged(cascade: Cascade, dual: np.ndarray, theta: np.ndarray) -> dict[str, float]:
    """On pairs [N] that it was not fitted on: the share that the dual encoder decides on either side, and the
    share of those that both readers put on the other side of α (0 where it decides none).
    """
    alone, unsure = cascade(dual)
    other = (alone > cascade.alpha) != (theta > cascade.alpha)
    decided = ~unsure
    return {
        "below": round(float((dual < cascade.low).mean()), 4),
        "above": round(float((dual > cascade.high).mean()), 4),
        "otherwise": round(float(other[decided].mean()), 4) if decided.any() else 0.0,
    }


@dataclass(slots=True)
class Spent:
    """Pairs that each level was asked, and the seconds that it took."""

    pairs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LEVELS, 0))
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LEVELS, 0.0))

    @contextmanager
    def on(self, level: str, pairs: int) -> Iterator[None]:
        """Counts the block."""
        begun_s = time.monotonic()
        yield
        self.pairs[level] += pairs
        self.seconds[level] += time.monotonic() - begun_s

    def numbers(self) -> dict[str, float]:
        """Of each level its pairs a second, and the share that the first decided alone."""
        asked, read = (self.pairs[level] for level in LEVELS)
        rates = {
            f"{level}_pairs_per_s": round(self.pairs[level] / self.seconds[level])
            for level in LEVELS
            if self.pairs[level] and self.seconds[level]
        }
        return {"dual_alone_ratio": 1 - read / asked, **rates} if asked else {}
