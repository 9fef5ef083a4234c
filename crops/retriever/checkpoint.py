"""The checkpoint that a killed training run resumes from: weights, optimizer moments and numbers, complete or
absent.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from crops.errors import InputError
from crops.retriever.encoder import Encoder
from crops.tables import folders


def save(
    encoder: Encoder, optimizer: torch.optim.Optimizer, checkpoints: Path, state: dict[str, Any]
) -> None:
    """A new folder, then the pointer `latest` in one rename: a kill leaves the old checkpoint or the new one,
    whole.
    """
    with folders.in_words(checkpoints):
        _save(encoder, optimizer, checkpoints, state)


def _save(
    encoder: Encoder, optimizer: torch.optim.Optimizer, checkpoints: Path, state: dict[str, Any]
) -> None:
    folder = checkpoints / f"step-{state['step']}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    weights = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
    save_file(weights, folder / "model.safetensors")
    if state["best_step"] == state["step"]:
        save_file(weights, folder / "best.safetensors")
    else:
        shutil.copyfile(_latest(checkpoints) / "best.safetensors", folder / "best.safetensors")
    moments = {
        f"{i}.{key}": value
        for i, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }
    save_file(moments, folder / "optimizer.safetensors")
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (checkpoints / ".latest").write_text(folder.name)
    (checkpoints / ".latest").replace(checkpoints / "latest")
    for old in checkpoints.glob("step-*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)


def resume(encoder: Encoder, optimizer: torch.optim.Optimizer, checkpoints: Path) -> dict[str, Any] | None:
    """Loads what `save` wrote last and returns its state, or None if nothing was saved. An InputError for
    another architecture.
    """
    if not (checkpoints / "latest").is_file():
        return None
    folder = _latest(checkpoints)
    _load(encoder, folder / "model.safetensors")
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in load_file(folder / "optimizer.safetensors").items():
        number, key = name.split(".", 1)
        entries.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return state


def load_best(encoder: Encoder, checkpoints: Path) -> None:
    """The weights of the best check so far."""
    _load(encoder, _latest(checkpoints) / "best.safetensors")


def _latest(checkpoints: Path) -> Path:
    return checkpoints / (checkpoints / "latest").read_text()


def _load(encoder: Encoder, path: Path) -> None:
    weights = load_file(path)
    here = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    there = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if wrong := sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name)):
        name = wrong[0]
        raise InputError(
            path,
            f"checkpoint of another architecture: {name} is {there.get(name, 'missing')} there and "
            f"{here.get(name, 'missing')} "
            f"in the model ({len(wrong)} differ); remove the folder to start anew, or choose "
            "another with --checkpoints",
        )
    encoder.load_state_dict(weights)
