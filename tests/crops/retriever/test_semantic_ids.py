"""Ids: one each, the same ones every time, and near vectors begin alike; the trie holds them and no other."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from crops.retriever import semantic_ids


def vectors(documents: int, *, seed: int, topics: int = 5) -> np.ndarray:
    """float32 [D, 8], in `topics` heaps that lie far apart."""
    chance = np.random.default_rng(seed)
    centres = 10 * np.eye(8, dtype=np.float32)[:topics]
    near = chance.normal(size=(documents, 8), scale=0.1).astype(np.float32)
    return centres[np.arange(documents) % topics] + near


@settings(max_examples=25, deadline=None)
@given(documents=st.integers(1, 90), branches=st.integers(2, 9), seed=st.integers(0, 9))
def test_every_document_has_an_id_of_its_own_and_the_trie_holds_exactly_these(documents, branches, seed):
    ids = semantic_ids.made(vectors(documents, seed=seed), branches=branches, seed=seed)
    assert len({tuple(row) for row in ids.tolist()}) == documents
    assert branches ** ids.shape[1] >= documents
    assert (ids[:, :-1] < branches).all()
    assert (ids == semantic_ids.made(vectors(documents, seed=seed), branches=branches, seed=seed)).all()
    trie = semantic_ids.trie(ids)

    def walked(node: int, level: int) -> list[tuple[int, ...]]:
        ways = [(digit, int(n)) for digit, n in enumerate(trie.children[node]) if n >= 0]
        if level == ids.shape[1] - 1:
            return [(digit, row) for digit, row in ways]
        return [(digit, *rest) for digit, after in ways for rest in walked(after, level + 1)]

    assert sorted(walked(0, 0)) == sorted((*row, n) for n, row in enumerate(ids.tolist()))
    for row, nodes in zip(ids.tolist(), trie.nodes.tolist(), strict=True):
        assert [trie.children[n][digit] for n, digit in zip(nodes, row, strict=True)][:-1] == nodes[1:]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 99), branches=st.integers(4, 9))
def test_near_vectors_share_the_beginning_more_than_far_ones(seed, branches):
    """Two of one heap have more of their first digits in common than two of different heaps."""
    ids = semantic_ids.made(vectors(60, seed=seed), branches=branches, seed=seed)
    shared = (ids[:, None, :-1] == ids[None, :, :-1]).cumprod(axis=2).sum(axis=2)  # [60, 60]
    topics = np.arange(60) % 5
    near, apart = topics[:, None] == topics[None], ~np.eye(60, dtype=bool)
    assert shared[near & apart].mean() > shared[~near].mean()


def test_a_cluster_of_few_is_not_cut_again():
    """Three documents, four branches: one digit. Five: two, of which the last tells the members apart."""
    assert semantic_ids.made(np.eye(3, dtype=np.float32), branches=4).tolist() == [[0], [1], [2]]
    five = semantic_ids.made(vectors(5, seed=0), branches=4)
    assert five.shape == (5, 2)
    for digit in range(4):
        last = five[five[:, 0] == digit, 1].tolist()
        assert last == list(range(len(last)))


def test_equal_vectors_have_different_ids():
    ids = semantic_ids.made(np.ones((40, 4), dtype=np.float32), branches=3)
    assert len({tuple(row) for row in ids.tolist()}) == 40


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="0 vectors"):
        semantic_ids.made(np.empty((0, 4), dtype=np.float32))
    with pytest.raises(ValueError, match="2 documents share 1 ids"):
        semantic_ids.trie(np.array([[1, 2], [1, 2]]))
