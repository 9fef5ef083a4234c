"""The order of θ by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from crops.discriminator import rerank
from crops.discriminator.calibrate import Calibration

TEXTS = [".1", ".5", ".3", ".3", ".9"]
RANKED = np.array([[0, 2, 3, 4], [0, 1, -1, -1]])
COSINES = np.array([[0.4, 0.3, 0.2, 0.1], [0.8, 0.7, 0.0, 0.0]])


@pytest.fixture
def judge(monkeypatch):
    """Its cross-encoder reads the number in the text; what it was asked stays."""
    asked = []

    def logits(_cross, queries, texts, *, progress):
        asked.extend(zip(queries, texts, strict=True))
        progress(len(texts))
        return np.array([float(text) for text in texts])

    monkeypatch.setattr(rerank.score, "logits", logits)
    return SimpleNamespace(cross=None, calibration=Calibration((1.0, 0.0), -3.0), asked=asked)


def ordered(judge, depth, temperature=1.0):
    made = rerank.by_theta(judge, ["a", "b"], TEXTS, RANKED, COSINES, depth, temperature=temperature)
    return made.tolist()


def test_the_first_documents_are_ordered_by_theta_and_the_rest_stays(judge):
    """Row 1 has two documents alone; 2 and 3 are equal and stay as they were."""
    assert ordered(judge, 3) == [[2, 3, 0, 4], [1, 0, -1, -1]]
    assert judge.asked == [("a", ".1"), ("a", ".3"), ("a", ".3"), ("b", ".1"), ("b", ".5")]
    assert ordered(judge, 9) == [[4, 2, 3, 0], [1, 0, -1, -1]]
    assert RANKED.tolist() == [[0, 2, 3, 4], [0, 1, -1, -1]], "the ranking itself is as it was"


def test_the_own_cosine_of_a_ranking_stands_for_the_dual_encoder(judge):
    """At temperature 0.5 the sums are 0.5, 0.6, 0.5 and 1.0; at 0.05 the dense order wins."""
    judge.calibration = Calibration((1.0, 0.5), 0.0)
    assert rerank.weights(judge, 0.5) == (1.0, 1.0)
    assert ordered(judge, 9, 0.5) == [[4, 2, 0, 3], [1, 0, -1, -1]]
    assert ordered(judge, 9, 0.05) == [[0, 2, 3, 4], [0, 1, -1, -1]]
