"""The discriminator stage on a toy log: nothing of held-out days, knowledge ungated, β on each of its three
paths.
"""

import numpy as np
import pytest

from crops.config.export import ExportConfig
from crops.stages.learn import asking, discriminate
from crops.stages.release import export
from crops.tables import artifacts, records
from tests.crops.stages import toy_release as toy
from tests.crops.stages.learn.toy_chain import CFG, run, scored


def test_rows_and_decisions(chain):
    rows = scored(chain / "out")
    assert "gone" not in set(rows["doc_id"])
    gated = rows["perspective"].isin(["reformulation", "feed"])
    assert rows.loc[gated, "theta"].notna().all()
    np.testing.assert_array_equal(rows.loc[gated, "kept"], rows.loc[gated, "theta"] > 0.6)
    assert rows.loc[~gated, "kept"].all(), "stages, clicks and knowledge are not gated"
    asked = rows[~gated & rows["theta"].notna()].groupby("perspective").size().to_dict()
    assert asked == dict.fromkeys(("click", "exposed", "ranked", "knowledge"), CFG.ladder_pairs)
    test = artifacts.read(chain / "out", records.TEST_QR)
    assert "gone" not in test["video_id"].to_pylist()


def test_thresholds_count_pairs_against_truth(chain):
    """12 reformulated pairs (two later queries each count once), 24 of the feed, half of them of another
    topic.
    """
    report = artifacts.read_json(chain / "out" / "discriminate.json")
    for name, pairs in (("reformulation", 12), ("feed", 24)):
        levels = report["thresholds"][name]
        assert all(level["kept"] + level["dropped"] == pairs for level in levels.values())
        kept = [levels[x]["kept"] for x in sorted(levels)]
        assert kept == sorted(kept, reverse=True)
    assert report["thresholds"]["feed"]["0.6"]["raw"] == 0.5
    assert report["thresholds"]["reformulation"]["0.6"]["raw"] == 1.0
    assert (
        report["similarity"]
        == "query similarity: off (no champion, and token vectors alone are no judge of queries)"
    )


def test_gated_knowledge_by_setting(chain, tmp_path):
    run(
        chain,
        tmp_path / "out",
        CFG.model_copy(update={"gate_knowledge": True, "alpha": 1.0}),
        knowledge=[chain / "known"],
    )
    rows = scored(tmp_path / "out")
    assert not rows.loc[rows["perspective"].isin(["knowledge", "feed", "reformulation"]), "kept"].any()


@pytest.mark.parametrize("path", ["champion", "base"])
def test_beta_drops_reformulations_whose_queries_differ(chain, tmp_path, path):
    """ "subject t" shares a word with "part1 subject t" and none with "keyword11". θ lets all through here; β
    decides alone, and only over reformulations.
    """
    toy.trained(tmp_path / "trained")
    rows = scored(chain / "out")
    if path == "champion":
        export.run(tmp_path / "trained", tmp_path / "held", ExportConfig())
        embed, note = discriminate._embedder(tmp_path / "held", CFG)
    else:
        base = str(tmp_path / "trained" / "encoder")
        embed, note = discriminate._embedder(None, CFG.model_copy(update={"base": base}))
    similarity = asking.Asking(None, {}, {}, {}, embed).similarity(rows)
    assert ("champion" if path == "champion" else "trained") in note
    rows["theta"], rows["similarity"] = 0.9, similarity
    both = (rows["perspective"] == "reformulation").to_numpy()
    far = both & (rows["later_query"] == "keyword11").to_numpy()
    assert np.isnan(similarity[~both]).all()
    if (
        path == "champion"
    ):  # the other one has a tokenizer made up for this test, and its vectors mean nothing
        assert similarity[both & ~far].mean() > similarity[far].mean() + 0.1
    beta = float(np.median(similarity[both]))
    discriminate._decide(rows, CFG.model_copy(update={"beta": beta}), discriminate._Cuts(0.9))
    kept = rows["kept"].to_numpy()
    assert kept[~both].all()
    np.testing.assert_array_equal(kept[both], similarity[both] >= beta)
    assert 0 < kept[both].sum() < both.sum()


def test_a_log_without_long_plays_is_learnt_from_by_clicks_and_says_so(chain, tmp_path):
    """It ended here before; tests/crops/stages/learn/test_theta.py says what the clicks are held against."""
    cfg = CFG.model_copy(update={"long_play_s": 31.0})
    report = discriminate.whole(chain / "logs", chain / "mined", tmp_path / "out", cfg)
    assert report.notes[0].startswith("θ: no long play(s) on the training days")


def test_answers_are_kept_by_proof(chain, tmp_path):
    """subject1's answers: one is what was clicked for it and one repeats it in other case; the third finds
    nothing.
    """
    clicked = next(r["text"] for r in toy.DOCUMENTS if r["doc_id"] == toy.doc(1, 0))
    texts = {"knowledge:a": clicked, "knowledge:b": clicked.upper(), "knowledge:c": "keyword11 subject11"}
    toy.write(
        tmp_path / "known",
        KNOWLEDGE=[
            {"query": "subject1", "doc_id": name, "text": text, "exemplar_id": "", "model": "m"}
            for name, text in texts.items()
        ],
    )
    toy.trained(tmp_path / "trained")
    more = {"base": str(tmp_path / "trained" / "encoder"), "round_trip": 1, "most_alike": 0.999}
    report = run(
        chain,
        tmp_path / "out",
        CFG.model_copy(update=more),
        knowledge=[tmp_path / "known"],
        theta=chain / "out-theta",
    )
    rows = scored(tmp_path / "out")
    kept = dict(zip(rows["doc_id"], rows["kept"], strict=True))
    assert [kept[name] for name in texts] == [True, False, False]
    assert "knowledge: of 3 answers 1 do not find what was clicked, 1 repeat another" in report.notes
