"""θ as a stage: what it may learn from."""

import shutil

import pytest

from crops.errors import InputError
from crops.stages.learn import theta
from tests.crops.stages import toy_release as toy
from tests.crops.stages.lacking import without
from tests.crops.stages.learn.toy_chain import CFG


def test_nothing_is_learnt_from_held_out_days(chain):
    """Day 1 shows document 0 of each topic, day 2 document 1: judged pairs hold the first only."""
    texts = {r["doc_id"]: r["text"] for r in toy.DOCUMENTS}
    rows, lacks = theta.judged(chain / "logs", chain / "mined", long_play_s=CFG.long_play_s)
    assert lacks == []
    judged = theta.sampled(rows, texts, CFG.model_copy(update={"random_per_positive": 0.0}))
    assert set(judged.texts) == {texts[toy.doc(t, 0)] for t in range(toy.TOPICS)}
    assert set(judged.queries) == {f"subject{t}" for t in range(toy.TOPICS)}
    assert int(judged.relevant.sum()) == toy.TOPICS


@pytest.mark.parametrize("what", ["plays", "long plays"])
def test_a_log_that_knows_no_long_play_is_judged_by_clicks_above_skips(chain, tmp_path, what):
    """In the toy log every click was played for 30 s: the same pairs, with a note."""
    logs = without(what, chain / "logs", tmp_path / "logs")
    rows, lacks = theta.judged(logs, chain / "mined", long_play_s=CFG.long_play_s)
    whole, _ = theta.judged(chain / "logs", chain / "mined", long_play_s=CFG.long_play_s)
    assert rows.equals(whole)
    assert [note.partition(";")[0] for note in lacks] == ["θ: no long play(s) on the training days"]


def test_a_log_of_clicks_alone_has_random_negatives_and_says_so(chain, tmp_path):
    logs = without("impressions", chain / "logs", tmp_path / "logs")
    rows, lacks = theta.judged(logs, chain / "mined", long_play_s=CFG.long_play_s)
    assert rows["relevant"].all()
    assert "no skipped video" in lacks[0]
    _cross, _dual, facts = theta.fit(
        logs, chain / "mined", {r["doc_id"]: r["text"] for r in toy.DOCUMENTS}, CFG
    )
    assert facts["mix"]["negative"] > 0
    assert set(lacks) <= set(facts["notes"])


def test_where_nothing_was_touched_the_message_says_what_to_do(chain, tmp_path):
    logs = without("impressions", chain / "logs", tmp_path / "clicks")
    for day in sorted((logs / "results").iterdir())[
        :1
    ]:  # the training day; the held-out one keeps its clicks
        shutil.rmtree(day)
    with pytest.raises(InputError, match=r"hand in days with clicks.*augment\.test_days"):
        theta.judged(logs, chain / "mined", long_play_s=CFG.long_play_s)
