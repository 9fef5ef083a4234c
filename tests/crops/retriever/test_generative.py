"""The generative retriever: its beams against the probability of every id, a toy that it learns, and its
files.
"""

import hashlib

import numpy as np
import pytest
import torch

from crops.errors import InputError
from crops.retriever import generative, semantic_ids
from crops.retriever.batch import Batches, pairs
from crops.retriever.errors import NothingToTrainOn

DOCUMENTS = 50


@pytest.fixture(scope="module")
def untrained():
    """A model of 50 documents in three digits, and vectors of seven queries."""
    chance = np.random.default_rng(0)
    documents, queries = (chance.normal(size=(n, 8)).astype(np.float32) for n in (DOCUMENTS, 7))
    ids = semantic_ids.made(documents, branches=4)
    assert ids.shape[1] == 3
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    return generative.Generative(semantic_ids.trie(ids), 8, seed=1).eval(), queries


def probabilities(model: generative.Generative, queries: np.ndarray) -> np.ndarray:
    """log P of every document, [Q, D], by scoring each id whole."""
    with torch.inference_mode():
        memory = model.memory(torch.from_numpy(queries))
        rows = torch.arange(DOCUMENTS)
        return np.stack([model(one.expand(DOCUMENTS, -1, -1), rows).numpy() for one in memory])


def test_the_probabilities_of_all_documents_sum_to_one(untrained):
    assert np.exp(probabilities(*untrained)).sum(axis=1) == pytest.approx(np.ones(7), abs=1e-5)


def test_with_enough_beams_the_ranking_is_that_of_every_id_scored_whole(untrained):
    model, queries = untrained
    ranked, scores = model.rank(queries, DOCUMENTS), probabilities(model, queries)
    assert (np.sort(ranked, axis=1) == np.arange(DOCUMENTS)).all()
    for one, of_one in zip(ranked, scores, strict=True):
        assert of_one[one] == pytest.approx(np.sort(of_one)[::-1], abs=1e-5)


@pytest.mark.parametrize("depth", [1, 3, 10, 49])
def test_with_few_beams_it_still_names_documents_that_exist_and_each_once(untrained, depth):
    model, queries = untrained
    ranked = model.rank(queries, depth)
    assert ranked.shape == (7, depth)
    assert ((ranked >= 0) & (ranked < DOCUMENTS)).all()
    assert all(len(set(row)) == depth for row in ranked.tolist())
    scores = np.take_along_axis(probabilities(model, queries), ranked, axis=1)
    assert (np.diff(scores, axis=1) <= 1e-5).all()


def test_of_equally_likely_documents_the_lower_row_comes_first(untrained):
    """Without weights every digit that exists is as likely as any other: 4 documents in 2 clusters of 2."""
    ids = np.array([[1, 1], [0, 0], [1, 0], [0, 1]])
    model = generative.Generative(semantic_ids.trie(ids), 8).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    assert model.rank(untrained[1], 4).tolist() == [[0, 1, 2, 3]] * 7


class Vectors:
    """In an encoder's place: texts to vectors that say nothing of one another."""

    width, device = 32, torch.device("cpu")

    def encode(self, texts, *, kind):
        names = [
            int.from_bytes(hashlib.blake2b(f"{kind} {t}".encode(), digest_size=4).digest()) for t in texts
        ]
        drawn = np.stack([np.random.default_rng(n).normal(size=self.width) for n in names])
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


TEXTS = [f"text {n}" for n in range(24)]
ASKED = [f"query {n}" for n in range(23)]  # of the text with the same number; the last text is nobody's


def batches(rows):
    return Batches(pairs(rows), anchor_min=4, size=8, positives=8, lower=1, seed=0)


def toy():
    return batches([(query, text, 4) for query, text in zip(ASKED, TEXTS, strict=False)])


def test_it_learns_a_toy_and_says_the_same_after_it_was_saved(tmp_path):
    """No vector is near another: which query means which text is only in the samples."""
    trained = generative.fit(Vectors(), toy(), TEXTS, seed=0)
    assert trained.steps == generative.LEAST_STEPS
    queries, documents = Vectors().encode(ASKED, kind="query"), Vectors().encode(TEXTS, kind="document")
    ranked = trained.model.rank(queries, 5)
    assert np.mean(ranked[:, 0] == np.arange(23)) > 0.9
    assert np.mean(trained.model.rank(documents, 1)[:, 0] == np.arange(24)) > 0.9
    trained.model.save(tmp_path / "saved", TEXTS)
    assert (generative.load(tmp_path / "saved", TEXTS).rank(queries, 5) == ranked).all()
    with pytest.raises(InputError, match="another catalogue"):
        generative.load(tmp_path / "saved", TEXTS[1:])


def test_the_same_seed_is_the_same_training(monkeypatch):
    monkeypatch.setattr(generative, "LEAST_STEPS", 4)
    monkeypatch.setattr(generative, "PASSES", 1)

    def ranked(seed):
        model = generative.fit(Vectors(), toy(), TEXTS, seed=seed).model
        return model.rank(Vectors().encode(ASKED, kind="query"), 9)

    assert (ranked(0) == ranked(0)).all()
    assert (ranked(0) != ranked(1)).any()


def test_a_grade_is_a_weight_and_what_has_no_id_is_left_out():
    """Labels 5 and 4 of one query count 2 and 1, another's 4 counts 1. Label 3 and an answer: nothing."""
    rows = [("q", TEXTS[0], 5), ("q", TEXTS[1], 4), ("q", TEXTS[2], 3), ("q", "an answer", 5)]
    drawn = batches([*rows, ("other", TEXTS[3], 4)])
    row_of = np.array([TEXTS.index(t) if t in TEXTS else -1 for t in drawn.samples.texts])
    asked = generative._asked(drawn.at(0), row_of, drawn.samples.positive_min)
    weights = dict(zip(asked.rows.tolist(), asked.weights.tolist(), strict=True))
    assert weights == pytest.approx({0: 2 / 4, 1: 1 / 4, 3: 1 / 4})
    none = batches([("q", "an answer", 5), ("p", "another", 4)])
    with pytest.raises(NothingToTrainOn):
        generative.fit(Vectors(), none, TEXTS)
