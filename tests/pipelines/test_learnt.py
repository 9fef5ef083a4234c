"""Where a run keeps what it trained."""

import json

import pytest

from crops.errors import InputError
from pipelines import local


def test_of_two_runs_into_one_folder_it_is_the_last_ones(tmp_path):
    with pytest.raises(InputError, match="no finished"):
        local.learnt(tmp_path)
    for run in ("crops-training-1", "crops-training-2"):
        root = tmp_path / ".cache/artifacts" / run
        for task, system in (("train", "base"), ("train-2", "clicks")):
            (root / task / "out").mkdir(parents=True)
            (root / task / "out/train.json").write_text(json.dumps({"system": system}))
        for name in ("augment/out/documents", "label/out/samples"):
            (root / name).mkdir(parents=True)
    trained, documents, samples = local.learnt(tmp_path)
    assert trained == {"base": root / "train/out", "clicks": root / "train-2/out"}
    assert (documents, samples) == (root / "augment/out", root / "label/out")
