"""How much a number of held-out queries can tell: the smallest difference in recall that a paired test sees,
and the queries that a difference needs.

Both are for a two-sided test at 5 % that sees the difference four times in five.
"""

import math
from statistics import NormalDist

# Standard deviation over queries of the difference between two systems' recall (the mean of @20 and @100, as
# the gate compares): 0.14 to 0.30 between an encoder and the base or the click model that it is compared
# with, on held-out reformulations of `crops world` [ours]; a simulated shop had 0.38.
SPREAD = 0.3
ALPHA, POWER = 0.05, 0.8
REACH = NormalDist().inv_cdf(1 - ALPHA / 2) + NormalDist().inv_cdf(POWER)  # standard errors: 2.80


def smallest_difference(queries: int, *, spread: float = SPREAD) -> float | None:
    """Of recall, as a share; None without a query.

    >>> round(smallest_difference(200), 3)
    0.059
    """
    return REACH * spread / math.sqrt(queries) if queries else None


def needed_queries(difference: float, *, spread: float = SPREAD) -> int:
    """Raises ValueError for a difference that is not above 0.

    >>> needed_queries(0.03)
    785
    """
    if difference <= 0:
        raise ValueError(f"difference is {difference}, expected more than 0")
    return math.ceil((REACH * spread / difference) ** 2)
