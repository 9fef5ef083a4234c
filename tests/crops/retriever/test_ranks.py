"""`torchrun -m crops train` with two ranks: one writes, and after a killed rank the same command ends with
the same weights.
"""

import os
import subprocess
import sys

import pytest
import yaml

from tests.crops.stages.learn.test_train import CFG, toy

KILL = """
import os, signal
from crops.cli.main import run
from crops.retriever import step
take = step.take
def taken(*args, **more):
    if os.environ["RANK"] == "1" and more["step"] == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return take(*args, **more)
step.take = taken
run()
"""


def torchrun(*command: str) -> subprocess.CompletedProcess:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command]
    env = {**os.environ, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1"}
    return subprocess.run(start, env=env, check=False, capture_output=True, text=True)


@pytest.mark.slow
def test_a_killed_rank_and_the_same_command_again(tmp_path):
    data = str(toy(tmp_path / "in"))
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"train": {**CFG.model_dump(), "cache_tokens": 32}}))
    (tmp_path / "kill.py").write_text(KILL)
    asked = (
        "train",
        "--samples",
        data,
        "--documents",
        data,
        "--system",
        "crops_paper",
        "--config",
        str(config),
        "--out",
    )

    whole = torchrun("-m", "crops", *asked, str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    died = torchrun(str(tmp_path / "kill.py"), *asked, str(tmp_path / "killed"))
    assert died.returncode != 0
    assert not (tmp_path / "killed").exists()
    assert list((tmp_path / ".killed.checkpoints").rglob("latest")), died.stderr
    again = torchrun("-m", "crops", *asked, str(tmp_path / "killed"))
    assert again.returncode == 0, again.stderr
    for name in ("train.json", "encoder/model.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    assert not list((tmp_path / ".killed.checkpoints").rglob("latest"))
