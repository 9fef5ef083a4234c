"""Choices by validation: a case by hand, their error rate where nothing differs, and that a real difference
is seen.
"""

import numpy as np
import pytest

from crops.retriever.choice import choose


def alone(queries):
    return np.arange(queries)


def test_two_candidates_by_hand():
    """Gaps 0.4, 0.2, 0.4, 0.2 of 4 people: mean 0.3, variance of the mean 4 x 0.1² / 4² x 4/3 = 1/300, and
    Student's t of 3 degrees of freedom is 3.1824 at 97.5 %: 0.3 ± 0.1837.
    """
    recalls = np.array([[[0.5, 0.5, 0.5, 0.5]], [[0.9, 0.7, 0.9, 0.7]]])
    found = choose(recalls, safe=0, people=alone(4))
    assert (found.taken, found.told, found.difference) == (1, True, 0.3)
    assert found.low == pytest.approx(0.3 - 3.1824 / 300**0.5, abs=1e-4)
    assert found.high == pytest.approx(0.3 + 3.1824 / 300**0.5, abs=1e-4)


def test_of_one_person_nothing_can_be_told():
    recalls = np.array([[[0.1, 0.1]], [[0.9, 0.9]]])
    assert choose(recalls, safe=0, people=np.zeros(2, dtype=int)).taken == 0


def test_equal_candidates_leave_the_safe_one():
    assert not choose(np.full((3, 2, 9), 0.5), safe=2, people=alone(9)).told
    assert choose(np.full((3, 2, 9), 0.5), safe=2, people=alone(9)).taken == 2


def test_the_best_of_twenty_equal_ones_is_rarely_told_from_the_safe_one():
    """All checks are equal and differ by luck. In 400 draws at most 6 % are told apart (nominal: 2.5 %),
    while the best one by its own queries looks better nearly each time.
    """
    rng = np.random.default_rng(0)
    draws = [rng.random((20, 1, 60)).round() for _ in range(400)]
    told = np.mean([choose(d, safe=19, people=alone(60)).told for d in draws])
    assert np.mean([d.mean(axis=2).max() > d[19].mean() for d in draws]) > 0.9
    assert told <= 0.06


def test_a_real_difference_is_seen_and_queries_of_the_same_people_count_once():
    """0.1 better at a spread of 0.1: seen with 50 people, not with 5 whose 10 queries say the same."""
    rng = np.random.default_rng(1)
    gap = rng.normal(0.1, 0.1, 50)
    recalls = np.stack([np.full(50, 0.5), 0.5 + gap])[:, None]
    assert choose(recalls, safe=0, people=alone(50)).taken == 1
    same = np.repeat(rng.normal(0.1, 0.2, 5), 10)
    recalls = np.stack([np.full(50, 0.5), 0.5 + same])[:, None]
    wide, narrow = (choose(recalls, safe=0, people=p) for p in (np.repeat(np.arange(5), 10), alone(50)))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_what_another_seed_turns_round_is_not_told():
    """One seed says +0.2 for every query, the other -0.1: the people agree, the seeds do not."""
    recalls = np.stack([np.full((2, 80), 0.5), np.array([[0.7] * 80, [0.4] * 80])])
    assert choose(recalls[:, :1], safe=0, people=alone(80)).told
    found = choose(recalls, safe=0, people=alone(80))
    assert not found.told
    assert found.low < 0 < found.high
