"""Users counted without names: against the exact number, and gateways together against one alone."""

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from crops.experiment import reach

SETS = st.sets(st.text(max_size=6), max_size=60)


def greatest(*seen):
    """Register -> the greatest rank, as Prometheus takes it over gateways and time."""
    held = {}
    for users in seen:
        for user in users:
            register, rank = reach.rank(user)
            held[register] = max(rank, held.get(register, 0))
    return held


def test_nobody_is_nobody():
    assert reach.users([]) == 0


@pytest.mark.parametrize("count", [1, 5, 40, 320, 1_000, 20_000, 200_000])
def test_the_number_is_within_four_standard_errors(count):
    estimates = [
        reach.users(greatest(f"{draw}-{n}" for n in range(count)).values())
        for draw in range(20 if count < 20_000 else 2)
    ]
    for estimate in estimates:
        assert abs(estimate / count - 1) < 4 * 0.092
    if len(estimates) == 20:  # no bias beyond what twenty draws leave open
        assert abs(sum(estimates) / 20 / count - 1) < 0.092


@settings(max_examples=50, deadline=None)
@given(st.lists(SETS, min_size=1, max_size=4))
def test_gateways_together_are_one_that_saw_all_their_users(parts):
    together = greatest(*[[*part] for part in parts])
    assert together == greatest(set().union(*parts))
    assert greatest(*parts, *parts) == together, "whoever comes again counts once"
