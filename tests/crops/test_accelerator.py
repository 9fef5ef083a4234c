"""One setting says where models compute; no part asks for a GPU by itself."""

from pathlib import Path

import onnxruntime
import pytest
import torch

from crops import accelerator
from crops.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", [None, "", "auto"])
def test_by_default_it_is_what_this_process_sees(monkeypatch, name):
    monkeypatch.delenv(accelerator.DEVICE, raising=False)
    if name is not None:
        monkeypatch.setenv(accelerator.DEVICE, name)
    for there, kind in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert accelerator.device().type == kind


def test_a_device_that_is_not_there_is_a_sentence(monkeypatch):
    monkeypatch.setenv(accelerator.DEVICE, "cpu")
    assert accelerator.device() == torch.device("cpu")
    for name in ("gpu", "cuda:99"):
        monkeypatch.setenv(accelerator.DEVICE, name)
        with pytest.raises(ConfigError, match=f"CROPS_DEVICE is '{name}', expected auto, cpu or a GPU"):
            accelerator.device()


@pytest.mark.parametrize(
    ("name", "wanted"), [("", "0"), ("auto", "0"), ("cuda", "0"), ("cuda:1", "1"), ("cpu", None)]
)
def test_onnx_runtime_takes_the_gpu_before_the_cpu(monkeypatch, name, wanted):
    monkeypatch.setenv(accelerator.DEVICE, name)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [accelerator.CUDA, accelerator.CPU])
    first = [] if wanted is None else [(accelerator.CUDA, {"device_id": wanted})]
    assert accelerator.providers() == [*first, accelerator.CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [accelerator.CPU])
    assert accelerator.providers() == [accelerator.CPU]


def test_nothing_else_looks_for_a_gpu():
    """But the ranks of a training, each of which has one of its own."""
    sources = sorted((ROOT / "crops").rglob("*.py"))
    looking = [p for p in sources if "cuda.is_available" in p.read_text()]
    assert looking == [ROOT / "crops/accelerator.py", ROOT / "crops/retriever/ranks.py"]
