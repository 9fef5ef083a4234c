"""Scores as tasks of their own, in shards."""

import numpy as np
import yaml
from click.testing import CliRunner

from crops.cli import mine
from crops.stages.base import Shard
from crops.stages.learn import score, theta
from crops.tables import artifacts, records
from tests.crops.stages.learn.toy_chain import CFG, run, scored


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


def test_the_verbs_theta_and_score_are_the_halves_of_discriminate(chain, tmp_path):
    """In one go and as its halves in two shards; the tables are those of the stages."""
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"discriminate": CFG.model_dump(mode="json")}))
    given = ["--candidates", chain / "mined", "--config", config]
    logs, knowledge = ["--logs", chain / "logs"], ["--knowledge", chain / "known"]

    def verb(command, out, *options):
        words = [*map(str, (*given, *options, "--out", tmp_path / out))]
        done = CliRunner().invoke(command, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return tmp_path / out

    whole = verb(mine.discriminate, "whole", *logs, *knowledge)
    judge = verb(mine.theta, "theta", *logs)
    parts = [verb(mine.score, f"part{n}", "--theta", judge, "--shard", f"{n}/2") for n in (0, 1)]
    scores = [word for part in parts for word in ("--scores", part)]
    halves = verb(mine.discriminate, "halves", *logs, *knowledge, "--theta", judge, *scores)
    one, two = scored(whole), scored(halves)
    np.testing.assert_allclose(one.pop("theta"), two.pop("theta"), atol=1e-5)
    assert one.equals(two)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["config.yaml", "whole", "theta", "part0", "part1", "halves"]
    ), "nothing is left beside what was asked for"
