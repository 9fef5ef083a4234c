"""One optimizer step: a batch of tokens and labels to gradients, with the batch's graph whole or rebuilt
piece by piece.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from crops.errors import ConfigError
from crops.retriever import finetuning, teacher
from crops.retriever import loss as losses
from crops.retriever.encoder import Encoder, Kind
from crops.retriever.errors import Diverged
from crops.retriever.loss import AnyLoss, Loss
from crops.retriever.ranks import ALONE, Ranks

Tokens = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Plain numbers of one run. loss: see AnyLoss; `train.best` also knows `one_anchor`, InfoNCE that takes
    each anchor apart. anchor_min: the lowest anchor label.

    The rates rise over the first `warmup` share of `horizon` steps and fall in a line to zero at its end;
    `steps` may end a run before, as a probe does. `cache_tokens`: most padded tokens that are encoded at once
    with a graph; None: all. `clip`: most length of the gradient of all weights, the temperature's apart;
    None: any. `layer_decay`: a layer's rate is this share of the next one's. `widths`: the first so many
    numbers of a vector are a vector as well, and the loss is the sum over all (Matryoshka, arXiv 2205.13147).
    `distil`: how much the divergence from a teacher counts beside the loss, where there is one.
    """

    loss: AnyLoss
    anchor_min: int
    steps: int
    horizon: int
    warmup: float
    check_every: int
    patience: int
    learning_rate: float
    temperature_rate: float
    weight_decay: float
    seed: int
    cache_tokens: int | None = None
    clip: float | None = None
    layer_decay: float = 1.0
    widths: tuple[int, ...] = ()
    distil: float = 1.0


def optimizer_of(encoder: Encoder, plan: Plan) -> torch.optim.Optimizer:
    """AdamW on the weights' groups (`finetuning.groups`) and last the temperature, without decay and at a
    rate of its own. Every group keeps its full rate as `full`.
    """
    groups = finetuning.groups(
        encoder,
        learning_rate=plan.learning_rate,
        layer_decay=plan.layer_decay,
        weight_decay=plan.weight_decay,
    )
    groups.append({"params": [encoder.log_tau], "weight_decay": 0.0, "lr": plan.temperature_rate})
    return torch.optim.AdamW([group | {"full": group["lr"]} for group in groups], fused=True)


def _weights(encoder: Encoder) -> list[torch.nn.Parameter]:
    """All but the temperature."""
    return [p for name, p in encoder.named_parameters() if name != "log_tau"]


def rate(step: int, plan: Plan) -> float:
    """Share of the full rate at a 0-based step: a line up, then a line down that ends after the last step."""
    rise = plan.warmup * plan.horizon
    return min((step + 1) / max(1.0, rise), (plan.horizon - step) / max(1.0, plan.horizon - rise), 1.0)


def take(
    encoder: Encoder,
    optimizer: torch.optim.Optimizer,
    ids: tuple[Tokens, Tokens],
    labels: np.ndarray,
    plan: Plan,
    *,
    step: int,
    ranks: Ranks = ALONE,
    targets: np.ndarray | None = None,
) -> float:
    """Step number `step` (0-based) on the joint batch of all ranks; returns its loss. See `gradients`."""
    for group in optimizer.param_groups:
        group["lr"] = group["full"] * rate(step, plan)
    loss = gradients(encoder, ids, labels, plan, step=step, ranks=ranks, targets=targets)
    if not math.isfinite(loss):  # one step with it, and no weight is a number any more
        raise Diverged(f"step {step}: the loss is {loss}, expected a finite number")
    if plan.clip is not None:
        torch.nn.utils.clip_grad_norm_(_weights(encoder), plan.clip)
    optimizer.step()
    with torch.no_grad():
        encoder.log_tau.clamp_(
            min=-4.6, max=0.0
        )  # tau in 0.01..1: below, single precision has few digits left
    return loss


def gradients(
    encoder: Encoder,
    ids: tuple[Tokens, Tokens],
    labels: np.ndarray,
    plan: Plan,
    *,
    step: int,
    ranks: Ranks = ALONE,
    targets: np.ndarray | None = None,
) -> float:
    """Leaves d(loss of the joint batch) in .grad of every parameter, the same on every rank, and returns that
    loss.

    ids: tokens of the queries and of the distinct texts; labels int8 [Q, D]; targets float32 [Q, D]
    of a teacher, if there is one. With plan.cache_tokens the vectors are made without a graph, and each piece
    is encoded again for its backward, with the dropout of the first time.
    """
    encoder.train()
    encoder.zero_grad(set_to_none=True)
    sides = [
        _Side(encoder, ids[0], "query", plan, step, ranks),
        _Side(encoder, ids[1], "document", plan, step, ranks),
    ]
    q, d = (side.forward() for side in sides)
    grades = torch.from_numpy(labels).to(encoder.device).to_sparse()
    tau = encoder.log_tau.exp()
    cut = [(F.normalize(q[:, :w], dim=-1), F.normalize(d[:, :w], dim=-1)) for w in plan.widths]
    loss = sum((_loss(plan, *pair, grades, tau) for pair in cut), _loss(plan, q, d, grades, tau))
    if targets is not None:
        wanted = torch.from_numpy(targets).to(encoder.device)
        loss = loss + plan.distil * teacher.divergence(q @ d.T / tau.detach(), wanted)
    (loss / ranks.count).backward()  # every rank has the whole loss: its share of the temperature's gradient
    for side in sides:
        side.backward()
    ranks.sum_gradients(encoder.parameters())
    return float(loss.detach())


def _loss(plan: Plan, q: Tensor, d: Tensor, labels: Tensor, tau: Tensor) -> Tensor:
    loss = losses.named(plan.loss, plan.anchor_min) if isinstance(plan.loss, str) else plan.loss
    if isinstance(loss, Loss):
        return loss.chunked(q, d, labels, temperature=tau, anchor_min=plan.anchor_min)
    own = loss(q @ d.T / tau, labels.to_dense())
    if not isinstance(own, Tensor) or own.numel() != 1 or not own.requires_grad:
        what = f"a tensor of shape {[*own.shape]}" if isinstance(own, Tensor) else f"a {type(own).__name__}"
        raise ConfigError(f"train.loss returned {what}, expected a scalar that is computed from the scores")
    return own


class _Side:
    """The queries or the documents of a batch: this rank's share, in groups of like length."""

    def __init__(
        self, encoder: Encoder, ids: Tokens, kind: Kind, plan: Plan, step: int, ranks: Ranks
    ) -> None:
        self.encoder, self.kind, self.ranks, self.cached = encoder, kind, ranks, plan.cache_tokens is not None
        self.shares = ranks.shares([len(x) for x in ids])
        self.own = [ids[i] for i in self.shares[ranks.rank]]
        self.groups = encoder.groups(self.own, plan.cache_tokens)
        self.seed = (plan.seed, step, ranks.rank, int(kind == "document"))

    def forward(self) -> Tensor:
        """Vectors of the joint batch [N, H], a leaf: its gradient is what `backward` takes back."""
        with torch.set_grad_enabled(not self.cached):
            parts = [self._encode(number) for number in range(len(self.groups))]
        order = torch.tensor(
            [i for group in self.groups for i in group], device=self.encoder.device, dtype=torch.long
        )
        empty = torch.zeros(0, self.encoder.width, device=self.encoder.device)  # fewer texts than ranks
        self.vectors = torch.cat(parts)[order.argsort()] if parts else empty
        self.leaf = self.ranks.gather(self.vectors, self.shares).requires_grad_()
        return self.leaf

    def backward(self) -> None:
        """Adds to .grad of the parameters what this rank's vectors owe."""
        if not self.own or self.leaf.grad is None:
            return
        # `forward` counted each rank's loss as one share of `count`; a vector's gradient is made on its own
        # rank alone.
        grad = (
            self.leaf.grad[torch.from_numpy(self.shares[self.ranks.rank]).to(self.leaf.device)]
            * self.ranks.count
        )
        if not self.cached:
            self.vectors.backward(grad)
            return
        for number, group in enumerate(self.groups):
            self._encode(number).backward(grad[group])

    def _encode(self, number: int) -> Tensor:
        device = self.encoder.device.type
        with (
            _dropout_of(self.encoder.device, (*self.seed, number)),
            torch.autocast(device, torch.bfloat16, device == "cuda"),
        ):
            return self.encoder(*self.encoder.pad([self.own[i] for i in self.groups[number]]), self.kind)


@contextmanager
def _dropout_of(device: torch.device, key: tuple[int, ...]) -> Iterator[None]:
    """A stream of chance for each group: nothing has to be stored to resume, or to encode the same group
    again.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        yield
