"""What a training leaves to go on from."""

import pytest
import torch
from safetensors import SafetensorError

from crops.errors import StorageError
from crops.retriever import checkpoint


def test_a_disk_that_fills_up_while_it_trains_is_said_with_the_folder(tmp_path, monkeypatch):
    def full(*_given):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    model = torch.nn.Linear(2, 2)
    with pytest.raises(StorageError, match=f"{tmp_path.name}/kept: cannot write: No space left"):
        checkpoint.save(
            model, torch.optim.Adam(model.parameters()), tmp_path / "kept", {"step": 0, "best_step": 0}
        )
