"""The last fit on a toy log of two days: what it learns from, what it may not touch, and that a fit that went
wrong is not released.
"""

import numpy as np
import pytest

from crops.config.augment import AugmentConfig
from crops.config.label import LabelConfig
from crops.config.train import TrainConfig
from crops.release import card, layout
from crops.retriever import encoder as encoders
from crops.stages.learn import discriminate, label, refit, train
from crops.stages.logs import augment
from crops.tables import artifacts, records
from tests import shared
from tests.crops.stages import toy_release as toy
from tests.crops.stages.learn import toy_chain

TRAIN = TrainConfig(base="small", steps=12, check_every=3, batch_queries=4, last_fit=True)
CFG = refit.Settings(augment=AugmentConfig(), discriminate=toy_chain.CFG, label=LabelConfig(), train=TRAIN)


def chosen(root):
    """Mined, gated and graded without day 2, and the challenger trained on it, as if step 6 had been best."""
    chain = shared.made("discriminated", toy_chain.make)
    augment.run(chain / "logs", root / "mined", CFG.augment)
    discriminate.run(root / "mined", root / "scored", CFG.discriminate, theta=chain / "out-theta")
    label.run(root / "scored", root / "samples", CFG.label)
    train.run(root / "samples", root / "mined", root / "crops", TRAIN)
    facts = artifacts.read_json(root / "crops/train.json")
    artifacts.write_json(root / "crops/train.json", {**facts, "best_step": 6})


@pytest.fixture
def made():
    return shared.made("chosen", chosen)


def run(made, out, cfg=CFG):
    chain = shared.made("discriminated", toy_chain.make)
    return refit.run(made / "crops", chain / "logs", made / "mined", out, cfg, theta=chain / "out-theta")


def vectors(folder):
    return encoders.load(folder).encode(["subject1", "subject2"], kind="query")


def test_it_learns_from_the_held_out_day_but_for_what_it_is_checked_by(made, tmp_path, monkeypatch):
    """Day 2 clicks document 1 of each of the 12 topics, which no earlier day holds: 3 queries stay untouched.
    Of 12 steps 6 were kept, and there are as many queries as before: 6 steps.
    """
    monkeypatch.setattr(refit, "MIN_QUERIES", 3)
    seen = {}

    def fitted(cfg, inputs, plans, **more):
        seen["samples"], seen["plan"] = inputs.samples, plans[0]
        assert not inputs.valid.queries, "nothing may be chosen by what the check is made on"
        return train_fitted(cfg, inputs, plans, **more)

    train_fitted = train.fitted
    monkeypatch.setattr(train, "fitted", fitted)
    report = run(made, tmp_path / "out")
    assert report.numbers == {"refitted": 1, "steps": 6}
    assert (seen["plan"].steps, seen["plan"].horizon) == (6, 12)
    rows = seen["samples"]
    labels = {
        (rows.queries[q], rows.texts[t]): n
        for q, t, n in zip(rows.query, rows.text, rows.label.tolist(), strict=True)
    }
    texts = {r["doc_id"]: r["text"] for r in toy.DOCUMENTS}
    newest = [labels.get((f"subject{t}", texts[toy.doc(t, 1)]), -1) for t in range(toy.TOPICS)]
    assert (newest.count(4), newest.count(-1)) == (toy.TOPICS - 3, 3)
    oldest = [labels[f"subject{t}", texts[toy.doc(t, 0)]] for t in range(toy.TOPICS)]
    assert set(oldest) == {4}
    day = artifacts.read_json(tmp_path / "out/encoder" / layout.ENCODER)[layout.LAST_FIT]
    assert day == toy_chain.DAYS[1]
    assert artifacts.read_json(tmp_path / "out/train.json")[layout.LAST_FIT]["released"]
    assert not np.allclose(vectors(tmp_path / "out"), vectors(made / "crops"))


def test_a_fit_that_went_wrong_is_not_released(made, tmp_path, monkeypatch):
    """Planted: an encoder that finds nothing."""
    monkeypatch.setattr(refit, "MIN_QUERIES", 3)

    class Lost:
        def encode(self, texts, kind="query"):
            side = 1.0 if kind == "query" else -1.0
            return np.array([[side * len(text), 1.0] for text in texts], dtype=np.float32)

    monkeypatch.setattr(refit.retriever.Validation, "recalls", recalls_at_1)
    monkeypatch.setattr(train, "fitted", lambda *_args, **_more: (Lost(), {}, None))
    report = run(made, tmp_path / "out")
    assert report.numbers == {"refitted": 0}
    assert "the measured encoder is released" in report.notes[0]
    np.testing.assert_array_equal(vectors(tmp_path / "out"), vectors(made / "crops"))
    assert not artifacts.read_json(tmp_path / "out/train.json")[layout.LAST_FIT]["released"]


def recalls_at_1(self, encoder):
    """In a catalogue of 180 texts nearly everything is among the first 100."""
    query, documents = encoder.encode(self.queries, kind="query"), encoder.encode(self.texts, kind="document")
    best = (query @ documents.T).argmax(axis=1)
    subject = [self.texts[d].split()[0] for d in best]
    return np.array([float(name == query) for name, query in zip(subject, self.queries, strict=True)])


def test_too_few_untouched_queries_cannot_tell_and_the_measured_one_stays(made, tmp_path):
    """12 queries of the held-out day: half of them are less than 30."""
    report = run(made, tmp_path / "out")
    assert report.numbers == {"refitted": 0}
    assert "6 queries, 30 are needed to tell" in report.notes[0]
    np.testing.assert_array_equal(vectors(tmp_path / "out"), vectors(made / "crops"))


def test_switched_off_it_hands_the_encoder_on_and_says_nothing(made, tmp_path):
    off = refit.Settings(
        augment=CFG.augment,
        discriminate=CFG.discriminate,
        label=CFG.label,
        train=TRAIN.model_copy(update={"last_fit": False}),
    )
    report = run(made, tmp_path / "out", off)
    assert report.notes == ()
    for name in ("train.json", "encoder/model.safetensors", "encoder/encoder.json"):
        assert (tmp_path / "out" / name).read_bytes() == (made / "crops" / name).read_bytes()


def test_all_days_are_mined_and_none_is_held_out(made, tmp_path):
    chain = shared.made("discriminated", toy_chain.make)
    augment.whole(chain / "logs", tmp_path / "all", CFG.augment)
    days = artifacts.read_json(tmp_path / "all/augment.json")["days"]
    assert days == {"train": list(toy_chain.DAYS), "valid": [], "test": []}
    rows = artifacts.read(tmp_path / "all", records.CANDIDATES).to_pylist()
    clicked = {(r["query"], r["video_id"]) for r in rows if r["perspective"] == "click"}
    assert clicked == {(f"subject{t}", toy.doc(t, d)) for t in range(toy.TOPICS) for d in (0, 1)}
    assert not artifacts.rows(tmp_path / "all", records.TEST_CT)
    assert {r["split"] for r in artifacts.read(tmp_path / "all", records.QUERIES).to_pylist()} == {"train"}


def test_the_card_says_that_its_figures_are_of_the_model_before():
    shown = {"name": "n", "alias": "challenger", "licence": "mit", "data": {}, "recall": {}}
    decided = {"verdict": "promote", "reasons": []}
    about = {"width": 4, "max_tokens": 8, "pooling": "mean"}
    assert "last fit" not in card.text(encoder=about, decided=decided, **shown)
    fitted = card.text(encoder={**about, layout.LAST_FIT: "2026-01-02"}, decided=decided, **shown)
    assert "before its last fit" in fitted
    assert "until 2026-01-02" in fitted
