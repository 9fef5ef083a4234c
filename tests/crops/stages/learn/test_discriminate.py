"""The discriminator stage on a toy log: nothing of held-out days, knowledge ungated, β on each of its three
paths; and the samples and the ladder that the label stage makes of it.
"""

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from crops.config.discriminate import DiscriminateConfig
from crops.config.export import ExportConfig
from crops.config.label import LabelConfig
from crops.errors import InputError
from crops.stages.base import Shard
from crops.stages.learn import discriminate, label, score, theta
from crops.stages.release import export
from crops.tables import artifacts, records
from tests.crops.stages import toy_release as toy

CFG = DiscriminateConfig(epochs=2, batch=16, max_tokens=32, ladder_pairs=4, held_out_share=0.5)
DAYS = ("2026-01-01", "2026-01-02")


def log(folder):
    """Per day and topic one search: a skipped video of another topic above a long play of the own one. Day 2
    is held out.
    """
    searches, results = [], []
    for d, day in enumerate(DAYS):
        for t in range(toy.TOPICS):
            name, ts = f"s{d}_{t}", dt.datetime(2026, 1, 1 + d, 12, tzinfo=dt.UTC)
            searches.append(
                {"search_id": name, "user_id": "u", "ts": ts, "query": f"Subject{t}", "date": day}
            )
            for place, (topic, clicked) in enumerate((((t + 5) % toy.TOPICS, False), (t, True))):
                results.append(
                    {
                        "search_id": name,
                        "video_id": toy.doc(topic, d),
                        "stage": "exposed",
                        "position": place,
                        "clicked": clicked,
                        "liked": False,
                        "play_s": 30.0 if clicked else None,
                        "date": day,
                    }
                )
    videos = [
        {
            "video_id": r["doc_id"],
            "caption": r["text"],
            "keywords": [],
            "cover_text": "",
            "related_queries": [],
            "duration_s": 60.0,
        }
        for r in toy.DOCUMENTS
    ]
    folder.mkdir()
    for table, content in (
        (records.SEARCHES, searches),
        (records.RESULTS, results),
        (records.VIDEOS, videos),
    ):
        fields = [f.with_nullable(True) for f in table.schema] + (
            [pa.field("date", pa.string())] if table.partitioned else []
        )
        artifacts.write(folder, table, pa.Table.from_pylist(content, schema=pa.schema(fields)))
    return folder


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    root = tmp_path_factory.mktemp("discriminate")
    log(root / "logs"), toy.mined(root / "mined")
    more = [
        {
            "query": f"subject{t}",
            "video_id": toy.doc(t, 9),
            "perspective": "reformulation",
            "later_query": later,
            "first_ts": 0,
            "support": 1,
        }
        for t in range(toy.TOPICS)
        for later in (f"part1 subject{t}", "keyword11")
    ]
    feed = [
        {
            "query": f"subject{t}",
            "video_id": toy.doc((t + n) % 12, 8),
            "perspective": "feed",
            "first_ts": 0,
            "support": 1,
        }
        for t in range(toy.TOPICS)
        for n in (0, 3)
    ]
    gone = [{"query": "subject1", "video_id": "gone", "perspective": "click", "first_ts": 0, "support": 1}]
    toy.write(
        root / "mined",
        CANDIDATES=[*toy.candidates(), *more, *feed, *gone],
        TEST_QR=toy.pairs(
            *((f"part{t} subject{t}", toy.doc(t, 1)) for t in range(toy.TOPICS)), ("subject1", "gone")
        ),
    )
    artifacts.write_json(root / "mined" / "augment.json", {"days": {"train": [DAYS[0]], "test": [DAYS[1]]}})
    toy.write(
        root / "known",
        KNOWLEDGE=[
            {
                "query": f"subject{t}",
                "doc_id": f"knowledge:{t}",
                "text": "nothing in common",
                "exemplar_id": "",
                "model": "m",
            }
            for t in range(toy.TOPICS)
        ],
    )
    toy.write(root / "truth", RELEVANCE=toy.truth())
    run(root, root / "out", knowledge=[root / "known"], truth=root / "truth")
    return root


def run(root, out, cfg=CFG, **more):
    if "theta" not in more:
        more["theta"] = out.with_name(f"{out.name}-theta")
        theta.run(root / "logs", root / "mined", more["theta"], cfg)
    return discriminate.run(root / "mined", out, cfg, **more)


def scored(folder):
    return artifacts.read(folder, records.SCORED).to_pandas()


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


def test_nothing_is_learnt_from_held_out_days(chain):
    """Day 1 shows document 0 of each topic, day 2 document 1: judged pairs hold the first only."""
    texts = {r["doc_id"]: r["text"] for r in toy.DOCUMENTS}
    rows = theta.judged(chain / "logs", chain / "mined", long_play_s=CFG.long_play_s)
    judged = theta.sampled(rows, texts, CFG.model_copy(update={"random_per_positive": 0.0}))
    assert set(judged.texts) == {texts[toy.doc(t, 0)] for t in range(toy.TOPICS)}
    assert set(judged.queries) == {f"subject{t}" for t in range(toy.TOPICS)}
    assert int(judged.relevant.sum()) == toy.TOPICS


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
    assert report["similarity"] == "query similarity: off (no champion and no pre-trained base)"


def test_as_tasks_of_their_own_theta_and_scores_give_the_same_tables(chain, tmp_path):
    """The pipeline scores P1 and P2 in tasks of their own; without them the stage scores all pairs itself."""
    theta.run(chain / "logs", chain / "mined", tmp_path / "theta", CFG)
    parts = [tmp_path / name for name in ("reformulation", "feed-0", "feed-1")]
    score.run(tmp_path / "theta", chain / "mined", parts[0], perspective="reformulation")
    for n in (0, 1):
        score.run(tmp_path / "theta", chain / "mined", parts[1 + n], perspective="feed", shard=Shard(n, 2))
    run(
        chain,
        tmp_path / "out",
        knowledge=[chain / "known"],
        truth=chain / "truth",
        theta=tmp_path / "theta",
        scores=parts,
    )
    one, many = scored(chain / "out"), scored(tmp_path / "out")
    np.testing.assert_allclose(one.pop("theta"), many.pop("theta"), atol=1e-5)  # other batches, other padding
    assert one.equals(many)
    assert artifacts.read(chain / "out", records.TEST_QR).equals(
        artifacts.read(tmp_path / "out", records.TEST_QR)
    )
    reports = [
        artifacts.read_json(folder / "discriminate.json") for folder in (chain / "out", tmp_path / "out")
    ]
    assert reports[0]["thresholds"] == reports[1]["thresholds"]


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
    texts = {r["doc_id"]: r["text"] for r in toy.DOCUMENTS}
    rows = discriminate._rows(chain / "mined", records.KNOWLEDGE.schema.empty_table(), texts)
    if path == "champion":
        export.run(tmp_path / "trained", tmp_path / "held", ExportConfig())
        similarity, how = discriminate._similarity(rows, tmp_path / "held", CFG)
    else:
        base = str(tmp_path / "trained" / "encoder")
        similarity, how = discriminate._similarity(rows, None, CFG.model_copy(update={"base": base}))
    assert ("champion" if path == "champion" else "trained") in how
    rows["theta"] = 0.9
    both = (rows["perspective"] == "reformulation").to_numpy()
    far = both & (rows["later_query"] == "keyword11").to_numpy()
    assert np.isnan(similarity[~both]).all()
    if (
        path == "champion"
    ):  # the other one has a tokenizer made up for this test, and its vectors mean nothing
        assert similarity[both & ~far].mean() > similarity[far].mean() + 0.1
    beta = float(np.median(similarity[both]))
    discriminate._decide(rows, similarity, CFG.model_copy(update={"beta": beta}))
    kept = rows["kept"].to_numpy()
    assert kept[~both].all()
    np.testing.assert_array_equal(kept[both], similarity[both] >= beta)
    assert 0 < kept[both].sum() < both.sum()


def test_a_log_without_long_plays_is_one_line(chain, tmp_path):
    with pytest.raises(InputError, match="nothing to learn from"):
        run(chain, tmp_path / "out", CFG.model_copy(update={"long_play_s": 31.0}))
    assert not (tmp_path / "out").exists()


def test_labels_of_it(chain, tmp_path):
    report = label.run(chain / "out", tmp_path / "out", LabelConfig(hierarchy="paper"), truth=chain / "truth")
    found = artifacts.read_json(tmp_path / "out" / "label.json")
    assert found["hierarchy"]["anchor_min_candidates"] == [1]
    samples = artifacts.read(tmp_path / "out", records.SAMPLES).to_pandas()
    assert len(samples) == len(samples.drop_duplicates(["query", "doc_id"])) == report.numbers["samples"]
    assert set(samples.loc[samples["perspective"] == "knowledge", "label"]) == {4}
    # Exposed: n = 1, 4 of each topic, both relevant; ranked: n = 2 and 5, both relevant too.
    assert found["rungs"]["truth"]["3"] == found["rungs"]["truth"]["2"]
    assert found["rungs"]["truth"]["3"]["share"] == 1.0


def test_a_pair_counts_in_the_ladder_under_its_final_label_only(chain, tmp_path):
    """One pair clicked and exposed, one exposed only: label 3 has one pair, not two."""
    one = {"query": "q", "later_query": None, "first_ts": 0, "support": 1, "kept": True}
    rows = [
        {**one, "doc_id": "a", "perspective": "click", "theta": 0.9},
        {**one, "doc_id": "a", "perspective": "exposed", "theta": 0.9},
        {**one, "doc_id": "b", "perspective": "exposed", "theta": 0.2},
    ]
    toy.write(tmp_path / "scored", SCORED=rows, KNOWLEDGE=[])
    label.run(tmp_path / "scored", tmp_path / "out", LabelConfig())
    found = artifacts.read_json(tmp_path / "out" / "label.json")
    assert {k: v["pairs"] for k, v in found["rungs"]["theta"].items()} == {"4": 1, "3": 1}
    assert found["ladder"]["3"] == pytest.approx(0.2)
    toy.write(tmp_path / "none", SCORED=[rows[2]], KNOWLEDGE=[])
    with pytest.raises(InputError, match="no positive pair is kept"):
        label.run(tmp_path / "none", tmp_path / "never", LabelConfig())
