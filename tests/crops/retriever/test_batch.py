"""One anchor a pass: which samples stand in an anchor's row, and that its passes add up to H-InfoNCE on the
same samples.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crops.retriever.batch import AnchorBatches, Batches, anchors_per_step, pairs
from crops.retriever.loss import h_infonce, info_nce

ROWS = [
    ("a", "a5", 5),
    ("a", "a4", 4),
    ("a", "a3", 3),
    ("a", "a2", 2),
    ("a", "a1", 1),
    ("b", "b4", 4),
    ("b", "b3", 3),
    ("c", "c4", 4),
]


def whole(anchor_min, kind, size):
    return kind(pairs(ROWS), anchor_min=anchor_min, size=size, positives=9, lower=9, seed=0)


def test_an_anchors_row_holds_it_and_its_strictly_lower_samples():
    """Anchor a3 against a2 and a1 and the other queries' texts; a4 and a5 are masked."""
    batches = whole(1, AnchorBatches, 8)
    assert batches.per_epoch == 1
    batch, data = batches.at(0), pairs(ROWS)
    names = [data.texts[t] for t in batch.texts]
    assert sorted(data.queries[q] for q in batch.queries) == list("aaaaabbc")
    graded = {
        names[int(np.flatnonzero(row == 1)[0])]: dict(zip(names, row.tolist(), strict=True))
        for row in batch.labels
    }
    assert graded["a3"] == {"a5": -1, "a4": -1, "a3": 1, "a2": 0, "a1": 0, "b4": 0, "b3": 0, "c4": 0}
    assert graded["b4"] == {"a5": 0, "a4": 0, "a3": 0, "a2": 0, "a1": 0, "b4": 1, "b3": 0, "c4": 0}
    assert graded["a1"]["a2"] == -1


@pytest.mark.parametrize("anchor_min", [1, 3, 4])
def test_its_passes_add_up_to_h_infonce(anchor_min):
    """With every sample in the batch both take the same mean over the same anchors and rivals; only the cost
    differs.
    """
    graded, apart = whole(anchor_min, Batches, 3).at(0), whole(anchor_min, AnchorBatches, 8)
    one = whole(anchor_min, AnchorBatches, len(apart.anchors)).at(0)
    table = np.random.default_rng(1).normal(size=(3, 8))  # [query, text]
    scores = torch.tensor(table)
    joint = h_infonce(
        scores[graded.queries][:, graded.texts], torch.tensor(graded.labels), anchor_min=anchor_min
    )
    assert set(one.texts) == set(graded.texts)
    passes = info_nce(scores[one.queries][:, one.texts], torch.tensor(one.labels), positive_min=1)
    assert float(passes) == pytest.approx(float(joint), rel=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), st.integers(0, 5))
def test_anchors_per_step_is_the_mean_of_what_is_drawn(anchor_min, positives, lower, seed):
    rng = np.random.default_rng(seed)
    rows = [
        (f"q{q}", f"t{q}-{n}", int(label))
        for q in range(12)
        for n, label in enumerate([4, *rng.integers(1, 6, 6)])
    ]
    data = pairs(rows)
    sizes = {"anchor_min": anchor_min, "size": 3, "positives": positives, "lower": lower}
    batches = Batches(data, **sizes, seed=seed)
    drawn = [int((batches.at(step).labels >= anchor_min).sum()) for step in range(batches.per_epoch)]
    assert anchors_per_step(data, **sizes) == pytest.approx(np.mean(drawn))


def test_what_is_in_doubt_is_never_irrelevant():
    """a's t7 was dropped and c's text is nearly a's own; both come in by b and c. t9 no sample has: it is
    left out, as is a query without samples. A known label is stronger than doubt.
    """
    own = "one two three four five six seven eight nine ten"
    near = f"{own} more"
    rows = [("a", own, 4), ("a", "t3", 3), ("b", "t7", 4), ("c", near, 4), ("d", "t5", 4)]
    data = pairs(rows, unknown=[("a", "t7"), ("a", "t9"), ("a", "t3"), ("z", "t7")])
    assert len(data.query) == len(rows) + 3
    assert data.texts == tuple(sorted({text for _q, text, _n in rows}))
    batch = Batches(data, anchor_min=4, size=4, positives=2, lower=2, seed=0).at(0)
    names = [data.texts[t] for t in batch.texts]
    graded = {
        data.queries[q]: dict(zip(names, row.tolist(), strict=True))
        for q, row in zip(batch.queries, batch.labels, strict=True)
    }
    assert graded["a"] == {own: 4, "t3": 3, "t7": -1, near: -1, "t5": 0}
    assert graded["c"] == {own: -1, "t3": 0, "t7": 0, near: 4, "t5": 0}
    assert graded["b"] == {own: 0, "t3": 0, "t7": 4, near: 0, "t5": 0}
    for row in AnchorBatches(data, anchor_min=3, size=5, positives=2, lower=2, seed=0).at(0).labels:
        assert (row == 1).sum() == 1
    sizes = {"anchor_min": 3, "size": 4, "positives": 2, "lower": 2}
    assert anchors_per_step(data, **sizes) == anchors_per_step(pairs(rows), **sizes)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(4, 40), st.integers(0, 5), st.booleans(), st.lists(st.integers(0, 60), min_size=1, max_size=9)
)
def test_a_batch_is_the_same_whatever_was_drawn_before_it(asked, seed, weighted, steps):
    """A resumed run begins anywhere; a pass takes the queries in the order of its own seed."""
    data = pairs([(f"q{q:02d}", f"t{q:02d}-{n}", 4 - n) for q in range(asked) for n in range(4)])
    turns = np.random.default_rng(seed).uniform(1, 3, asked) if weighted else None
    sizes = {"anchor_min": 4, "size": 3, "positives": 1, "lower": 1, "seed": seed, "turns": turns}
    one = Batches(data, **sizes)
    for step in steps:
        batch, fresh = one.at(step), Batches(data, **sizes).at(step)
        for name in ("queries", "texts", "labels"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(fresh, name))
        epoch, turn = divmod(step, one.per_epoch)
        if not weighted:
            order = np.random.default_rng((seed, 0, epoch)).permutation(np.arange(asked))
            np.testing.assert_array_equal(batch.queries, order[3 * turn : 3 * turn + 3])


@pytest.mark.parametrize(("kind", "size"), [(Batches, 4), (AnchorBatches, 12)])
def test_a_row_is_a_sample_as_often_as_its_weight_says(kind, size):
    """Where it is none it is in doubt, not irrelevant; a batch without any anchor is taken whole."""
    data = pairs([(q, f"{q}{n}", 4) for q in "abcd" for n in range(3)])
    weight = np.tile(np.float32([1.0, 0.25, 0.0]), 4)
    sizes = {"anchor_min": 4, "size": size, "positives": 3, "lower": 1, "seed": 0}
    batches = kind(replace(data, weight=weight), **sizes)
    own = lambda batch, row, text: data.queries[batch.queries[row]] == data.texts[text][0]  # noqa: E731
    drawn = np.zeros(3)
    for step in range(600):
        batch = batches.at(step)
        for row, graded in enumerate(batch.labels):
            for text, label in zip(batch.texts, graded, strict=True):
                assert (label != 0) == own(batch, row, text)
                drawn[int(data.texts[text][1])] += label > 0
    assert drawn[2] == 0
    assert drawn[1] / drawn[0] == pytest.approx(0.25, abs=0.04)
    nothing = kind(replace(data, weight=np.zeros(12, np.float32)), **sizes).at(0)
    assert (nothing.labels > 0).any()
