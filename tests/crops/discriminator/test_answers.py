"""LLM answers with proof: by hand, and against a search that is written out."""

import numpy as np
import pytest

from crops.discriminator import answers


def unit(rng, *shape):
    rows = rng.normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("depth", [1, 3, 10])
def test_the_round_trip_agrees_with_sorting(depth):
    rng = np.random.default_rng(depth)
    asked, documents = unit(rng, 40, 8), unit(rng, 60, 8)
    relevant = [frozenset(rng.choice(60, rng.integers(0, 4), replace=False).tolist()) for _ in range(40)]
    passed = answers.round_trip(asked, documents, relevant, depth=depth)
    for row, right in enumerate(relevant):
        first = np.argsort(-(documents @ asked[row]))[:depth].tolist()
        assert passed[row] == (not right or bool(right & set(first)))


def test_the_first_of_like_answers_stays_and_other_queries_do_not_count():
    east, north = (1.0, 0.0), (0.0, 1.0)
    near = (np.cos(0.1), np.sin(0.1))
    vectors = np.array([east, near, north, east], dtype=np.float32)
    groups = ["a", "a", "a", "b"]
    assert answers.distinct(vectors, groups, most_alike=0.9).tolist() == [True, False, True, True]
    assert answers.distinct(vectors, groups, most_alike=1.0).all()
    assert answers.distinct(np.zeros((0, 2), dtype=np.float32), [], most_alike=0.9).tolist() == []
