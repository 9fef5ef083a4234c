"""The planner against tea-tasting's, against simulation, and its own inverse."""

import numpy as np
import pytest
from tea_tasting import RatioOfMeans

from crops.experiment import power, stats
from tests.crops.experiment import simulated


def test_needed_users_agree_with_tea_tasting():
    arms = simulated.arms(np.random.default_rng(1), 4000)
    both = (arms.control + arms.treatment).aggregates()
    theirs = (
        RatioOfMeans("x", "y", rel_effect_size=0.05, power=0.8, alpha=0.05)
        .solve_power_from_aggregates(both, "n_obs")[0]
        .n_obs
    )
    ours = power.needed_users(0.05, power.spread(arms)).fixed
    assert ours == pytest.approx(theirs, rel=0.06)  # log(1.05) against 0.05: 5 % in the square


def test_detectable_and_needed_are_inverse():
    found = power.detectable(8000, 1.3, planned_users=8000)
    assert power.needed_users(found.fixed, 1.3).fixed == pytest.approx(8000, abs=2)
    assert power.needed_users(found.always, 1.3).always == pytest.approx(8000, abs=2)
    assert found.fixed < found.always


def test_the_planned_effect_is_seen_four_times_out_of_five():
    rng = np.random.default_rng(2)
    sd = power.spread(simulated.arms(rng, 20_000))
    users = int(power.needed_users(0.2, sd).fixed)
    runs = 200
    seen = sum(stats.estimate(simulated.arms(rng, users, lift=0.2)).p < 0.05 for _ in range(runs))
    assert seen / runs == pytest.approx(0.8, abs=4 * (0.8 * 0.2 / runs) ** 0.5)


def test_days_and_what_cannot_be_planned():
    plan = power.Plan(fixed=1000, always=2400)
    assert power.needed_days(plan, new_users_per_day=300) == power.Plan(fixed=4, always=8)
    assert power.needed_days(plan, new_users_per_day=0) == power.Plan(fixed=None, always=None)
    with pytest.raises(ValueError, match="lift is 0"):
        power.needed_users(0.0, 1.0)
