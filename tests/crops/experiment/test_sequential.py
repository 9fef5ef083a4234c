"""The always-valid bound: its equation by hand, its dual p, where it is narrowest."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crops.experiment import sequential


def test_at_the_planned_users_by_hand():
    """n rho^2 = -2 ln 0.05 + ln(-2 ln 0.05) + 1 = 5.99146 + 1.79033 + 1 = 8.78180 at n = planned.

    sqrt( 2 * 9.78180 / 8.78180 * ln( sqrt(9.78180) / 0.05 ) ) = sqrt( 2.22774 * 4.13602 ) = 3.03545
    """
    assert sequential.critical(5000, alpha=0.05, planned_users=5000) == pytest.approx(3.03545, abs=1e-4)


def test_it_is_narrowest_near_the_planned_users_and_a_factor_of_ten_costs_little():
    at = {n: sequential.critical(n, alpha=0.05, planned_users=5000) for n in (500, 4000, 5000, 6000, 50_000)}
    assert at[5000] < at[500] < 1.5 * at[5000]
    assert at[5000] < at[50_000] < 1.2 * at[5000]


@given(z=st.floats(-30, 30), users=st.integers(2, 10**7), alpha=st.floats(0.001, 0.3))
def test_p_is_below_alpha_exactly_where_the_interval_leaves_out_0(z, users, alpha):
    limit = sequential.critical(users, alpha=alpha)
    if abs(abs(z) - limit) > 1e-9 * limit:
        assert (sequential.p_value(z, users, alpha=alpha) < alpha) == (abs(z) > limit)


def test_it_is_always_wider_than_a_fixed_horizon_and_p_stays_a_probability():
    assert all(sequential.critical(n, alpha=0.05) > 1.96 for n in (2, 10**3, 10**5, 10**8))
    assert sequential.p_value(0.0, 100, alpha=0.05) == 1.0
    assert 0 <= sequential.p_value(1e6, 100, alpha=0.05) < 1e-300
    with pytest.raises(ValueError, match="planned_users is 0"):
        sequential.tuning(0, 0.05)
    assert math.isfinite(sequential.critical(1, alpha=0.05))
