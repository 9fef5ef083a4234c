"""Drift, by hand."""

import numpy as np
import pytest

from serving.gateway.drift import FIRST, Drift, vocabulary
from serving.gateway.metrics import Metrics

EAST, NORTH = np.array([1.0, 0.0], dtype=np.float32), np.array([0.0, 1.0], dtype=np.float32)


def drift() -> Drift:
    return Drift(
        words=vocabulary(["Bread baking | home"]),
        probes=np.stack([EAST, EAST]),
        found=np.array([[1, 2], [3, 4]]),
    )


def value(metrics: Metrics, name: str, arm: str = "control", **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, {"arm": arm, **labels})


def test_words_that_the_release_never_saw_are_counted():
    metrics = Metrics()
    drift().query(metrics, "control", "bread blockchain home", EAST)
    assert value(metrics, "crops_query_words_total") == 3
    assert value(metrics, "crops_query_words_unknown_total") == 1


def test_a_vector_that_is_not_of_length_one_shows():
    metrics = Metrics()
    drift().query(metrics, "control", "bread", 3 * EAST)
    assert value(metrics, "crops_query_vector_norm_bucket", le="2.0") == 0
    assert value(metrics, "crops_query_vector_norm_sum") == pytest.approx(3)


def test_the_centroid_is_silent_until_it_means_something_and_then_turns_with_the_queries():
    metrics, watched = Metrics(), drift()
    for n in range(FIRST):
        watched.report(metrics, "control")
        assert value(metrics, "crops_query_centroid_cosine") is None, n
        watched.query(metrics, "control", "bread", EAST)
    watched.report(metrics, "control")
    assert value(metrics, "crops_query_centroid_cosine") == pytest.approx(1)
    for _ in range(5000):
        watched.query(metrics, "control", "bread", NORTH)
    watched.report(metrics, "control")
    assert value(metrics, "crops_query_centroid_cosine") < 0.1


def test_an_index_that_lost_a_document_loses_its_share_of_recall():
    assert drift().recall(np.array([[2, 1], [3, 4]])) == 1.0
    assert drift().recall(np.array([[1, 9], [3, 4]])) == 0.75
