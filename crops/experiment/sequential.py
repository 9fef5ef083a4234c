"""Always-valid inference: asymptotic confidence sequences (arXiv 2103.06476v7), so that people may look every
day.

n users were seen so far, the estimate has the standard error se, and rho tunes where the sequence is
narrowest.
"""

import math

from crops.config.experiment import LARGEST_ALPHA

# Users of both arms together for which the intervals are narrowest [ours]. To be chosen before the start; a
# factor of ten beside it costs about a fifth of the width, never validity.
PLANNED_USERS = 5_000


def tuning(planned_users: int, alpha: float) -> float:
    """rho (eq. 161): makes the half width at `planned_users` about as small as it can be. Raises
    ValueError.
    """
    if planned_users < 1 or not 0 < alpha <= LARGEST_ALPHA:
        raise ValueError(
            f"planned_users is {planned_users}, alpha {alpha}: expected at least 1 and a level within "
            f"0..{LARGEST_ALPHA} (0.05 for intervals of 95 %)"
        )
    return math.sqrt((-2 * math.log(alpha) + math.log(-2 * math.log(alpha)) + 1) / planned_users)


def critical(users: int, *, alpha: float, planned_users: int = PLANNED_USERS) -> float:
    """Standard errors on either side of the estimate (eq. 9), what 1.96 is at a fixed horizon.

        C_n = estimate +- se * sqrt( 2 (n rho^2 + 1) / (n rho^2) * log( sqrt(n rho^2 + 1) / alpha ) )

    Eq. 9 has sigma / n outside the root; sigma = se * sqrt(n) gives this form.
    """
    t = users * tuning(planned_users, alpha) ** 2
    return math.sqrt(2 * (t + 1) / t * math.log(math.sqrt(t + 1) / alpha))


def p_value(z: float, users: int, *, alpha: float, planned_users: int = PLANNED_USERS) -> float:
    """Always-valid p (eq. 155 as an e-value): below `alpha` exactly when the interval of that level leaves
    out 0.

    z is estimate / se.
    """
    t = users * tuning(planned_users, alpha) ** 2
    log_e = z * z * t / (2 * (t + 1)) - math.log(t + 1) / 2
    return min(1.0, math.exp(-log_e)) if log_e > -700 else 1.0
