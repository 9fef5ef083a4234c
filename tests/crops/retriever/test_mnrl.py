"""clicks_mnrl against sentence-transformers itself: the same loss on the same batch, the same weights after
the same steps, the same recall.
"""

import copy
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from crops.retriever import encoder as encoders
from crops.retriever import loss, mnrl, train
from crops.retriever.batch import pairs
from crops.retriever.step import Plan

TEXTS = tuple(f"video about topic{i % 6} number {i}" for i in range(36))
ROWS = [(f"topic{t}", TEXTS[t + 6 * k], 4) for t in range(6) for k in range(3)]
SAMPLES = pairs([*ROWS, ("topic0", TEXTS[30], 1)])
VALID = train.Validation(
    queries=tuple(f"topic{t}" for t in range(6)),
    texts=TEXTS,
    relevant=tuple(frozenset({t + 24, t + 30}) for t in range(6)),
)
PLAN = Plan(
    loss="mnrl",
    anchor_min=4,
    steps=9,
    horizon=9,
    warmup=0.5,
    check_every=4,
    patience=1,
    learning_rate=1.0,
    temperature_rate=1.0,
    weight_decay=1.0,
    seed=0,
)


@pytest.fixture(scope="module")
def start():
    return encoders.from_base("small", [*TEXTS, *(q for q, _, _ in ROWS)], seed=0)


def plan(size, *, epochs=3):
    return mnrl.plan_of(SAMPLES, PLAN, size=size, epochs=epochs, learning_rate=1e-3)


def test_a_pass_holds_every_clicked_pair_once_and_no_other():
    batches = mnrl.PairBatches(SAMPLES, size=7, seed=0)
    assert (batches.per_epoch, plan(7).steps) == (3, 9), "18 pairs: 7, 7 and 4"
    drawn = [batches.at(step) for step in range(3)]
    assert [len(b.queries) for b in drawn] == [7, 7, 4]
    seen = [
        (SAMPLES.queries[q], SAMPLES.texts[t]) for b in drawn for q, t in zip(b.queries, b.texts, strict=True)
    ]
    assert sorted(seen) == sorted((q, t) for q, t, _ in ROWS)
    assert all((b.labels == np.eye(len(b.queries))).all() for b in drawn)


def test_the_loss_is_the_librarys_on_the_same_batch(start):
    pytest.importorskip("sentence_transformers", reason="extra bench")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    batch = mnrl.PairBatches(SAMPLES, size=7, seed=0).at(0)
    q = torch.from_numpy(start.encode([SAMPLES.queries[i] for i in batch.queries], kind="query"))
    d = torch.from_numpy(start.encode([SAMPLES.texts[i] for i in batch.texts], kind="document"))
    ours = loss.named("info_nce", 1)(q @ d.T * mnrl.SCALE, torch.from_numpy(batch.labels), anchor_min=1)
    model = SentenceTransformer(modules=[mnrl._module(start)], device="cpu")
    theirs = MultipleNegativesRankingLoss(model).compute_loss_from_embeddings([q, d], torch.zeros(0))
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)


def test_whole_batches_give_the_librarys_weights(start):
    """With all pairs in one batch their order does not matter: three steps of each loop must end alike,
    clipping, schedule and optimizer included.
    """
    pytest.importorskip("sentence_transformers", reason="extra bench")
    size = len(ROWS)
    ours, history = fitted(start, size)
    theirs, by_library = mnrl.fit_by_library(
        lambda: copy.deepcopy(start), SAMPLES, VALID, plan(size), size=size
    )
    assert history["best_step"] == by_library["best_step"] == 3
    before, a, b = (e.query.state_dict() for e in (start, ours, theirs))
    moved = torch.cat([(a[n] - before[n]).flatten() for n in a]).norm()
    apart = torch.cat([(a[n] - b[n]).flatten() for n in a]).norm()
    assert float(moved) > 0.1
    # Not less (seen: 0.012): Adam divides by the gradient's size, and where that is near 0, rounding shows.
    assert float(apart / moved) < 0.05
    vectors = [e.encode(TEXTS, kind="document") for e in (start, ours, theirs)]
    assert np.abs(vectors[1] - vectors[2]).max() < np.abs(vectors[1] - vectors[0]).max() / 50
    assert history["best_recall"] == by_library["best_recall"]


def fitted(start, size, *, epochs=3):
    with tempfile.TemporaryDirectory() as folder:
        return mnrl.fit(
            lambda: copy.deepcopy(start),
            SAMPLES,
            VALID,
            plan(size, epochs=epochs),
            size=size,
            checkpoints=Path(folder),
        )


def test_the_library_reads_both_kinds_as_we_do(start):
    """Another prompt for each kind: a pair of the same text trains to other vectors than without prompts."""
    pytest.importorskip("sentence_transformers", reason="extra bench")
    prompted = copy.deepcopy(start)
    prompted.prompts = {"query": "topic1 ", "document": "topic2 "}
    size = len(ROWS)
    ours, _ = fitted(prompted, size)
    theirs, _ = mnrl.fit_by_library(lambda: copy.deepcopy(prompted), SAMPLES, VALID, plan(size), size=size)
    plain, _ = mnrl.fit_by_library(lambda: copy.deepcopy(start), SAMPLES, VALID, plan(size), size=size)
    vectors = [e.encode(TEXTS, kind="document") for e in (ours, theirs, prompted)]
    assert np.abs(vectors[0] - vectors[1]).max() < np.abs(vectors[0] - vectors[2]).max() / 50
    assert float((ours.query.embed_tokens.weight - plain.query.embed_tokens.weight).abs().max()) > 1e-3


def test_the_temperature_stays_and_the_last_step_is_kept(start):
    encoder, history = fitted(start, 7)
    assert float(encoder.log_tau.detach().exp()) == pytest.approx(1 / mnrl.SCALE)
    assert history["best_step"] == 9
    assert history["checks"][-1]["valid_recall_at_100"] == history["best_recall"] == VALID.recall(encoder)
    assert history["encodes"] == 3 * 2 * len(ROWS)


def test_recall_is_the_librarys_within_noise(start):
    """Batches of 6 in another order, 20 passes: recall at 5 of the pairs and of the held-out texts."""
    pytest.importorskip("sentence_transformers", reason="extra bench")
    ours, _ = fitted(start, 6, epochs=20)
    theirs, _ = mnrl.fit_by_library(lambda: copy.deepcopy(start), SAMPLES, VALID, plan(6, epochs=20), size=6)
    assert VALID.recall(ours, 6) == pytest.approx(VALID.recall(theirs, 6), abs=0.1)
