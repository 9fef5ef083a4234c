"""Distillation: against torch's own divergence, by hand for θ, and an encoder that becomes its teacher."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from crops.retriever import step, teacher
from crops.retriever.batch import Batch, pairs
from tests.crops.retriever import toy_encoder as toy


@given(st.integers(0, 10_000))
def test_divergence_is_that_of_torch_where_all_is_told(seed):
    rng = np.random.default_rng(seed)
    scores, targets = (torch.tensor(rng.normal(0, 3, (4, 6))) for _ in range(2))
    expected = torch.nn.functional.kl_div(
        scores.log_softmax(1), targets.log_softmax(1), log_target=True, reduction="batchmean"
    )
    torch.testing.assert_close(teacher.divergence(scores, targets), expected)
    assert float(teacher.divergence(targets, targets)) == pytest.approx(0.0, abs=1e-12)


def test_what_the_teacher_does_not_say_moves_nothing():
    """The untold candidate has no gradient, and a query with one told candidate has none at all."""
    scores = torch.tensor([[1.0, 2.0, 9.0], [1.0, 2.0, 3.0]], requires_grad=True)
    nan = float("nan")
    teacher.divergence(scores, torch.tensor([[2.0, 1.0, nan], [nan, 1.0, nan]])).backward()
    assert scores.grad is not None
    assert scores.grad[0, 2] == 0
    assert (scores.grad[1] == 0).all()
    assert scores.grad[0, 0] == pytest.approx(-float(scores.grad[0, 1]))
    silent = teacher.divergence(scores, torch.full((2, 3), nan))
    assert float(silent.detach()) == 0


def test_theta_speaks_of_the_samples_that_it_was_asked_about():
    rows = [("a", "t1", 5), ("a", "t2", 4), ("b", "t2", 4), ("b", "t3", 1)]
    samples = pairs(rows)
    with pytest.raises(ValueError, match="no teacher"):
        teacher.of_theta(samples)
    theta = {("a", "t1"): 0.8, ("a", "t2"): np.nan, ("b", "t2"): 1.0, ("b", "t3"): 0.5}
    asked = [
        theta.get((samples.queries[q], samples.texts[t]), np.nan)
        for q, t in zip(samples.query, samples.text, strict=True)
    ]
    told = teacher.of_theta(replace(samples, theta=np.array(asked, dtype=np.float32)))
    texts = np.array([samples.texts.index("t1"), samples.texts.index("t2")])
    batch = Batch(queries=np.array([0, 1]), texts=texts, labels=np.zeros((2, 2), dtype=np.int8))
    odds = told(batch)
    assert odds[0, 0] == pytest.approx(np.log(4))
    assert odds[1, 1] == pytest.approx(np.log((1 - teacher.SURE) / teacher.SURE), rel=1e-3)
    assert np.isnan(odds[[0, 1], [1, 0]]).all()


def test_an_encoder_is_its_own_teacher_without_a_difference():
    encoder = toy.encoder()
    samples = pairs([(toy.TEXTS[i], toy.TEXTS[12 + i], 4) for i in range(6)])
    told = teacher.of_encoder(encoder, samples)
    batch = Batch(queries=np.arange(6), texts=np.arange(6), labels=np.eye(6, dtype=np.int8))
    q, d = (encoder.encode(texts, kind="query") for texts in (samples.queries, samples.texts))
    scores = torch.tensor(q @ d.T) / float(encoder.log_tau.detach().exp())
    assert float(teacher.divergence(scores, torch.tensor(told(batch)))) == pytest.approx(0.0, abs=1e-6)


def test_a_step_adds_the_divergence_to_the_loss():
    encoder = toy.encoder()
    ids, labels = toy.batch(encoder)
    targets = np.random.default_rng(1).normal(0, 2, labels.shape).astype(np.float32)
    plan = replace(toy.PLAN, distil=3.0)
    plain = step.gradients(encoder, ids, labels, plan, step=0)
    q, d = encoder(*encoder.pad(ids[0])), encoder(*encoder.pad(ids[1]))
    scores = q @ d.T / encoder.log_tau.exp()
    gap = float(teacher.divergence(scores, torch.tensor(targets)).detach())
    both = step.gradients(encoder, ids, labels, plan, step=0, targets=targets)
    assert both == pytest.approx(plain + 3.0 * gap, rel=1e-6)
