"""Which pairs the dual encoder decides alone: by hand, by its promise, and where it knows everything or
nothing.
"""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crops.discriminator import cascade
from crops.discriminator.calibrate import Calibration

ALPHA = 0.6


def fitted(dual, theta, share=0.1):
    dual, theta = np.array(dual, float), np.array(theta, float)
    relevant = (np.arange(len(dual)) % 2).astype(float)  # both kinds, whatever they are
    return cascade.fit(dual, theta, relevant, alpha=ALPHA, share=share)


def test_edges_by_hand():
    """20 pairs in order; both readers keep numbers 12 and 14 to 19. With one more that nobody saw, wrong from
    below are 1 of 13 after number 11, 2 of 15 after 13; from above 1 of 7 after number 14, 3 of 9 after 12.
    """
    theta = [0.9 if n == 12 or n >= 14 else 0.1 for n in range(20)]
    levels = fitted(range(20), theta, share=0.143)
    assert (levels.low, levels.high) == (13, 14)
    levels = fitted(range(20), theta, share=0.1)
    assert levels.low == 11
    assert levels.high == float("inf")  # six pairs prove no tenth


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(-20, 20), st.integers(0, 100)), min_size=4, max_size=200),
    st.floats(0.01, 0.49),
)
def test_on_each_side_no_more_than_the_share_is_decided_otherwise(pairs, share):
    dual, theta = (np.array(column, float) for column in zip(*pairs, strict=True))
    theta /= 100
    levels = fitted(dual, theta, share)
    alone, unsure = levels(dual)
    for side in (dual < levels.low, dual > levels.high):
        assert not unsure[side].any()
        other = (alone[side] > ALPHA) != (theta[side] > ALPHA)
        assert other.sum() <= share * (side.sum() + 1)
    assert (unsure == ~((dual < levels.low) | (dual > levels.high))).all()


def test_a_dual_encoder_that_knows_everything_is_asked_alone_and_one_that_knows_nothing_never():
    rng = np.random.default_rng(0)
    theta = rng.random(2_000)
    knows = fitted(theta * 10, theta, share=0.01)
    told = cascade.judged(knows, theta * 10, theta)
    assert told["below"] + told["above"] > 0.97
    assert told["otherwise"] <= 0.01
    guesses = fitted(rng.random(2_000), theta, share=0.01)
    assert cascade.judged(guesses, rng.random(2_000), theta) == {"below": 0, "above": 0, "otherwise": 0}


@pytest.mark.parametrize("edges", [(-2.0, 3.0), (float("-inf"), float("inf"))])
def test_it_goes_through_json(edges):
    levels = cascade.Cascade(Calibration((0.5,), -1.0), *edges, ALPHA)
    assert cascade.of(json.loads(json.dumps(cascade.edges(levels), allow_nan=False))) == levels
