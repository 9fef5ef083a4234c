"""Per-user totals to the sums that all statistics need: they add over users, so any engine can compute them.

A ratio metric is sum(numerator) / sum(denominator) over an arm's users (clicks / impressions). Nothing here
looks at rows: an impression is not independent of the next one of the same user, so the user is the unit.
"""

from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Self

import numpy as np
from tea_tasting.aggr import Aggregates

from crops.arms import CONTROL, TREATMENT

# x numerator, y denominator, and both from before the experiment (CUPED covariate; 0 and 0 without such a
# period).
COLUMNS = ("x", "y", "x_pre", "y_pre")
PAIRS = tuple(combinations_with_replacement(COLUMNS, 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """One arm: number of users, sums of COLUMNS and of their products. `a + b` is the arm of both groups of
    users.
    """

    users: int
    sums: dict[str, float]
    products: dict[tuple[str, str], float]

    @classmethod
    def of(cls, totals: np.ndarray) -> Self:
        """totals float [users, 4]: one row per user, columns as COLUMNS."""
        sums = totals.sum(axis=0)
        gram = totals.T @ totals
        at = {name: index for index, name in enumerate(COLUMNS)}
        products = {(a, b): float(gram[at[a], at[b]]) for a, b in PAIRS}
        return cls(
            users=len(totals), sums=dict(zip(COLUMNS, map(float, sums), strict=True)), products=products
        )

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            users=self.users + other.users,
            sums={name: self.sums[name] + other.sums[name] for name in COLUMNS},
            products={pair: self.products[pair] + other.products[pair] for pair in PAIRS},
        )

    @property
    def ratio(self) -> float | None:
        """sum(x) / sum(y); None where nothing was counted."""
        return self.sums["x"] / self.sums["y"] if self.sums["y"] else None

    def aggregates(self) -> Aggregates:
        """The same as means, variances and covariances (n - 1), which is what tea-tasting reads; needs two
        users.
        """
        n = self.users
        mean = {name: self.sums[name] / n for name in COLUMNS}
        cov = {(a, b): (self.products[a, b] - n * mean[a] * mean[b]) / (n - 1) for a, b in PAIRS}
        # Cancellation can leave a variance of -1e-18 where all users are equal.
        var = {name: max(0.0, cov[name, name]) for name in COLUMNS}
        return Aggregates(
            count_=n, mean_=mean, var_=var, cov_={pair: c for pair, c in cov.items() if pair[0] != pair[1]}
        )


def nobody() -> Moments:
    """An arm without users; the zero of the addition."""
    return Moments(users=0, sums=dict.fromkeys(COLUMNS, 0.0), products=dict.fromkeys(PAIRS, 0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Arms:
    """Both arms of one metric, and the users who were seen in both and are counted in neither."""

    control: Moments
    treatment: Moments
    in_both: int = 0

    @property
    def both(self) -> dict[str, Moments]:
        """Arm to its moments, control first."""
        return {CONTROL: self.control, TREATMENT: self.treatment}

    @property
    def users(self) -> int:
        """Users counted."""
        return self.control.users + self.treatment.users
