"""The interval over queries and seeds: how often it holds the truth, and what it does not count twice."""

import numpy as np
import pytest

from crops import spread


def alone(queries):
    return np.arange(queries)


@pytest.mark.parametrize(
    ("seeds", "between", "least"),
    [(1, 0.0, 0.93), (2, 0.01, 0.93), (2, 0.05, 0.86), (2, 0.2, 0.86), (3, 0.05, 0.9), (3, 0.2, 0.9)],
)
def test_it_holds_the_truth_about_as_often_as_it_says(seeds, between, least):
    """Queries differ by 0.25, trainings by `between`. With the normal quantile in the place of Student's, two
    trainings that differ by 0.2 hold it 71 times in 100, three 82.
    """
    rng, runs, held = np.random.default_rng(0), 1_000, 0
    for _ in range(runs):
        gaps = 0.02 + rng.normal(0, 0.25, 200) + rng.normal(0, between, (seeds, 1))
        gaps = gaps + rng.normal(0, 0.1, (seeds, 200))
        held += abs(gaps.mean() - 0.02) <= spread.half_width(gaps, alone(200))
    assert held / runs >= least


def test_many_queries_of_one_training_have_the_normal_interval():
    gaps = np.random.default_rng(1).normal(0, 0.3, (1, 5_000))
    expected = 1.96 * gaps.std() / 5_000**0.5
    assert spread.half_width(gaps, alone(5_000)) == pytest.approx(expected, rel=1e-2)


def test_each_query_twice_is_as_each_once():
    gaps = np.random.default_rng(2).normal(0, 0.3, (2, 40))
    twice = np.concatenate([gaps, gaps], axis=1)
    assert spread.half_width(twice, np.tile(alone(40), 2) * 7) == pytest.approx(
        spread.half_width(gaps, alone(40))
    )


@pytest.mark.parametrize("together", [[], [3], [5, 5, 5]])
def test_of_less_than_two_groups_nothing_is_known(together):
    assert spread.half_width(np.full((2, len(together)), 0.5), np.array(together, dtype=int)) is None


def test_where_nothing_differs_there_is_no_width():
    assert spread.half_width(np.full((2, 9), 0.1), alone(9)) == pytest.approx(0, abs=1e-12)
