"""What a base gets wrong, by hand on vectors of two numbers; and the batches that follow from it."""

from dataclasses import dataclass

import numpy as np
import pytest

from crops.retriever.batch import Batches, pairs
from crops.retriever.focus import focus

# Cosines with the query "q": 1, .8, .6, 0 and -1.
VECTORS = {
    **{"q": (1, 0), "r": (0, 1), "s": (1, 0)},
    **{"t1": (1, 0), "t2": (0.8, 0.6), "t3": (0.6, 0.8), "t4": (0, 1), "t5": (-1, 0)},
}


@dataclass
class Table:
    """An encoder that knows its vectors by heart."""

    def encode(self, texts, *, kind):
        return np.array([VECTORS[text] for text in texts], dtype=np.float32)


def test_ranks_and_rivals_by_hand():
    """q's positives are t2 and t4: before t2 stands t1, before t4 stand t1 and t3; (log2 2 + log2 3) / 2.
    Their mean cosine is .4: t1 and t3 are too near to be taken for irrelevant, t5 is the only rival. r's
    positive t4 comes first; of the rest t3 (.8) and t2 (.6) are below .95, t1 is known as a lower sample.
    """
    of_q, of_r = [("q", "t2", 4), ("q", "t4", 4)], [("r", "t4", 5), ("r", "t1", 1)]
    samples = pairs([*of_q, *of_r, ("s", "t3", 4), ("s", "t5", 4)])
    found = focus(Table(), samples, rivals=2, margin=0.95)
    assert found.lost[0] == pytest.approx((1 + np.log2(3)) / 2)
    assert found.lost[1] == 0.0
    named = [[samples.texts[n] for n in row if n >= 0] for row in found.rivals]
    assert named[0] == ["t5"]
    assert named[1] == ["t3", "t2"]


def batches(**focused):
    rows = [(f"q{n}", f"t{n}", 4) for n in range(12)]
    return Batches(pairs(rows), anchor_min=4, size=4, positives=1, lower=0, seed=0, **focused)


def test_a_query_has_its_turns_by_its_weight():
    """Of 12 turns a pass a weight of 6 among 11 ones has 72 / 17: four or five, the others none or one; equal
    weights leave every query one.
    """
    weights = np.ones(12)
    weights[3] = 6
    drawn = batches(turns=weights)
    for epoch in range(10):
        turn = np.concatenate([drawn.at(3 * epoch + n).queries for n in range(3)])
        counts = np.bincount(turn, minlength=12)
        assert counts.sum() == 12
        assert counts[3] in (4, 5)
        assert counts[np.arange(12) != 3].max() <= 1
    plain, even = batches(), batches(turns=np.ones(12))
    assert sorted(np.concatenate([plain.at(n).queries for n in range(3)])) == list(range(12))
    assert sorted(np.concatenate([even.at(n).queries for n in range(3)])) == list(range(12))


def test_rivals_come_into_the_batch_as_irrelevant_for_those_who_know_nothing_of_them():
    rivals = np.full((12, 2), -1)
    rivals[:, 0] = (np.arange(12) + 1) % 12  # the next one's positive
    plain, focused = batches(), batches(rivals=rivals)
    for step in range(6):
        before, batch = plain.at(step), focused.at(step)
        np.testing.assert_array_equal(batch.queries, before.queries)
        assert set(batch.texts) == set(before.texts) | {(q + 1) % 12 for q in batch.queries}
        for row, query in enumerate(batch.queries):
            np.testing.assert_array_equal(batch.labels[row], np.where(batch.texts == query, 4, 0))
