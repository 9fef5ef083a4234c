"""The training loop: step, check on validation queries, keep the best, resume to the same curve."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from crops.retriever.batch import Batches, Pairs
from crops.retriever.encoder import Encoder
from crops.retriever.loss import h_infonce, info_nce

Log = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Plain numbers of one run; loss is h_infonce or info_nce, `first` its lowest anchor label.

    The rates rise over the first `warmup` share of `horizon` steps and fall in a line to zero at its end; `steps` may end
    a run before, as a probe does.
    """

    loss: str
    first: int
    steps: int
    horizon: int
    warmup: float
    check_every: int
    patience: int
    learning_rate: float
    temperature_rate: float
    weight_decay: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a batch draws: queries, positives per query, samples per lower label and query."""

    queries: int
    positives: int
    lower: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Queries, the catalogue's texts, and per query the rows of the catalogue that are relevant (none empty).

    Without any query there is nothing to choose by: the last step is kept.
    """

    queries: tuple[str, ...]
    texts: tuple[str, ...]
    relevant: tuple[frozenset[int], ...]

    def recall(self, encoder: Encoder, k: int = 100) -> float | None:
        """Mean share of a query's relevant documents among its k nearest; exact search. None without queries."""
        if not self.queries:
            return None
        q, d = encoder.encode(self.queries, kind="query"), encoder.encode(self.texts, kind="document")
        k = min(k, len(d))
        top = np.argpartition(-(q @ d.T), k - 1, axis=1)[:, :k]
        return float(np.mean([len(r & set(row.tolist())) / len(r) for r, row in zip(self.relevant, top, strict=True)]))


def best(
    make: Callable[[], Encoder], samples: Pairs, valid: Validation, plans: Sequence[Plan], sizes: Sizes, *, probe_steps: int,
    checkpoints: Path, log: Log | None = None,
) -> tuple[Encoder, dict[str, Any], Plan]:  # fmt: skip
    """Trains by the plan that is best on `valid`: each is probed for `probe_steps`, and the best goes on from there.

    Plans that tie, as all do without validation queries, are taken in the order given. Returns encoder, history, plan.
    """

    def trained(plan: Plan) -> tuple[Encoder, dict[str, Any]]:
        encoder = make()
        batches = Batches(
            samples, anchor_min=plan.first, size=sizes.queries, positives=sizes.positives, lower=sizes.lower, seed=plan.seed
        )
        # Probes of several plans would overwrite one another's curve: each has its own names.
        suffix = f".anchors_{plan.first}" if len(plans) > 1 else ""
        named: Log = lambda step, values: log and log(step, {f"{name}{suffix}": v for name, v in values.items()})  # noqa: E731
        return encoder, fit(encoder, batches, valid, plan, checkpoints=checkpoints / f"anchors-{plan.first}", log=named)

    chosen = plans[0]
    if len(plans) > 1 and valid.queries:
        probes = [trained(replace(plan, steps=min(probe_steps, plan.steps)))[1]["best_recall"] for plan in plans]
        chosen = plans[int(np.argmax(probes))]
    encoder, history = trained(chosen)
    return encoder, history, chosen


def fit(
    encoder: Encoder, batches: Batches, valid: Validation, plan: Plan, *, checkpoints: Path, log: Log | None = None
) -> dict[str, Any]:
    """Trains `encoder` in place and leaves it at its best check; resumes from `checkpoints` where a killed run left it.

    Returns {"checks": [{step, loss, tau, lr, valid_recall_at_100}], "best_step", "best_recall"}. loss: mean since the last
    check, null before the first step: the untrained encoder is a candidate as well. recall: null without validation.
    """
    optimizer = _optimizer(encoder, plan)
    state = _resume(encoder, optimizer, checkpoints)
    if state is None:
        state = {"step": 0, "checks": [], "best_step": 0, "best_recall": None, "losses": []}
        _check(encoder, valid, state, plan)
        _save(encoder, optimizer, checkpoints, state)
    query_ids, text_ids = encoder.tokenize(batches.samples.queries), encoder.tokenize(batches.samples.texts)
    with tqdm(total=plan.steps, initial=state["step"], desc="train", unit="step", disable=None) as bar:
        while state["step"] < plan.steps and not _stale(state, plan):
            batch = batches.at(state["step"])
            ids = [query_ids[i] for i in batch.queries], [text_ids[i] for i in batch.texts]
            state["losses"].append(_step(encoder, optimizer, ids, batch.labels, plan, step=state["step"]))
            state["step"] += 1
            bar.update()
            if state["step"] % plan.check_every == 0 or state["step"] == plan.steps:
                check = _check(encoder, valid, state, plan)
                _save(encoder, optimizer, checkpoints, state)
                bar.set_postfix(loss=check["loss"], valid=check["valid_recall_at_100"])
                if log:
                    log(state["step"], {k: v for k, v in check.items() if k != "step" and v is not None})
    encoder.load_state_dict(load_file(_latest(checkpoints) / "best.safetensors"))
    return {k: state[k] for k in ("checks", "best_step", "best_recall")}


def _optimizer(encoder: Encoder, plan: Plan) -> torch.optim.Optimizer:
    weights = [p for name, p in encoder.named_parameters() if name != "log_tau"]
    groups = [
        {"params": weights, "lr": plan.learning_rate, "weight_decay": plan.weight_decay},
        {"params": [encoder.log_tau], "lr": plan.temperature_rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups)


def _factor(step: int, plan: Plan) -> float:
    """Share of the full rate at a 0-based step: a line up, then a line down that ends after the last step."""
    rise = plan.warmup * plan.horizon
    return min((step + 1) / max(1.0, rise), (plan.horizon - step) / max(1.0, plan.horizon - rise), 1.0)


def _step(
    encoder: Encoder, optimizer: torch.optim.Optimizer, ids: tuple[list, list], labels: np.ndarray, plan: Plan, *, step: int
) -> float:
    encoder.train()
    for group, rate in zip(optimizer.param_groups, (plan.learning_rate, plan.temperature_rate), strict=True):
        group["lr"] = rate * _factor(step, plan)
    # Dropout draws from a stream of its own per step: nothing but the step has to be stored to resume.
    with torch.random.fork_rng(devices=[encoder.device] if encoder.device.type == "cuda" else []):
        torch.manual_seed(plan.seed * 1_000_003 + step)
        with torch.autocast(encoder.device.type, dtype=torch.bfloat16, enabled=encoder.device.type == "cuda"):
            q, d = encoder.embed(ids[0], "query"), encoder.embed(ids[1], "document")
    scores = (q.float() @ d.float().T) / encoder.log_tau.exp()  # [Q, D]
    grades = torch.from_numpy(labels).to(encoder.device)
    hierarchical = plan.loss == "h_infonce"
    loss = h_infonce(scores, grades, anchor_min=plan.first) if hierarchical else info_nce(scores, grades, positive_min=plan.first)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        encoder.log_tau.clamp_(min=-4.6, max=0.0)  # tau in 0.01..1: below, single precision has few digits left
    return float(loss.detach())


def _check(encoder: Encoder, valid: Validation, state: dict[str, Any], plan: Plan) -> dict[str, Any]:
    recall = valid.recall(encoder)
    check = {
        "step": state["step"], "loss": float(np.mean(state["losses"])) if state["losses"] else None,
        "tau": float(encoder.log_tau.detach().exp()),
        "lr": plan.learning_rate * _factor(max(0, state["step"] - 1), plan), "valid_recall_at_100": recall,
    }  # fmt: skip
    state["checks"].append(check)
    state["losses"] = []
    if recall is None or state["best_recall"] is None or recall > state["best_recall"]:
        state["best_recall"], state["best_step"] = recall, state["step"]
    return check


def _stale(state: dict[str, Any], plan: Plan) -> bool:
    return bool(state["step"] - state["best_step"] >= plan.patience * plan.check_every)


def _latest(checkpoints: Path) -> Path:
    return checkpoints / (checkpoints / "latest").read_text()


def _save(encoder: Encoder, optimizer: torch.optim.Optimizer, checkpoints: Path, state: dict[str, Any]) -> None:
    """A new folder, then the pointer `latest` in one rename: a kill leaves the old checkpoint or the new one, whole."""
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
        f"{i}.{key}": value for i, entry in optimizer.state_dict()["state"].items() for key, value in entry.items()
    }  # fmt: skip
    save_file(moments, folder / "optimizer.safetensors")
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (checkpoints / ".latest").write_text(folder.name)
    (checkpoints / ".latest").replace(checkpoints / "latest")
    for old in checkpoints.glob("step-*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)


def _resume(encoder: Encoder, optimizer: torch.optim.Optimizer, checkpoints: Path) -> dict[str, Any] | None:
    if not (checkpoints / "latest").is_file():
        return None
    folder = _latest(checkpoints)
    encoder.load_state_dict(load_file(folder / "model.safetensors"))
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in load_file(folder / "optimizer.safetensors").items():
        number, key = name.split(".", 1)
        entries.setdefault(int(number), {})[key] = value
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    return json.loads((folder / "state.json").read_text(encoding="utf-8"))
