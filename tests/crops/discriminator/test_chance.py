"""θ against chance: planted mixtures with a known share and known pairs, order kept, and the null by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from crops.discriminator import calibrate, chance

F = len(chance.EVIDENCE)


def planted(seed=0, n=10_000, share=0.3, gap=2.5):
    """Chance pairs have standard normal evidence; `share` of the mined pairs have more of the first."""
    rng = np.random.default_rng(seed)
    mined, null = rng.normal(size=(n, F)), rng.normal(size=(n, F))
    real = rng.random(n) < share
    mined[real, 0] += gap
    return mined, null, real.astype(float)


def test_a_planted_mixture_is_found_again():
    """θ against Bayes' rule with the densities of the draw: share · f1 / (share · f1 + (1 - share) · f0)."""
    mined, null, real = planted()
    found = chance.fit(mined, null, np.ones(len(null)))
    theta = found(mined)
    bayes = (
        0.3 * norm.pdf(mined[:, 0], 2.5) / (0.3 * norm.pdf(mined[:, 0], 2.5) + 0.7 * norm.pdf(mined[:, 0]))
    )
    assert found.null_share == pytest.approx(0.7, abs=0.03)
    assert theta.mean() == pytest.approx(0.3, abs=0.03)
    assert np.abs(theta - bayes).mean() < 0.03
    assert calibrate.expected_error(theta, real) < 0.03


def test_pairs_that_are_all_chance_are_not_kept():
    mined, null, _real = planted(seed=1, share=0.0)
    found = chance.fit(mined, null, np.ones(len(null)))
    assert found.null_share > 0.95
    assert (found(mined) > 0.6).mean() < 0.01


def test_a_harder_null_with_its_weight_counts():
    """A third kind that looks like the real pairs takes their θ down, the more the heavier it is."""
    mined, null, _real = planted(seed=2, share=0.5)
    both = np.concatenate([null, mined[:2_500] + [1.0, *[0.0] * (F - 1)]])
    means = [
        chance.fit(mined, both, np.concatenate([np.full(10_000, 1.0), np.full(2_500, heavy)]))(mined).mean()
        for heavy in (1e-9, 0.5, 2.0)
    ]
    assert means == sorted(means, reverse=True)
    assert means[0] - means[2] > 0.1


@pytest.fixture(scope="module")
def small():
    mined, null, _real = planted(4, n=1_000)
    return chance.fit(mined, null, np.ones(len(null))), mined


@settings(deadline=None)
@given(st.integers(0, F - 1), st.floats(0, 5))
def test_no_evidence_lowers_theta(small, which, more):
    found, mined = small
    up = mined.copy()
    up[:, which] += more
    assert (found(up) >= found(mined)).all()
    assert ((found(mined) >= 0) & (found(mined) <= 1)).all()


def test_a_query_without_clicks_stands_where_chance_stands():
    mined, null, _real = planted(seed=3, n=2_000)
    at = chance.EVIDENCE.index("nearest")
    null[:500, at] = np.nan
    found = chance.fit(mined, null, np.ones(len(null)))
    one = mined[:3].copy()
    one[:, at] = np.nan
    other = mined[:3].copy()
    other[:, at] = np.nanmean(null[:, at])
    np.testing.assert_array_equal(found(one), found(other))
    null[:, at] = np.nan
    assert np.isfinite(chance.fit(mined, null, np.ones(len(null)))(mined)).all()


def test_paired_anew_each_keeps_its_events():
    pairs = pd.DataFrame(
        {"query": ["a", "a", "b", "c"], "doc_id": ["x", "y", "x", "z"], "support": [3, 1, 2, 4]}
    )
    anew = chance.repaired(pairs, np.random.default_rng(0))
    assert not anew.duplicated(["query", "doc_id"]).any()
    for name in ("query", "doc_id"):
        assert anew.groupby(name)["support"].sum().equals(pairs.groupby(name)["support"].sum())


def test_evidence_by_hand():
    """a: 4 of 10 events, x: 5 of 10, so chance brings 2 events to (a, x): three are a lift of log 1.5. A pair
    that was never mined counts as once on both sides: 1 / 10.
    """
    pairs = pd.DataFrame(
        {"query": ["a", "a", "b", "c"], "doc_id": ["x", "y", "x", "z"], "support": [3, 1, 2, 4]}
    )
    usual = chance.marginals(pairs)
    texts = {"x": "red a car", "y": "car", "z": "c | c", "new": "n"}
    asked = pairs.assign(theta=[0.5, 0.9, 0.5, 0.0], nearest=[0.3, np.nan, 0.1, 0.2])
    asked.loc[4] = ["new one", "new", 1, 0.5, np.nan]
    found = pd.DataFrame(chance.evidence(asked, texts, usual), columns=list(chance.EVIDENCE))
    assert found["lift"].tolist() == pytest.approx(np.log([3 / 2, 1 / 0.4, 2 / 1, 4 / 1.6, 10]))
    assert found["support"].tolist() == pytest.approx(np.log([3, 1, 2, 4, 1]))
    assert found["shared"].tolist() == [1, 0, 0, 1, 0]
    assert found["text"].tolist()[:2] == pytest.approx([0, np.log(9)])
    assert np.isfinite(found["text"]).all()
    assert found["nearest"].isna().tolist() == [False, True, False, False, True]
    assert chance.bands(np.array([0, 0.5, 0.6])).tolist() == ["none", "up to half", "more"]
