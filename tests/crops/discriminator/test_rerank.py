"""The order of θ by hand."""

import numpy as np

from crops.discriminator import rerank


class Judge:
    """θ is the number in the text; what is asked stays."""

    def __init__(self):
        self.asked = []

    def theta(self, queries, texts, *, progress):
        self.asked += zip(queries, texts, strict=True)
        progress(len(texts))
        return np.array([float(text) for text in texts])


def test_the_first_documents_are_ordered_by_theta_and_the_rest_stays():
    """Row 1 has two documents alone; 2 and 3 are equal and stay as they were."""
    texts = [".1", ".5", ".3", ".3", ".9"]
    ranked = np.array([[0, 2, 3, 4], [0, 1, -1, -1]])
    judge = Judge()
    found = rerank.by_theta(judge, ["a", "b"], texts, ranked, 3)
    assert found.tolist() == [[2, 3, 0, 4], [1, 0, -1, -1]]
    assert judge.asked == [("a", ".1"), ("a", ".3"), ("a", ".3"), ("b", ".1"), ("b", ".5")]
    assert rerank.by_theta(judge, ["a", "b"], texts, ranked, 9).tolist() == [[4, 2, 3, 0], [1, 0, -1, -1]]
    assert ranked.tolist() == [[0, 2, 3, 4], [0, 1, -1, -1]], "the ranking itself is as it was"
