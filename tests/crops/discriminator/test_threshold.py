"""α of a query follows what is known of queries where that tells, and stays where it does not."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit

from crops.discriminator import threshold


def log(*, weight, pairs=4_000, queries=300, seed=0):
    """θ, whether wanted (half unknown), queries, and a feature that moves their log-odds by `weight`."""
    rng = np.random.default_rng(seed)
    number = rng.integers(queries, size=pairs)
    feature, theta = rng.normal(size=queries)[number], rng.uniform(0.02, 0.98, pairs)
    wanted = (rng.random(pairs) < expit(logit(theta) + weight * feature)).astype(float)
    wanted[rng.random(pairs) < 0.5] = np.nan
    return theta, wanted, np.array([f"q{n}" for n in number], dtype=object), feature[:, None]


def test_alpha_stands_where_the_chance_is_that_of_alpha_on_average():
    """θ of a query with feature f is wanted with the odds θ / (1 - θ) · e^f, so its α has the log-odds
    logit(α') - f, α' common to all.
    """
    theta, wanted, queries, features = log(weight=1.0)
    alphas, _why = threshold.predicted(theta, wanted, queries, features, 0.6)
    free = (alphas > 0.31) & (alphas < 0.89)
    slope = np.polyfit(features[free, 0], logit(alphas[free]), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.2)
    assert 0.3 <= alphas.min() < 0.4 < 0.8 < alphas.max() <= 0.9
    assert pd.Series(alphas).groupby(queries).nunique().max() == 1


@pytest.mark.parametrize(
    ("made", "says"),
    [(log(weight=0.0), "tell nothing beside θ"), (log(weight=1.0, pairs=150), "too few to predict from")],
)
def test_where_nothing_is_told_alpha_stays(made, says):
    alphas, why = threshold.predicted(*made, 0.6)
    assert alphas is None
    assert says in why


def test_pairs_of_the_log_that_were_not_shown_judge_nothing():
    """Of four mined pairs one was clicked, one shown and passed over, two never shown."""
    rows = pd.DataFrame(
        [
            ("q", d, p, 1, 0.5)
            for d, p in [*((d, "feed") for d in "abcd"), ("a", "click"), ("b", "exposed"), ("e", "exposed")]
        ],
        columns=["query", "doc_id", "perspective", "support", "theta"],
    )
    wanted = threshold._wanted(rows, rows[rows["perspective"] == "feed"])
    assert np.array_equal(wanted, [1, 0, np.nan, np.nan], equal_nan=True)
    alphas, notes = threshold.of_queries(rows, 0.6)
    assert alphas.empty
    assert all("too few to predict from" in note for note in notes)
