"""Simulated experiments: how often each test is wrong. The small version is what the large one does, with
wider limits.
"""

import numpy as np
import pytest

from crops.experiment import stats
from crops.experiment.moments import Arms, Moments
from tests.crops.experiment import simulated

LEVEL, LIFT, LOOKS = 0.05, 0.05, 20
SIZES = [pytest.param(150, id="small"), pytest.param(1000, id="thousand", marks=pytest.mark.slow)]


def within(share: float, expected: float, runs: int) -> bool:
    """Four standard errors of a share over `runs` runs."""
    return abs(share - expected) <= 4 * (expected * (1 - expected) / runs) ** 0.5


@pytest.mark.parametrize("runs", SIZES)
@pytest.mark.parametrize("pre", [False, True], ids=["plain", "cuped"])
def test_fixed_horizon_is_wrong_5_percent_of_the_time_and_covers_the_truth_95(runs, pre):
    rng = np.random.default_rng(11)
    false = sum(stats.estimate(simulated.arms(rng, pre=pre)).p < LEVEL for _ in range(runs))
    found = [stats.estimate(simulated.arms(rng, lift=LIFT, pre=pre)) for _ in range(runs)]
    # min(1, rate * 1.05) cuts nothing off that matters: P(rate > 0.95) of the Beta(2, 8) is 1e-9.
    covered = sum(e.fixed_low <= LIFT <= e.fixed_high for e in found)
    assert within(false / runs, LEVEL, runs), f"false positives {false} of {runs}"
    assert within(covered / runs, 1 - LEVEL, runs), f"covered {covered} of {runs}"


def arriving(rng: np.random.Generator, users: int) -> list[Arms]:
    """LOOKS looks; each adds new users. Moments add, so no look sees the old ones again."""
    seen: list[Arms] = []
    for _ in range(LOOKS):
        new = simulated.arms(rng, users // LOOKS)
        last = seen[-1] if seen else None
        seen.append(
            Arms(control=last.control + new.control, treatment=last.treatment + new.treatment)
            if last
            else new
        )
    return seen


def returning(rng: np.random.Generator, users: int) -> list[Arms]:
    """LOOKS looks; the same users come back every day, so that their totals grow but not their number."""
    impressions, rate = simulated.users(rng, users)
    treated = rng.random(users) < 0.5
    totals, seen = np.zeros((users, 4)), []
    for _ in range(LOOKS):
        shown = rng.poisson(impressions / LOOKS)
        totals[:, 0] += rng.binomial(shown, rate)
        totals[:, 1] += shown
        active = totals[:, 1] > 0
        groups = {"control": totals[active & ~treated], "treatment": totals[active & treated]}
        seen.append(Arms(**{arm: Moments.of(rows) for arm, rows in groups.items()}))
    return seen


@pytest.mark.parametrize("runs", SIZES)
@pytest.mark.parametrize("looks", [arriving, returning])
@pytest.mark.parametrize("planned", [1000, 5000])
def test_20_looks_are_wrong_at_most_5_percent_of_the_time(runs, looks, planned):
    """Wrong in an experiment: at ANY of the looks. The fixed-horizon test read that way is wrong far more
    often.
    """
    runs = runs if runs == 1000 else 40
    rng = np.random.default_rng(13)
    always = fixed = 0
    for _ in range(runs):
        found = [stats.estimate(arms, planned_users=planned) for arms in looks(rng, 1000)]
        always += any(not e.low <= 0 <= e.high for e in found if e)
        fixed += any(e.p < LEVEL for e in found if e)
    assert always / runs <= LEVEL, f"always-valid wrong in {always} of {runs}"
    assert fixed / runs > 2 * LEVEL, f"the planted peeking must show: {fixed} of {runs}"


def test_verdicts_of_equal_arms_are_almost_never_better_or_worse():
    rng = np.random.default_rng(17)
    found = [
        stats.compare(simulated.rows(rng, 200), metric=m).verdict
        for m in ("ctr", "lpr", "rqr")
        for _ in range(10)
    ]
    assert set(found) == {"no difference"}
