"""θ learns a toy task, and its scores depend on the pair alone: not on the batch, the order or the
repetition.
"""

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from crops.discriminator import calibrate, model, pairs, score, train

COLOURS = [f"colour{n}" for n in range(8)]
TEXTS = [f"{c} thing number {n} of {n % 3}" for n, c in enumerate(COLOURS * 6)]


@pytest.fixture(scope="module")
def learnt():
    """Relevant where the text holds the query's colour; the last two colours are held out."""
    rows = [(c, t, float(t.startswith(c))) for c in COLOURS for t in TEXTS]
    keep = [r for n, r in enumerate(rows) if r[2] or n % 5 == 0]
    judged = pairs.Judged(
        [r[0] for r in keep],
        [r[1] for r in keep],
        np.array([r[2] for r in keep], np.float32),
        np.array([r[0] in COLOURS[6:] for r in keep]),
    )
    encoder = model.build("small", [*TEXTS, *COLOURS], max_tokens=32, seed=0)
    losses = train.fit(encoder, judged, epochs=8, batch=16, learning_rate=1e-3, seed=0)
    return encoder, judged, losses


def test_it_learns_the_task_on_queries_it_never_saw(learnt):
    encoder, judged, losses = learnt
    assert losses[-1] < losses[0] / 2
    held = np.flatnonzero(judged.held_out)
    logits = score.logits(encoder, [judged.queries[i] for i in held], [judged.texts[i] for i in held])
    assert calibrate.auc(logits, judged.relevant[held]) > 0.95


def test_scores_do_not_depend_on_batch_or_order(learnt):
    encoder, judged, _losses = learnt
    queries, texts = judged.queries[:60], judged.texts[:60]
    texts = [t + " more words" * (n % 5) for n, t in enumerate(texts)]
    together = score.logits(encoder, queries, texts)
    shuffled = np.random.default_rng(0).permutation(60)
    other = score.logits(
        encoder, [queries[i] for i in shuffled], [texts[i] for i in shuffled], batch_tokens=64
    )
    np.testing.assert_allclose(together[shuffled], other, atol=2e-5)
    alone = [score.logits(encoder, [q], [t])[0] for q, t in zip(queries[:10], texts[:10], strict=True)]
    np.testing.assert_allclose(together[:10], alone, atol=2e-5)


def test_each_distinct_pair_is_scored_once(learnt):
    encoder, _judged, _losses = learnt
    counted = []
    queries, texts = ["colour1", "colour2", "colour1", "colour1"], [TEXTS[0], TEXTS[0], TEXTS[0], TEXTS[1]]
    found = score.logits(encoder, queries * 50, texts * 50, progress=counted.append)
    assert sum(counted) == 3
    assert len(found) == 200
    assert found[0] == found[2] == found[198]
    assert score.logits(encoder, [], []).shape == (0,)


def test_texts_are_normalised_and_cut(learnt):
    encoder, _judged, _losses = learnt
    one = encoder.tokenize(["  Ｃolour1 "], ["COLOUR1  thing"])
    assert one == encoder.tokenize(["colour1"], ["colour1 thing"])
    for ids, segments in encoder.tokenize(["word " * 500, "", "q"], ["text " * 500, "", "東京 \x00 \u200b"]):
        assert 1 <= len(ids) == len(segments) <= encoder.max_tokens
    assert np.isfinite(score.logits(encoder, ["", "word " * 500], ["", "text " * 500])).all()


def test_words_of_the_query_are_marked_in_the_text(learnt):
    encoder, _judged, _losses = learnt
    ((ids, segments),) = encoder.tokenize(["colour1"], ["colour1 colour2"])
    assert segments.count(model.MATCH) >= 1
    assert segments.count(model.OTHER) >= 1
    place = segments.index(model.MATCH)
    assert ids[place] in ids[: segments.count(model.QUERY) - 1]


def test_the_same_seed_gives_the_same_theta():
    judged = pairs.Judged(COLOURS, TEXTS[:8], np.array([1.0, 0.0] * 4, np.float32), np.zeros(8, bool))
    weights = []
    for _ in range(2):
        encoder = model.build("small", TEXTS, max_tokens=16, seed=1)
        train.fit(encoder, judged, epochs=2, batch=4, learning_rate=1e-3, seed=1)
        weights.append(encoder.model.state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_pretrained_base_keeps_its_own_segments(tmp_path, learnt):
    """A Hugging Face folder made here stands for the paper's pre-trained Transformer."""
    tokenizer = learnt[0].tokenizer
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        pad_token_id=tokenizer.pad_token_id,
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    encoder = model.build(str(tmp_path / "base"), [], max_tokens=16, seed=0)
    assert not encoder.small
    assert score.logits(encoder, ["colour1"] * 2, ["colour1 thing", "word " * 100]).shape == (2,)
