"""θ as a stage: what it may learn from."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crops.discriminator import chance, pairs
from crops.discriminator.calibrate import Calibration
from crops.discriminator.cascade import Cascade
from crops.engines import session
from crops.errors import InputError
from crops.stages.learn import discriminate, material, score, theta
from crops.tables import artifacts, records
from tests.crops.stages import toy_release as toy
from tests.crops.stages.lacking import without
from tests.crops.stages.learn.toy_chain import CFG


@pytest.fixture
def house(tmp_path):
    with session.opened("duckdb", scratch=tmp_path / "scratch") as opened:
        yield opened


def test_nothing_is_learnt_from_held_out_days(chain, house):
    """Day 1 shows document 0 of each topic, day 2 document 1: judged pairs hold the first only."""
    texts = {r["doc_id"]: r["text"] for r in toy.DOCUMENTS}
    learnt = material.drawn(house, chain / "logs", chain / "mined", CFG)
    assert learnt.notes == []
    judged = theta.sampled(learnt.judged, texts, CFG.model_copy(update={"random_per_positive": 0.0}))
    assert set(judged.texts) == {texts[toy.doc(t, 0)] for t in range(toy.TOPICS)}
    assert set(judged.queries) == {f"subject{t}" for t in range(toy.TOPICS)}
    assert int(judged.relevant.sum()) == toy.TOPICS


@pytest.mark.parametrize("what", ["plays", "long plays"])
def test_a_log_that_knows_no_long_play_is_judged_by_clicks_above_skips(chain, house, tmp_path, what):
    """In the toy log every click was played for 30 s: the same pairs, with a note."""
    logs = without(what, chain / "logs", tmp_path / "logs")
    learnt = material.drawn(house, logs, chain / "mined", CFG)
    with session.opened("duckdb", scratch=tmp_path / "other") as other:
        whole = material.drawn(other, chain / "logs", chain / "mined", CFG)
    assert learnt.judged.equals(whole.judged)
    assert [note.partition(";")[0] for note in learnt.notes] == ["θ: no long play(s) on the training days"]


def test_a_log_of_clicks_alone_has_random_negatives_and_says_so(chain, house, tmp_path):
    logs = without("impressions", chain / "logs", tmp_path / "logs")
    learnt = material.drawn(house, logs, chain / "mined", CFG)
    assert learnt.judged["relevant"].all()
    assert "no skipped video" in learnt.notes[0]
    texts = {r["doc_id"]: r["text"] for r in toy.DOCUMENTS}
    _cross, _dual, facts = theta.fit(learnt, texts, CFG)
    assert facts["mix"]["negative"] > 0
    assert set(learnt.notes) <= set(facts["notes"])


def test_where_nothing_was_touched_the_message_says_what_to_do(chain, house, tmp_path):
    logs = without("impressions", chain / "logs", tmp_path / "clicks")
    for day in sorted((logs / "results").iterdir())[
        :1
    ]:  # the training day; the held-out one keeps its clicks
        shutil.rmtree(day)
    with pytest.raises(InputError, match=r"hand in days with clicks.*augment\.test_days"):
        material.drawn(house, logs, chain / "mined", CFG)


def test_a_planted_validation_pair_reaches_neither_theta_nor_its_evidence(chain, tmp_path):
    """subject3's clicked and judged video is held out by a twin with the same text under another id: no
    reader, no sample, no score and no neighbour knows it.
    """
    mined, texts = tmp_path / "mined", {r["doc_id"]: r["text"] for r in toy.DOCUMENTS}
    shutil.copytree(chain / "mined", mined)
    twin = {"doc_id": "twin", "text": texts[toy.doc(3, 0)]}
    toy.write(mined, DOCUMENTS=[*toy.DOCUMENTS, twin], VALID_QR=toy.pairs(("subject3", "twin")))
    pair = ("subject3", twin["text"])

    def of(folder):
        known = artifacts.texts(folder)
        with session.opened("duckdb", scratch=tmp_path / "scratch") as opened:
            rows = opened.backend.to_pyarrow(material.learnable(opened, folder)).to_pandas()
            asked = material.drawn(opened, chain / "logs", folder, CFG).judged
        near = pairs.clicked(rows.assign(clicked=rows["perspective"] == "click"), known)
        learnt, read = (set(zip(t["query"], t["doc_id"].map(known), strict=True)) for t in (rows, asked))
        return learnt, read, {(q, text) for q, listed in near.items() for text in listed}

    assert all(pair in each for each in of(chain / "mined"))
    assert not any(pair in each for each in of(mined))
    score.run(chain / "out-theta", mined, tmp_path / "scores")
    discriminate.run(mined, tmp_path / "out", CFG, theta=chain / "out-theta", scores=[tmp_path / "scores"])
    samples = artifacts.read(tmp_path / "out", records.SCORED).to_pylist()
    assert samples
    assert pair not in {(r["query"], artifacts.texts(mined).get(r["doc_id"])) for r in samples}


class Reader:
    """Reads pairs by their topic, with noise: what stands for the two encoders."""

    def __init__(self, texts):
        self.rng, self.chance, self.texts = np.random.default_rng(0), {}, texts

    def read(self, queries, texts, clicked, progress=None):
        same = np.array([q.split("-")[0] == t.split()[0] for q, t in zip(queries, texts, strict=True)])
        theta = np.clip(0.25 + 0.15 * same + self.rng.normal(0, 0.05, len(same)), 0.01, 0.99)
        return theta, np.where(same, 0.6, 0.2) + self.rng.normal(0, 0.1, len(same))


def test_pairs_beyond_the_vocabulary_gap_are_told_from_chance():
    """No text holds a word of its query, and θ by the text is below 0.6 everywhere. A third of the feed pairs
    and half of the reformulations are of the query's own topic; the rest is random.
    """
    rng = np.random.default_rng(1)
    texts = {f"v{n}": f"t{n % 40} video{n}" for n in range(400)}
    rows = []
    for name, share in (("feed", 1 / 3), ("reformulation", 1 / 2), ("exposed", 0.1)):
        for n in range(120):
            for own in rng.random(20) < share:
                video = n % 40 + 40 * int(rng.integers(10)) if own else int(rng.integers(400))
                rows.append((f"t{n % 40}-{n}", f"v{video}", name, 1))
    mined = pd.DataFrame(rows, columns=["query", "doc_id", "perspective", "support"])
    mined = mined.groupby(["query", "doc_id", "perspective"], as_index=False).sum()
    usual = {
        name: chance.marginals(mined[mined["perspective"] == name]) for name in ("feed", "reformulation")
    }

    def learnt(rows):
        return material.Material(None, None, rows, usual, [])

    judge = Reader(texts)
    apart = set(mined["query"].unique()[:60])
    known = theta._chances(judge, learnt(mined), apart, texts, CFG)
    assert set(known) == {"feed", "reformulation"}
    judge.chance = known
    for name, share in (("feed", 1 / 3), ("reformulation", 1 / 2)):
        own = mined[mined["perspective"] == name]
        by_text, nearest = judge.read(own["query"], [texts[d] for d in own["doc_id"]], {})
        held = theta.held(judge, own.assign(theta=by_text, nearest=nearest), name, texts, mined=own)
        right = np.array(
            [q.split("-")[0] == texts[d].split()[0] for q, d in zip(own["query"], own["doc_id"], strict=True)]
        )
        assert (by_text < 0.6).all()
        assert (held[right] > 0.6).mean() > 0.7, name
        assert right[held > 0.6].mean() > 0.9, name
        assert held.mean() == pytest.approx(right.mean(), abs=0.1), (name, share)
    few = mined[mined["query"].isin(sorted(apart)[:20])]
    assert theta._chances(judge, learnt(few), apart, texts, CFG) == {}


def test_in_cascade_the_cross_encoder_reads_only_what_the_dual_encoder_leaves_open(chain, tmp_path):
    """Of the pairs between two planted edges θ is that of both readers, as without a cascade."""
    cfg = CFG.model_copy(update={"cascade": 0.4})
    theta.run(chain / "logs", chain / "mined", tmp_path / "theta", cfg)
    told = artifacts.read_json(tmp_path / "theta/theta.json")["cascade"]
    assert {"edges", "below", "above", "otherwise"} == told.keys()
    judge = theta.load(tmp_path / "theta")
    assert judge.cascade is not None
    texts = [row["text"] for row in toy.DOCUMENTS]
    queries = ["subject1"] * len(texts)
    whole = replace(judge, cascade=None).read(queries, texts, {})[0]
    dual = judge.features(queries, texts)[:, 1]
    low, high = np.quantile(dual, [0.3, 0.8])
    cut = replace(judge, cascade=Cascade(Calibration((1.0,), 0.0), low, high, 0.6), spent=type(judge.spent)())
    read = list[int]()
    theirs = cut.read(queries, texts, {}, progress=read.append)[0]
    between = (dual >= low) & (dual <= high)
    assert 0 < between.sum() < len(texts)
    np.testing.assert_allclose(theirs[between], whole[between], atol=1e-6)
    assert (theirs[dual < low] <= 0.6).all()
    assert (theirs[dual > high] > 0.6).all()
    assert sum(read) == len(texts), "the bar comes to its end"
    assert cut.spent.pairs == {"dual": len(texts), "cross": between.sum()}
    assert cut.spent.numbers()["dual_alone_ratio"] == pytest.approx(1 - between.mean())
