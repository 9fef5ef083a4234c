"""The blinded draw, agreement by hand and against scikit-free brute force, and the median of several
raters.
"""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crops import judgement

PAIRS = pd.DataFrame(
    [{"query": f"q{n}", "doc_id": f"d{n}", "perspective": "exposed", "theta": 0.1} for n in range(40)]
    + [{"query": f"q{n}", "doc_id": f"d{n}", "perspective": "feed", "theta": 0.9} for n in range(5)]
)


def test_a_pair_of_two_perspectives_is_asked_once_and_for_the_rarer_one():
    drawn = judgement.sample(PAIRS, per_perspective=10, seed=0)
    assert drawn["perspective"].value_counts().to_dict() == {"exposed": 10, "feed": 5}
    assert not drawn.duplicated(["query", "doc_id"]).any()
    assert sorted(judgement.shuffled(drawn, seed=0)["pair_id"]) == [f"p{n:04d}" for n in range(1, 16)]
    assert drawn.equals(judgement.sample(PAIRS.sample(frac=1, random_state=1), per_perspective=10, seed=0)), (
        "order decides nothing"
    )


def test_the_place_in_the_sheet_tells_nothing_of_the_perspective():
    """Shuffled: over 200 seeds each place holds the rarer perspective about a third of the time."""
    drawn = judgement.sample(PAIRS, per_perspective=10, seed=0)
    share = np.mean([judgement.shuffled(drawn, seed=s)["perspective"].eq("feed") for s in range(200)], axis=0)
    assert abs(share - 1 / 3).max() < 0.15


def test_kappa_by_hand():
    """Grades (0, 3) and (0, 2): observed (0 + 1) / 2; expected over all four combinations (0 + 4 + 9 + 1) / 4
    = 3.5.
    """
    found = judgement.agreement([{"a": 0, "b": 3}, {"a": 0, "b": 2, "c": 1}])
    assert (found.kappa, found.pairs) == (pytest.approx(1 - 0.5 / 3.5, abs=1e-4), 2)
    assert judgement.agreement([{"a": 1}]) == judgement.Agreement(None, 0)
    assert judgement.agreement([{"a": 2, "b": 2}, {"a": 2, "b": 2}]).kappa is None, (
        "nobody varies: nothing to expect"
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=30))
def test_kappa_is_the_one_of_the_confusion_matrix(grades):
    """The textbook form: 1 - sum(w O) / sum(w E) with w = (i - j)^2 over the 4 x 4 table."""
    table = np.zeros((4, 4))
    for a, b in grades:
        table[a, b] += 1 / len(grades)
    weights = np.array([[(i - j) ** 2 for j in range(4)] for i in range(4)])
    expected = (weights * np.outer(table.sum(1), table.sum(0))).sum()
    found = judgement.agreement(
        [{str(n): a for n, (a, _) in enumerate(grades)}, {str(n): b for n, (_, b) in enumerate(grades)}]
    )
    if expected == 0:
        assert found.kappa is None
    else:
        assert found.kappa == pytest.approx(1 - (weights * table).sum() / expected, abs=1e-4)


def test_the_median_is_settled_downwards():
    for grades in itertools.product(range(4), repeat=3):
        sheets = [{"a": g} for g in grades]
        assert judgement.settle(sheets) == {"a": sorted(grades)[1]}
    assert judgement.settle([{"a": 1}, {"a": 2}, {"b": 3}]) == {"a": 1, "b": 3}


def test_the_pool_is_cut_at_its_depth_and_takes_whole_queries():
    ranks = [(q, f"d{rank}", rank) for q in ("a", "b", "c") for rank in range(8)]
    results = pd.DataFrame(ranks, columns=["query", "doc_id", "rank"])
    drawn = judgement.pool(results, queries=2, depth=3, seed=0)
    assert drawn["query"].nunique() == 2
    assert drawn.groupby("query")["rank"].apply(list).tolist() == [[0, 1, 2, 3]] * 2, "0: consumed"
    assert drawn.equals(judgement.pool(results.sample(frac=1, random_state=1), queries=2, depth=3, seed=0))
