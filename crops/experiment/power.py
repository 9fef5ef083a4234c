"""Before the start: how many users and days an effect needs, and afterwards: what could have been seen."""

import math
from dataclasses import asdict, dataclass

from scipy.stats import norm

from crops.experiment import sequential
from crops.experiment.moments import Arms


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Both ways of reading: once at the end (`fixed`), or every day (`always`), which costs users."""

    fixed: int | float | None
    always: int | float | None


def spread(arms: Arms) -> float | None:
    """Standard deviation of one user's log ratio, pooled over the arms: se of a lift = spread / sqrt(n s (1 -
    s)).

    None where an arm has no users or nothing to divide by.
    """
    both = [arm for arm in (arms.control, arms.treatment) if arm.users >= 2 and arm.ratio]
    if len(both) < 2:
        return None
    variances = [float(arm.aggregates().ratio_var("x", "y")) / (arm.ratio or 1.0) ** 2 for arm in both]
    weights = [arm.users for arm in both]
    return math.sqrt(sum(v * w for v, w in zip(variances, weights, strict=True)) / sum(weights))


def detectable(
    users: int,
    sd: float,
    *,
    share: float = 0.5,
    alpha: float = 0.05,
    power: float = 0.8,
    planned_users: int | None = None,
) -> Plan:
    """Relative effects that `users` (both arms) would show with probability `power`, as |lift|."""
    se = sd / math.sqrt(users * share * (1 - share))
    reach, fixed = norm.isf((1 - power, alpha / 2)).tolist()
    always = sequential.critical(users, alpha=alpha, planned_users=planned_users or users)
    return Plan(fixed=math.expm1((fixed + reach) * se), always=math.expm1((always + reach) * se))


def needed_users(
    lift: float, sd: float, *, share: float = 0.5, alpha: float = 0.05, power: float = 0.8
) -> Plan:
    """Users of both arms that show a relative effect of `lift` with probability `power`. Raises ValueError
    for no effect.

    `always` is tuned for that very number of users (critical then no longer depends on it).
    """
    if lift == 0 or lift <= -1:
        raise ValueError(f"lift is {lift}, expected a relative effect other than 0 and above -1")
    reach, fixed = norm.isf((1 - power, alpha / 2)).tolist()
    per_se = (sd / math.log1p(lift)) ** 2 / (share * (1 - share))
    always = sequential.critical(1_000, alpha=alpha, planned_users=1_000)
    return Plan(
        fixed=math.ceil(per_se * (fixed + reach) ** 2), always=math.ceil(per_se * (always + reach) ** 2)
    )


def needed_days(users: Plan, *, new_users_per_day: float) -> Plan:
    """Days until that many different users were seen, at a steady number of new ones; None where nobody
    comes.
    """
    per_day = new_users_per_day
    return Plan(
        **{way: math.ceil((n or 0) / per_day) if per_day > 0 else None for way, n in asdict(users).items()}
    )
