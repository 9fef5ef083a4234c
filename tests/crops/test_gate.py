"""The verdict: swapped sides flip it, few queries leave it open, and an open guard does not stop a
promotion.
"""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crops.gate import (
    PROMOTE,
    REJECT,
    UNKNOWN,
    Check,
    Difference,
    Z,
    bound,
    decide,
    gain,
    no_loss,
    visible_loss,
    widened,
)

CLEAR = Difference("qr_raw", 0.05, 0.02, 0.08, 100)


def verdict(found, *, guard=None):
    guards = [no_loss(guard, "ct", max_loss=0.02, min_queries=30)]
    return decide([gain(found, "qr_raw", min_queries=30)], guards if guard else []).verdict


def swapped(found):
    return dataclasses.replace(found, difference=-found.difference, low=-found.high, high=-found.low)


def test_swapping_challenger_and_champion_flips_the_verdict():
    assert (verdict(CLEAR), verdict(swapped(CLEAR))) == (PROMOTE, REJECT)


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_both_sides_are_never_promoted(difference, below, above):
    found = Difference("qr_raw", difference, difference - below, difference + above, 100)
    assert [verdict(found), verdict(swapped(found))].count(PROMOTE) <= 1


def test_level_is_no_reason_to_promote():
    assert verdict(Difference("qr_raw", 0.01, -0.01, 0.03, 100)) == REJECT


@pytest.mark.parametrize("found", [None, dataclasses.replace(CLEAR, queries=29)])
def test_too_few_queries_are_unknown(found):
    assert verdict(found) == UNKNOWN
    assert verdict(dataclasses.replace(CLEAR, queries=30)) == PROMOTE


def test_queries_of_one_chain_count_once():
    """They lead to the same video: thirty of them are one observation, and their interval has no width."""
    one = dataclasses.replace(CLEAR, chains=1)
    assert verdict(one) == UNKNOWN
    assert gain(one, "qr_raw", min_queries=30).reason == (
        "qr_raw: 100 queries in 1 chains, 30 are needed to tell"
    )
    assert no_loss(dataclasses.replace(CLEAR, chains=29), "ct", max_loss=0.02, min_queries=30).passed is None
    assert verdict(dataclasses.replace(CLEAR, chains=30)) == PROMOTE


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.05, -0.021, REJECT), (-0.05, -0.019, PROMOTE), (-0.2, 0.0, PROMOTE), (0.01, 0.02, PROMOTE)],
)
def test_a_guardrail_breaks_only_beyond_its_interval(low, high, expected):
    assert verdict(CLEAR, guard=Difference("ct", (low + high) / 2, low, high, 100)) == expected


def test_a_great_gain_on_the_guardrail_alone_promotes_nothing():
    """CT rewards imitation of the engine: better there and level on QR is a reject."""
    level = Difference("qr_raw", 0.0, -0.02, 0.02, 100)
    assert verdict(level, guard=Difference("ct", 0.2, 0.15, 0.25, 500)) == REJECT


def test_an_open_guard_is_said_and_stops_nothing():
    found = decide(
        [gain(CLEAR, "qr_raw", min_queries=30)], [no_loss(None, "ct", max_loss=0.02, min_queries=30)]
    )
    assert found.verdict == PROMOTE
    assert found.reasons[-1] == "not answered: ct: 0 queries, 30 are needed to tell"


@pytest.mark.parametrize(
    ("value", "limits", "passed"),
    [
        (0.95, {"least": 0.95}, True),
        (0.94, {"least": 0.95}, False),
        (50.0, {"most": 50.0}, True),
        (51.0, {"most": 50.0}, False),
        (None, {"least": 0.1}, None),
    ],
)
def test_bounds(value, limits, passed):
    assert bound("x", value, **limits).passed is passed


checks = st.lists(
    st.builds(Check, st.just("c"), st.sampled_from([True, False, None]), st.just("r")), max_size=5
)


@given(checks, checks)
def test_decide_as_a_truth_table(required, guards):
    """Anything failed: reject; else a required one open: unknown; else promote."""
    passed = [c.passed for c in required]
    expected = (
        REJECT
        if False in passed or False in [c.passed for c in guards]
        else UNKNOWN
        if None in passed
        else PROMOTE
    )
    assert decide(required, guards).verdict == expected


@pytest.mark.parametrize("queries", [60, 400])
def test_the_loss_that_it_says_it_would_have_seen_is_seen_four_times_in_five(queries):
    """Gaps of queries with a standard deviation of 0.25; 4,000 evaluations of a challenger that is worse by
    what the reason says.
    """
    rng = np.random.default_rng(queries)
    error = 0.25 / queries**0.5
    level = Difference("ct", 0.0, -Z * error, Z * error, queries)
    loss = visible_loss(level, max_loss=0.02)
    assert (
        f"would have seen a loss of {100 * loss:.1f} points"
        in no_loss(level, "ct", max_loss=0.02, min_queries=30).reason
    )
    means = rng.normal(-loss, error, 4_000).tolist()
    found = [Difference("ct", m, m - Z * error, m + Z * error, queries) for m in means]
    broken = np.mean([no_loss(gap, "ct", max_loss=0.02, min_queries=30).passed is False for gap in found])
    assert broken == pytest.approx(0.8, abs=0.02)


def test_where_no_query_differs_a_small_share_may_still():
    """A saturated set: 60 queries, none differs; with 5 % that do, none is seen once in twenty times."""
    flat = Difference("qr", 0.0, 0.0, 0.0, 60)
    assert visible_loss(flat, max_loss=0.02) == pytest.approx(0.02 + 3 / 60)


def test_non_inferiority_asks_for_the_low_end():
    wide = Difference("ct", 0.0, -0.03, 0.03, 100)
    limits = {"max_loss": 0.02, "min_queries": 30}
    assert no_loss(wide, "ct", **limits).passed
    assert no_loss(wide, "ct", non_inferior=True, **limits).passed is False
    assert no_loss(Difference("ct", 0.0, -0.019, 0.03, 100), "ct", non_inferior=True, **limits).passed


def test_the_chance_of_training_widens_the_interval():
    """3 and 4 make 5: a half-width of 3 points and 1.96 spreads of 4 / 1.96 points."""
    gap = Difference("qr_raw", 0.04, 0.01, 0.07, 100)
    found = widened(gap, spread=0.04 / Z)
    assert (found.low, found.high) == (pytest.approx(-0.01), pytest.approx(0.09))
    assert widened(gap, spread=0.0) == gap
    assert widened(None, spread=0.1) is None
