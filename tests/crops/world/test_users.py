"""People behave as the settings say, whoever made the list: every share within what chance allows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from crops.tables import records
from crops.world import users
from crops.world.settings import Settings
from tests.crops.world.binomial import within

SETTINGS, N, K = Settings(), 40_000, 10


def _react(grade: int, seed: int = 0) -> users.Reaction:
    shape = (N, K)
    return users.react(np.full(shape, grade), np.full(shape, 30.0), SETTINGS, np.random.default_rng(seed))


def test_looking_falls_with_the_position():
    """Position p is looked at with probability (1 + p) ** -bias: 1 at the top, 0.637 below it, 0.224 at the
    tenth place.
    """
    looked = _react(0).looked.sum(axis=0)
    assert looked[0] == N
    for position in range(K):
        assert within(int(looked[position]), N, (1 + position) ** -SETTINGS.position_bias)


@pytest.mark.parametrize("grade", [0, 1, 2, 3])
def test_clicks_follow_the_grade_once_looked_at(grade):
    reaction = _react(grade, seed=grade)
    assert not (reaction.clicked & ~reaction.looked).any()
    assert within(int(reaction.clicked.sum()), int(reaction.looked.sum()), SETTINGS.click_by_grade[grade])


@pytest.mark.parametrize("grade", [0, 1, 2, 3])
def test_watching_follows_the_grade(grade):
    """Shares watched are Beta(4 m, 4 (1 - m)): mean m, variance m (1 - m) / 5."""
    played = _react(grade, seed=10 + grade).play_s
    share = played[~np.isnan(played)] / 30.0
    mean = SETTINGS.watch_by_grade[grade]
    assert (
        abs(share.mean() - mean) < 5 * np.sqrt(mean * (1 - mean) / 5 / len(share)) + 0.002
    )  # play_s has one decimal


def test_only_what_fits_is_liked_and_satisfies():
    for grade in (0, 1):
        reaction = _react(grade)
        assert not reaction.liked.any()
        assert not reaction.satisfied.any()
    fits = _react(3)
    assert within(int(fits.liked.sum()), int(fits.clicked.sum()), SETTINGS.like_share)
    enough = (np.nan_to_num(fits.play_s) >= SETTINGS.satisfied_share * 30 - 0.06).any(axis=1)
    assert not (fits.satisfied & ~enough).any()


@given(
    grades=npst.arrays(
        np.int8, npst.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 3)
    ),
    seed=st.integers(0, 99),
)
def test_any_list_of_any_engine_will_do(grades, seed):
    """People are a model of their own: a live system's list of any length drives them, an empty need clicks
    nothing.
    """
    long = np.full(grades.shape, 12.0)
    reaction = users.react(grades, long, SETTINGS, np.random.default_rng(seed))
    assert reaction.clicked.shape == reaction.liked.shape == reaction.play_s.shape == grades.shape
    assert (np.isnan(reaction.play_s) == ~reaction.clicked).all()
    assert not (reaction.liked & ~reaction.clicked).any()
    played = reaction.play_s[reaction.clicked]
    assert ((played >= 0) & (played <= 12.0)).all()
    again = users.react(grades, long, SETTINGS, np.random.default_rng(seed))
    assert (again.clicked == reaction.clicked).all()


def test_a_better_list_satisfies_more_people():
    """The same grades, best first and worst first: what an A/B test between two engines rests on."""
    grades = np.tile(np.array([3, 2, 1, 1, 0, 0, 0, 0, 0, 0]), (N, 1))
    long = np.full(grades.shape, 30.0)
    best = users.react(grades, long, SETTINGS, np.random.default_rng(0))
    worst = users.react(grades[:, ::-1], long, SETTINGS, np.random.default_rng(0))
    assert best.clicked.any(axis=1).mean() > worst.clicked.any(axis=1).mean() + 0.1
    assert best.satisfied.mean() > worst.satisfied.mean() + 0.1


def test_what_people_do_next():
    satisfied = np.arange(2 * N) % 2 == 0
    step = users.decide(satisfied, SETTINGS, np.random.default_rng(0))
    assert within(int((step[satisfied] == users.NEW_NEED).sum()), N, SETTINGS.unrelated_next)
    assert not (step[satisfied] == users.REPHRASE).any()
    assert within(int((step[~satisfied] == users.REPHRASE).sum()), N, SETTINGS.reformulate)
    assert within(int((step[~satisfied] == users.NEW_NEED).sum()), N, SETTINGS.abandon)


def test_gaps_have_the_median_and_share_of_the_trec_session_track():
    """Lognormal, median 72 s; share within 90 s: Phi(ln(90 / 72) / 1.1) = Phi(0.203) = 0.580."""
    gaps = users.gaps_s(N, SETTINGS, np.random.default_rng(0))
    assert within(int((gaps <= SETTINGS.gap_median_s).sum()), N, 0.5)
    assert within(int((gaps <= 90).sum()), N, 0.580)
    assert gaps.min() >= 2.0


def test_sessions_with_a_click_are_about_as_many_as_kuaisar_reports(small_log):
    assert 0.55 <= small_log.numbers["sessions_with_click_ratio"] <= 0.65


def test_gaps_in_the_log_are_those_of_the_settings(small_log):
    """From the table alone. Two sessions of one person can follow each other by chance, so only gaps below an
    hour count; of the lognormal 0.02 % lie above.
    """
    rows = small_log.frame(records.SEARCHES).sort_values(["user_id", "ts"])
    gap = rows.groupby("user_id")["ts"].diff().dt.total_seconds()
    inside = gap[gap < 1_800]
    assert len(inside) > 5_000
    assert 65 <= inside.median() <= 80
    assert 0.54 <= (inside <= 90).mean() <= 0.62
