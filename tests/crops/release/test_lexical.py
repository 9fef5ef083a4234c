"""The catalogue by its words, and two rankings as one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from crops.evaluation import rank
from crops.release import lexical

RANKINGS = st.lists(st.lists(st.integers(0, 30), unique=True, max_size=12), min_size=1, max_size=3)


def test_reciprocal_ranks_by_hand():
    rows, scores = lexical.fused([[5, 6, 7], [7, 5, -1]], 3)
    assert rows == [5, 7, 6]
    np.testing.assert_allclose(scores, [1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 62])


@given(RANKINGS, st.integers(1, 12))
def test_fused_is_what_the_definition_says(rankings, k):
    rows, scores = lexical.fused(rankings, k)
    every = {row for ranking in rankings for row in ranking}
    expected = {r: sum(1 / (61 + ranking.index(r)) for ranking in rankings if r in ranking) for r in every}
    assert len(rows) == min(k, len(every)) == len(set(rows))
    np.testing.assert_allclose(scores, sorted(expected.values(), reverse=True)[:k])
    np.testing.assert_allclose(scores, [expected[row] for row in rows])


def test_one_ranking_and_one_of_nothing_is_that_ranking():
    first, nothing = np.array([[3, 1, 2]]), np.full((1, 3), -1)
    assert rank.fused(first, nothing).tolist() == rank.fused(nothing, first).tolist() == [[3, 1, 2]]


def test_what_shares_no_word_is_not_found():
    index = lexical.build(["rye bread", "sourdough bread", "night train"])
    assert index.search(["sourdough bread", "zebra"], 5).tolist() == [[1, 0, -1], [-1, -1, -1]]


def test_a_catalogue_without_words_and_no_query_at_all_are_answered():
    assert lexical.build(["", "!!!"]).search(["bread", ""], 5).tolist() == [[-1, -1], [-1, -1]]
    assert lexical.build(["rye bread"]).search([], 5).shape == (0, 1)
