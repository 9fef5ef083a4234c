"""The losses against a loop written straight from the formula, by hand, and against torch's own cross
entropy.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from crops.retriever.loss import h_infonce, h_infonce_chunked, info_nce, loss_of, softmax_ce

RIVALS = {
    h_infonce: lambda mine, other: 0 <= other < mine,
    info_nce: lambda _, other: 0 <= other < 4,
    softmax_ce: lambda mine, other: other >= 0 and other != mine,
}


def oracle(scores, labels, loss, first):
    terms = []
    for s, row in zip(scores, labels.tolist(), strict=True):
        for i, mine in enumerate(row):
            if mine >= first:
                rivals = [s[k] for k, other in enumerate(row) if RIVALS[loss](mine, other)]
                terms.append(torch.stack([s[i], *rivals]).logsumexp(0) - s[i])
    return torch.stack(terms).mean()


def some(seed, q=5, d=17, scale=4.0):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 6, (q, d), generator=g)
    labels[:, 0] = 5
    return torch.randn(q, d, generator=g, dtype=torch.float64) * scale, labels


@pytest.mark.parametrize(("loss", "first"), [(h_infonce, 1), (info_nce, 4), (softmax_ce, 1)])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([0.1, 4.0, 100.0]))
def test_equals_the_formula_in_value_and_gradient(loss, first, seed, scale):
    scores, labels = some(seed, scale=scale)
    mine, theirs = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    a, b = loss(mine, labels), oracle(theirs, labels, loss, first)
    a.backward()
    b.backward()
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-10, atol=1e-12)


def test_by_hand():
    """Labels 5, 4, 0, scores log 2, log 1, log 1. Anchor 5: 2/(2+1+1) = 1/2; anchor 4: 1/(1+1) = 1/2; mean of
    -log = log 2.
    """
    loss = h_infonce(torch.tensor([[2.0, 1.0, 1.0]]).log(), torch.tensor([[5, 4, 0]]))
    assert math.isclose(float(loss), math.log(2), rel_tol=1e-6)


def test_one_level_is_plain_infonce():
    scores = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        h_infonce(scores, torch.eye(4, dtype=torch.long)), F.cross_entropy(scores, torch.arange(4))
    )


def test_an_anchor_without_lower_candidates_adds_zero():
    assert float(h_infonce(torch.tensor([[3.0, -1.0]]), torch.tensor([[4, -1]]))) == 0.0


@pytest.mark.parametrize("loss", [h_infonce, info_nce, softmax_ce])
def test_gradcheck(loss):
    scores, labels = some(3, scale=1.0)
    assert torch.autograd.gradcheck(lambda s: loss(s, labels), scores.requires_grad_())


def test_chunked_equals_dense_and_passes_gradcheck():
    g = torch.Generator().manual_seed(1)
    q, d = (torch.randn(n, 6, generator=g, dtype=torch.float64, requires_grad=True) for n in (5, 17))
    tau = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    labels = some(1)[1]
    dense = h_infonce(q @ d.T / tau, labels)
    torch.testing.assert_close(h_infonce_chunked(q, d, labels.to_sparse(), temperature=tau, chunk=2), dense)
    assert torch.autograd.gradcheck(
        lambda a, b, t: h_infonce_chunked(a, b, labels.to_sparse(), temperature=t, chunk=2), (q, d, tau)
    )


def test_finite_at_a_temperature_of_a_hundredth():
    scores = torch.tensor([[1.0, -1.0, 1.0, -1.0, 0.0]]).div(0.01).requires_grad_()
    loss = h_infonce(scores, torch.tensor([[5, 4, 3, 1, 0]]))
    loss.backward()
    assert loss.isfinite()
    assert scores.grad.isfinite().all()


def test_bfloat16_is_summed_in_float32():
    scores, labels = some(2)
    half = scores.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = h_infonce(half, labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert half.grad.dtype == torch.bfloat16
    torch.testing.assert_close(loss, h_infonce(half.detach().float(), labels))


@pytest.mark.parametrize(
    ("scores", "labels", "words"),
    [
        (torch.zeros(1, 2), torch.tensor([[6, 0]]), "-1..5"),
        (torch.zeros(1, 2), torch.tensor([[-2, 4]]), "-1..5"),
        (torch.tensor([[float("nan"), 0.0]]), torch.tensor([[4, 0]]), "NaN"),
        (torch.tensor([[0.0, float("nan")]]), torch.tensor([[4, 0]]), "NaN"),
        (torch.zeros(1, 3), torch.tensor([[4, 0]]), "Q, D"),
        (torch.zeros(1, 2), torch.tensor([[0, 0]]), "anchor"),
        (torch.zeros(1, 2), torch.tensor([[4.0, 0.0]]), "integers"),
    ],
)
def test_bad_input_is_refused(scores, labels, words):
    with pytest.raises(ValueError, match=words):
        h_infonce(scores, labels)


def test_a_chunk_of_any_size_and_a_second_backward_give_the_same():
    g = torch.Generator().manual_seed(1)
    q, d = (torch.randn(n, 6, generator=g, dtype=torch.float64, requires_grad=True) for n in (5, 17))
    labels, tau = some(1)[1].to_sparse(), torch.tensor(0.7, dtype=torch.float64)
    found = []
    for chunk in (None, 1, 3, 99):
        loss = h_infonce_chunked(q, d, labels, temperature=tau, chunk=chunk)
        found += [torch.autograd.grad(loss * 2, (q, d), retain_graph=again) for again in (True, False)]
    for pair in found[1:]:
        torch.testing.assert_close(pair, found[0])


def test_compile_runs_the_loss_as_it_is():
    """Around the loss torch.compile breaks its graph: the same value and gradient, no error."""
    scores, labels = some(4)
    mine, theirs = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    compiled = torch.compile(lambda s: h_infonce(s * 2, labels), backend="eager")
    a, b = compiled(mine), h_infonce(theirs * 2, labels)
    a.backward()
    b.backward()
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(mine.grad, theirs.grad)


def test_a_matrix_of_rivals_is_a_loss_by_hand():
    """Only label 3 rivals 4: scores log 3 (label 4), log 1 (3), log 7 (0). -log(3 / (3 + 1)) = log(4/3)."""
    rivals = np.zeros((6, 6), dtype=bool)
    rivals[4, 3] = True
    scores, labels = torch.tensor([[3.0, 1.0, 7.0]]).log(), torch.tensor([[4, 3, 0]])
    assert math.isclose(float(loss_of(rivals)(scores, labels, anchor_min=4)), math.log(4 / 3), rel_tol=1e-6)


@pytest.mark.parametrize(
    "rivals", [np.ones((6, 6), dtype=bool), np.zeros((5, 5), dtype=bool), np.zeros((6, 6))]
)
def test_a_matrix_that_is_none_of_rivals_is_refused(rivals):
    with pytest.raises(ValueError, match="expected bool"):
        loss_of(rivals)
