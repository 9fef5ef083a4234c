"""Two arms to a comparison: estimates by tea-tasting (delta method, CUPED), always-valid interval, verdict
with a reason.
"""

import math
from dataclasses import dataclass
from typing import Any

from scipy import stats as scipy_stats
from tea_tasting import RatioOfMeans
from tea_tasting.aggr import Aggregates
from tea_tasting.metrics import SampleRatio

from crops.arms import ARMS
from crops.config.experiment import LARGEST_ALPHA
from crops.experiment import sequential, totals
from crops.experiment.metrics import METRICS, Metric
from crops.experiment.moments import Arms

BETTER, WORSE, NO_DIFFERENCE, UNKNOWN, BLOCKED = "better", "worse", "no difference", "unknown", "blocked"
# A sample ratio mismatch this unlikely means broken assignment or logging; the usual limit, and strict
# because it is looked at often.
SRM_ALPHA = 0.001
# Users per arm below which the normal approximation is not trusted with a verdict [ours].
MIN_USERS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Treatment against control on one metric.

    control, treatment  the metric itself in each arm; None where nothing was counted
    lift                relative: treatment / control - 1, corrected for what the users did before (CUPED)
                        where that is known
    low, high           always-valid interval of the lift, at level 1 - alpha whenever one looks
    p                   of the fixed horizon: means something at ONE look, planned before the start
    users               counted, both arms together
    verdict             better | worse | no difference | unknown | blocked, by the always-valid interval
    """

    control: float | None
    treatment: float | None
    lift: float | None
    low: float | None
    high: float | None
    p: float | None
    users: int
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What the numbers say before anybody decides. se is of log(treatment / control), to which all intervals
    refer.
    """

    control: float
    treatment: float
    lift: float
    se: float
    p: float
    fixed_low: float
    fixed_high: float
    low: float
    high: float
    p_always: float


def compare(events: Any, *, metric: str, share: float = 0.5, alpha: float = 0.05) -> Comparison:
    """Compares the arms in `events` on `metric`: ctr, lpr (one row per impression) or rqr (one row per
    search).

    events  Arrow table or pandas frame: user_id, arm {control, treatment, null}, ts, and clicked (ctr),
            play_s and duration_s (lpr), reformulated (rqr). Rows without an arm from before the first row
            with one are the users' pre-period (CUPED); later ones are left out.
    share   planned share of the treatment among the users of both arms
    alpha   level of the interval; tuned for sequential.PLANNED_USERS users

    Users in both arms are left out and counted in the reason. A mismatch with `share` (p < 0.001) blocks any
    verdict; no users, or too few, is unknown. Raises ValueError for an unknown metric or level, InputError
    for a missing column.
    """
    if metric not in METRICS:
        raise ValueError(f"metric is {metric!r}, expected one of {', '.join(METRICS)}")
    if not (0 < share < 1 and 0 < alpha <= LARGEST_ALPHA):
        raise ValueError(
            f"share is {share}, alpha {alpha}, expected a share within 0..1, and a level within "
            f"0..{LARGEST_ALPHA} (0.05 for intervals of 95 %)"
        )
    return decide(totals.of_events(events, METRICS[metric]), METRICS[metric], share=share, alpha=alpha)


def decide(
    arms: Arms,
    metric: Metric,
    *,
    share: float = 0.5,
    alpha: float = 0.05,
    planned_users: int = sequential.PLANNED_USERS,
) -> Comparison:
    """The comparison of two arms; see `compare`."""
    estimated = estimate(arms, alpha=alpha, planned_users=planned_users)
    verdict, reason = _verdict(arms, metric, estimated, share=share, alpha=alpha, planned_users=planned_users)
    if arms.in_both:
        reason += f"; {arms.in_both} user(s) seen in both arms are left out"
    ratios = {name: arm.ratio for name, arm in arms.both.items()}
    numbers = {key: getattr(estimated, key, None) for key in ("lift", "low", "high", "p")}
    return Comparison(**ratios, **numbers, users=arms.users, verdict=verdict, reason=reason)


def estimate(
    arms: Arms, *, alpha: float = 0.05, planned_users: int = sequential.PLANNED_USERS
) -> Estimate | None:
    """Ratio of the arms with both kinds of interval; None where it does not exist (no users, nothing counted,
    a rate of 0).

    The relative interval lives on the log scale (delta method), where it cannot fall below -100 %.
    """
    if any(arm.users < 2 or not arm.ratio for arm in arms.both.values()):
        return None
    aggregates = [arm.aggregates() for arm in arms.both.values()]
    covariate = (
        ("x_pre", "y_pre") if all(arm.sums["y_pre"] > 0 for arm in arms.both.values()) else (None, None)
    )
    level = 1 - alpha
    analysis = RatioOfMeans("x", "y", *covariate, confidence_level=level).analyze_aggregates(*aggregates)
    normal = RatioOfMeans("x", "y", *covariate, confidence_level=level, use_t=False).analyze_aggregates(
        *aggregates
    )
    spread = math.log1p(normal.rel_effect_size_ci_upper) - math.log1p(normal.rel_effect_size_ci_lower)
    se = spread / (2 * float(scipy_stats.norm.isf(alpha / 2)))
    if not (analysis.control > 0 and analysis.treatment > 0 and math.isfinite(se) and se > 0):
        return None
    log_lift = math.log1p(analysis.rel_effect_size)
    half = se * sequential.critical(arms.users, alpha=alpha, planned_users=planned_users)
    return Estimate(
        control=analysis.control,
        treatment=analysis.treatment,
        lift=analysis.rel_effect_size,
        se=se,
        p=analysis.pvalue,
        fixed_low=analysis.rel_effect_size_ci_lower,
        fixed_high=analysis.rel_effect_size_ci_upper,
        low=math.expm1(log_lift - half),
        high=math.expm1(log_lift + half),
        p_always=sequential.p_value(log_lift / se, arms.users, alpha=alpha, planned_users=planned_users),
    )


def _verdict(
    arms: Arms, metric: Metric, estimate: Estimate | None, *, share: float, alpha: float, planned_users: int
) -> tuple[str, str]:
    if arms.users == 0:
        return UNKNOWN, "no users in either arm"
    if (p := srm(arms, share=share)) < SRM_ALPHA:
        users = f"{arms.control.users} users in control, {arms.treatment.users} in treatment"
        planned = f"planned {1 - share:.0%} : {share:.0%}"
        return (
            BLOCKED,
            f"sample ratio mismatch: {users}, {planned} (p = {p:.1e}); assignment or logging is broken",
        )
    for name, arm in arms.both.items():
        if arm.users < MIN_USERS:
            return UNKNOWN, f"{arm.users} users in {name}, {MIN_USERS} are needed to tell"
    for name, arm in arms.both.items():
        if not arm.ratio:
            is_nothing = f"{metric.name.upper()} of {name} is {'0' if arm.ratio == 0 else 'not known'}"
            if _worse_by_all(arms, metric, alpha=alpha, planned_users=planned_users):
                return WORSE, f"{is_nothing}, beyond chance: {_of_both(arms)}"
            return UNKNOWN, f"{is_nothing}: there is no relative lift"
    if estimate is None:
        return UNKNOWN, f"{metric.name.upper()} does not vary between users: no interval"
    interval = f"interval {estimate.low:+.2%} to {estimate.high:+.2%}"
    counted = f"lift {estimate.lift:+.2%}, always-valid {1 - alpha:.0%} {interval}, {arms.users} users"
    if estimate.low <= 0 <= estimate.high:
        return NO_DIFFERENCE, f"{counted}: no difference can be told from chance"
    good = (estimate.lift > 0) == metric.higher_is_better
    return (
        BETTER if good else WORSE
    ), f"{counted}: {metric.name.upper()} is {'higher' if estimate.lift > 0 else 'lower'} in treatment"


def _worse_by_all(arms: Arms, metric: Metric, *, alpha: float, planned_users: int) -> bool:
    """Whether a rate that is 0 in one arm alone makes treatment worse, by the always-valid difference.

    Where one click more would say "worse", none may not leave it open. Better it is never: a rate of nothing
    is more often one that is not counted. The arm with a rate lends its spread to both, as without a
    difference they would have the same.
    """
    control, treatment = arms.control.ratio, arms.treatment.ratio
    if control is None or treatment is None or (treatment < control) != metric.higher_is_better:
        return False
    rate, spread = max(
        (arm.ratio or 0.0, float(arm.aggregates().ratio_var("x", "y"))) for arm in arms.both.values()
    )
    variance = spread * (1 / arms.control.users + 1 / arms.treatment.users)
    if variance == 0:
        return False
    z = rate / math.sqrt(variance)
    return sequential.p_value(z, arms.users, alpha=alpha, planned_users=planned_users) < alpha


def _of_both(arms: Arms) -> str:
    return ", ".join(
        f"{arm.sums['x']:.0f} of {arm.sums['y']:.0f} in {name}" for name, arm in arms.both.items()
    )


def srm(arms: Arms, *, share: float) -> float:
    """p of the sample ratio: how likely are arms this uneven if `share` of the users were sent to
    treatment.
    """
    if not arms.users:
        return 1.0
    sizes: dict[object, Aggregates] = {name: Aggregates(count_=arm.users) for name, arm in arms.both.items()}
    return float(SampleRatio(share / (1 - share)).analyze(sizes, *ARMS).pvalue)


def discoveries(p_always: dict[str, float], *, rate: float = 0.05) -> dict[str, bool]:
    """Which metrics stand when several are read at once: Benjamini-Hochberg at false-discovery rate `rate`.

    p_always  always-valid p by metric, so that this too may be read every day
    """
    if not p_always:
        return {}
    adjusted = scipy_stats.false_discovery_control(list(p_always.values()), method="bh")
    return {name: bool(p <= rate) for name, p in zip(p_always, adjusted, strict=True)}
