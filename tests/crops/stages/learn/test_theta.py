"""θ as a stage: what it may learn from."""

from crops.stages.learn import theta
from tests.crops.stages import toy_release as toy
from tests.crops.stages.learn.toy_chain import CFG


def test_nothing_is_learnt_from_held_out_days(chain):
    """Day 1 shows document 0 of each topic, day 2 document 1: judged pairs hold the first only."""
    texts = {r["doc_id"]: r["text"] for r in toy.DOCUMENTS}
    rows = theta.judged(chain / "logs", chain / "mined", long_play_s=CFG.long_play_s)
    judged = theta.sampled(rows, texts, CFG.model_copy(update={"random_per_positive": 0.0}))
    assert set(judged.texts) == {texts[toy.doc(t, 0)] for t in range(toy.TOPICS)}
    assert set(judged.queries) == {f"subject{t}" for t in range(toy.TOPICS)}
    assert int(judged.relevant.sum()) == toy.TOPICS
