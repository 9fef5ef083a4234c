"""Scores as tasks of their own, in shards."""

import numpy as np

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
