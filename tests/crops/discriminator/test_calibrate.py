"""Calibration against a brute-force grid and statsmodels, shifts and prevalence on planted mixes, AUC by
counting.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from crops.discriminator import calibrate


def data(seed=0, n=400, slope=0.7, offset=-1.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, n)
    return logits[:, None], (rng.random(n) < expit(slope * logits + offset)).astype(float)


def test_platt_is_the_best_of_a_grid():
    """No (slope, offset) of a fine grid has a lower loss on Platt's smoothed targets, and the best grid point
    is close by.
    """
    logits, relevant = data()
    found = calibrate.fit(logits, relevant)
    positives, negatives = relevant.sum(), (1 - relevant).sum()
    target = np.where(relevant > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(slope, offset):
        z = slope * logits[:, 0] + offset
        return (np.logaddexp(0, z) - target * z).mean()

    grid = {(a, b): loss(a, b) for a in np.arange(0, 2, 0.02) for b in np.arange(-3, 1, 0.02)}
    best = min(grid, key=grid.get)
    assert loss(*found.weights, found.offset) <= grid[best] + 1e-7
    assert (*found.weights, found.offset) == pytest.approx(best, abs=0.03)


def test_platt_undoes_a_known_distortion():
    """Logits that are three times too sure and shifted: θ is the true share again, within its sampling
    error.
    """
    logits, relevant = data(seed=1, n=20_000, slope=1 / 3, offset=0.5)
    found = calibrate.fit(logits, relevant)
    assert (*found.weights, found.offset) == pytest.approx((1 / 3, 0.5), abs=0.05)
    assert calibrate.expected_error(found(logits), relevant) < 0.02


def test_scores_that_are_upside_down_get_no_slope():
    logits, relevant = data(slope=-1.0, offset=0.0)
    assert 0 <= calibrate.fit(logits, relevant).weights[0] < 0.01


def test_few_pairs_give_no_certainty():
    """Two perfectly ordered pairs: Platt's targets are 2/3 and 1/3, so θ stays there instead of 1 and 0."""
    found = calibrate.fit(np.array([[-5.0], [5.0]]), np.array([0.0, 1.0]))
    assert found(np.array([[-5.0], [5.0]])) == pytest.approx([1 / 3, 2 / 3], abs=1e-3)


@pytest.mark.parametrize("relevant", [[], [1.0, 1.0], [0.0, 0.0]])
def test_one_kind_of_pairs_calibrates_nothing(relevant):
    with pytest.raises(ValueError, match="both kinds"):
        calibrate.fit(np.zeros((len(relevant), 2)), np.array(relevant))


def test_two_features_of_other_scales_agree_with_statsmodels():
    """An independent logistic regression (Newton, no bounds, plain targets) finds the same weights where
    there is much data.
    """
    import statsmodels.api as sm

    rng = np.random.default_rng(2)
    features = np.stack([rng.normal(0, 3, 20_000), rng.normal(0.4, 0.01, 20_000)], axis=1)
    relevant = (rng.random(20_000) < expit(features @ [0.5, 80.0] - 33.0)).astype(float)
    found = calibrate.fit(features, relevant)
    known = sm.Logit(relevant, sm.add_constant(features)).fit(disp=0).params
    assert [found.offset, *found.weights] == pytest.approx(known, rel=0.02)
    assert found.prior == relevant.mean()


def test_a_useless_feature_gets_no_weight():
    rng = np.random.default_rng(3)
    logits, relevant = data(n=5_000)
    found = calibrate.fit(
        np.concatenate([logits, -relevant[:, None] + rng.normal(0, 5, (5_000, 1))], axis=1), relevant
    )
    assert found.weights[1] < 0.02 * found.weights[0]


def test_a_shift_is_found_and_few_pairs_hardly_move_it():
    """Pairs of a perspective where every log-odds is 1.5 higher than θ says; the penalty alone decides
    without pairs.
    """
    rng = np.random.default_rng(4)
    z = rng.normal(-1, 2, 5_000)
    relevant = (rng.random(5_000) < expit(z + 1.5)).astype(float)
    assert calibrate.shift_of(expit(z), relevant) == pytest.approx(1.5, abs=0.1)
    assert calibrate.shift_of(np.array([0.5]), np.array([1.0])) == pytest.approx(
        0.40, abs=0.01
    )  # b = 1 - sigmoid(b)
    assert calibrate.shift_of(np.empty(0), np.empty(0)) == 0.0
    theta = np.array([0.1, 0.5], dtype=np.float32)
    assert calibrate.shift(theta, 0.0) is theta
    assert calibrate.shift(theta, np.log(9)) == pytest.approx([0.5, 0.9], abs=1e-6)
    assert calibrate.Calibration((1.0,), 0.0, shifts={"feed": np.log(9)}).shifted(theta, "click") is theta


@pytest.mark.parametrize("share", [0.05, 0.15, 0.6])
def test_prevalence_of_another_mix(share):
    """Scores of both kinds as in the calibration mix (29 % relevant), other shares: EM finds them, the plain
    mean does not.
    """
    rng = np.random.default_rng(5)

    def mix(share, n=40_000):
        relevant = rng.random(n) < share
        return np.where(relevant, rng.normal(1.2, 1, n), rng.normal(-1.2, 1, n))[:, None], relevant.astype(
            float
        )

    found = calibrate.fit(*mix(0.29))
    features, relevant = mix(share)
    theta = found(features)
    assert abs(theta.mean() - share) > 0.03
    assert calibrate.prevalence(theta, found.prior) == pytest.approx(relevant.mean(), abs=0.02)
    assert calibrate.to_own_mix(theta, found.prior).mean() == pytest.approx(relevant.mean(), abs=0.02)
    with pytest.raises(ValueError, match="no pairs"):
        calibrate.prevalence(np.empty(0), 0.3)


def test_expected_error_by_hand():
    """Bin 0: θ .05, .05, observed 0, 1: |.05 - .5| = .45, 2 of 3 pairs. Bin 9: θ 1, observed 1: 0. Mean .45 x
    2/3 = .3
    """
    theta, relevant = np.array([0.05, 0.05, 1.0]), np.array([0.0, 1.0, 1.0])
    assert calibrate.expected_error(theta, relevant) == pytest.approx(0.3)
    rows = calibrate.reliability(theta, relevant)
    assert [r["count"] for r in rows] == [2, *[0] * 8, 1]
    assert rows[1]["predicted"] is rows[1]["observed"] is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_agrees_with_counting(pairs):
    scores, relevant = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs], float)
    good, bad = scores[relevant > 0], scores[relevant == 0]
    if not len(good) or not len(bad):
        with pytest.raises(ValueError, match="both kinds"):
            calibrate.auc(scores, relevant)
        return
    counted = np.mean([(a > b) + (a == b) / 2 for a in good for b in bad])
    assert calibrate.auc(scores, relevant) == pytest.approx(counted)


def test_an_em_that_hits_its_floor_knows_nothing():
    """Scores of the irrelevant below any in the calibration mix: the share that fits them is 0, which is no
    answer.
    """
    assert np.isnan(calibrate.to_own_mix(np.full(500, 1e-4), 0.3)).all()


def test_a_planted_miscalibration_is_seen():
    """θ says .9 of pairs of which .7 are relevant, in queries of ten: the margin is the distance to the
    interval, which is wider where a query's pairs share their fate.
    """
    rng = np.random.default_rng(6)
    queries = np.repeat([f"q{n}" for n in range(60)], 10)
    alone = (rng.random(600) < 0.7).astype(float)
    together = np.repeat((rng.random(60) < 0.7).astype(float), 10)
    sure, fair = np.full(600, 0.9), np.full(600, 0.7)
    one, other = (calibrate.agreement(sure, relevant, queries) for relevant in (alone, together))
    assert one["margin"] == pytest.approx(0.9 - one["high"], abs=1e-4)
    assert one["margin"] > 0.1
    assert other["high"] - other["low"] > 2 * (one["high"] - one["low"])
    assert calibrate.agreement(fair, alone, queries)["margin"] == 0
