"""One loss for several widths: what MatryoshkaLoss of sentence-transformers makes of the same batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from crops.errors import ConfigError
from crops.retriever import mnrl, step, train
from crops.retriever.batch import Batches, pairs
from tests.crops.retriever import toy_encoder as toy

WIDTHS = (16, 8)


def test_the_loss_and_its_gradients_are_those_of_the_library():
    losses = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    from sentence_transformers import SentenceTransformer

    ours = mnrl._scaled(toy.encoder())
    plan = replace(toy.PLAN, loss="info_nce", widths=WIDTHS)
    queries, texts = toy.TEXTS[:7], toy.TEXTS[7:14]
    ids = ours.tokenize(queries), ours.tokenize(texts)
    found = step.gradients(ours, ids, np.eye(7, dtype=np.int8), plan, step=0)
    theirs = toy.encoder()
    model = SentenceTransformer(modules=[mnrl._module(theirs)], device="cpu")
    rows = [
        model.preprocess([(kind, t) for t in side])
        for kind, side in (("query", queries), ("document", texts))
    ]
    inner = losses.MultipleNegativesRankingLoss(model, scale=mnrl.SCALE)
    loss = losses.MatryoshkaLoss(model, inner, matryoshka_dims=[ours.width, *WIDTHS])(rows, torch.zeros(0))
    loss.backward()
    assert found == pytest.approx(float(loss.detach()), rel=1e-9)
    mine, other = toy.gradients(ours), toy.gradients(theirs)
    mine.pop("log_tau")
    assert mine.keys() == other.keys()
    for name, gradient in mine.items():
        torch.testing.assert_close(gradient, other[name], rtol=1e-7, atol=1e-10)


def test_what_is_trained_for_a_width_is_better_there():
    """The loss of the first 8 numbers alone, after as many steps of the same batch."""
    left = []
    for widths in ((8,), ()):
        encoder, plan = toy.encoder(), replace(toy.PLAN, widths=widths)
        optimizer, batch = step.optimizer_of(encoder, plan), toy.batch(encoder)
        for number in range(plan.steps):
            step.take(encoder, optimizer, *batch, plan, step=number)
        encoder.widths = (8,)
        encoder.cut(8)
        left.append(step.gradients(encoder, *batch, toy.PLAN, step=0))
    assert left[0] < left[1]


def test_a_width_that_is_no_part_of_the_vector_is_refused(tmp_path):
    encoder = toy.encoder()
    rows = [(text, text, 4) for text in toy.TEXTS]
    batches = Batches(pairs(rows), anchor_min=4, size=4, positives=1, lower=0, seed=0)
    plan = replace(toy.PLAN, widths=(32,))
    valid = train.Validation(queries=(), texts=(), relevant=())
    with pytest.raises(ConfigError, match=r"train\.widths holds 32, but the base's vectors have 32 numbers"):
        train.fit(encoder, batches, valid, plan, checkpoints=tmp_path)
