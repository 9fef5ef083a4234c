"""Checks on a sample of the catalogue say what checks on all of it say."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from crops.retriever.validation import Validation

QUERIES, DOCUMENTS, WIDTH = 300, 6_000, 24


class Encoder:
    """Vectors by name; what was encoded stays."""

    def __init__(self, vectors):
        self.vectors, self.encoded = vectors, 0

    def encode(self, texts, *, kind):
        self.encoded += len(texts) * (kind == "document")
        return np.stack([self.vectors[text] for text in texts])


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def made():
    """Queries with three relevant documents each, an encoder that finds few of them, and one that was
    trained: queries move towards what is relevant, and every document a little of its own accord.
    """
    rng = np.random.default_rng(0)
    documents = unit(rng.standard_normal((DOCUMENTS, WIDTH)))
    relevant = [frozenset(rng.choice(DOCUMENTS, 3, replace=False).tolist()) for _ in range(QUERIES)]
    towards = np.stack([documents[list(each)].mean(axis=0) for each in relevant])
    asked = unit(0.25 * unit(towards) + 0.2 * rng.standard_normal((QUERIES, WIDTH)))
    learnt = unit(asked + 0.5 * unit(towards))
    moved = unit(documents + 0.05 * rng.standard_normal(documents.shape))

    def named(queries, texts):
        return Encoder(
            {f"q{n}": v for n, v in enumerate(queries)} | {f"d{n}": v for n, v in enumerate(texts)}
        )

    valid = Validation(
        queries=[f"q{n}" for n in range(QUERIES)],
        texts=[f"d{n}" for n in range(DOCUMENTS)],
        relevant=relevant,
    )
    return valid, named(asked, documents), named(learnt, moved)


@pytest.fixture(scope="module")
def world():
    return made()


def line(count, relevant):
    """One query at the right end of `count` documents on a line."""
    vectors = {f"d{n}": np.array([float(n)]) for n in range(count)} | {"q": np.array([1.0])}
    texts = [f"d{n}" for n in range(count)]
    return Validation(queries=["q"], texts=texts, relevant=[frozenset(relevant)]), Encoder(vectors)


def test_a_sample_by_hand():
    """d0 is relevant, d900 to d999 are the hundred nearest; of the 899 others 199 by chance, each for 4.5."""
    valid, encoder = line(1_000, {0, 950})
    part = valid.sampled(encoder, most=300, seed=0)
    certain = {"d0", *(f"d{n}" for n in range(900, 1_000))}
    assert set(part.texts[:101]) == certain
    assert len(part.texts) == len(set(part.texts)) == 300
    assert {part.texts[row] for row in part.relevant[0]} == {"d0", "d950"}
    assert part.counts[:101].tolist() == [1] * 101
    assert part.counts[101:] == pytest.approx(899 / 199)
    assert part.counts.sum() == pytest.approx(1_000)
    assert part.recalls(encoder).tolist() == valid.recalls(encoder).tolist() == [0.5]
    again, other = (valid.sampled(encoder, most=300, seed=seed) for seed in (0, 1))
    assert part.texts == again.texts != other.texts


def test_where_the_nearest_do_not_fit_fewer_of_each_query_come():
    valid, encoder = line(1_000, {0})
    part = valid.sampled(encoder, most=60, seed=0)
    assert part.texts[:26] == ["d0", *(f"d{n}" for n in range(975, 1_000))]
    assert len(part.texts) == 60


def test_on_the_sample_and_on_all_recall_agrees_within_its_interval(world):
    """A quarter of the catalogue: recall of the encoder that drew it, of one that was trained since, and what
    training gained, each within the bootstrap interval over queries, for every one of ten samples.
    """
    valid, untrained, trained = world
    before, after = valid.recalls(untrained), valid.recalls(trained)
    assert after.mean() - before.mean() > 0.1
    drawn = np.random.default_rng(1).integers(0, QUERIES, (1_000, QUERIES))
    for seed in range(10):
        part = valid.sampled(untrained, most=DOCUMENTS // 4, seed=seed)
        assert len(part.texts) == DOCUMENTS // 4
        ours = part.recalls(untrained), part.recalls(trained)
        for whole, sampled in ((before, ours[0]), (after, ours[1]), (after - before, ours[1] - ours[0])):
            low, high = np.quantile(whole[drawn].mean(axis=1), [0.025, 0.975])
            assert low <= sampled.mean() <= high, seed


def test_scores_of_many_queries_are_taken_in_parts(world, monkeypatch):
    valid, untrained, _ = world
    whole = valid.recalls(untrained)
    monkeypatch.setattr("crops.retriever.validation.SCORES", 7 * DOCUMENTS)
    np.testing.assert_array_equal(valid.recalls(untrained), whole)


RANKS = """
import json, sys
import torch
from crops.retriever.ranks import joined
from tests.crops.retriever.test_validation import made
with joined() as ranks:
    valid, encoder, _ = made()
    encoder.device = torch.device("cpu")
    part = valid.sampled(encoder, most=1_500, seed=0, ranks=ranks)
    told = [valid.recalls(encoder, ranks=ranks).tolist(), part.recalls(encoder, ranks=ranks).tolist()]
    with open(f"{sys.argv[1]}/{ranks.rank}.json", "w") as file:
        json.dump([told, part.texts, encoder.encoded], file)
"""


def test_two_ranks_encode_half_of_the_catalogue_each_and_say_the_same(tmp_path):
    (tmp_path / "ranks.py").write_text(RANKS)
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = {**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*start, str(tmp_path / "ranks.py"), str(tmp_path)],
        env=env,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    valid, encoder, _ = made()
    part = valid.sampled(encoder, most=1_500, seed=0)
    told = [valid.recalls(encoder).tolist(), part.recalls(encoder).tolist()]
    assert first == [told, part.texts, encoder.encoded / 2]
