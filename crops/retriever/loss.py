"""H-InfoNCE, InfoNCE and Softmax-CE (arXiv 2511.15443) with a backward written by hand.

All three are: mean over the anchors i of log(1 + sum over rivals k of exp(s_k - s_i)); they differ in which
labels are rivals. One log-sum-exp per (query, label), joined over the labels, gives every anchor its
denominator, so the cost does not grow with the number of anchors; one [Q, D] buffer is score, exponential and
gradient in turn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crops.errors import ConfigError
from crops.retriever.errors import Diverged, NothingToTrainOn

LABELS = 6  # 0..5; -1 is not a candidate
# Scores held at once unless told otherwise: 32 MiB in single precision. Fewer queries at a time cost time:
# each chunk adds to the whole [D, H] gradient of the documents.
CELLS = 2**23
INF = float("inf")
Listed = tuple[Tensor, Tensor, Tensor]  # rows, columns and labels [P] of the candidates that have a label


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss as a value: which labels stand in the denominator of which anchor; `loss_of` makes one.

    rivals  6 x 6, by label of the anchor and label of the other candidate; tuples, so that two values compare
    """

    rivals: tuple[tuple[bool, ...], ...]

    def __call__(self, scores: Tensor, labels: Tensor, *, anchor_min: int = 1) -> Tensor:
        """Shapes, result and errors as of `h_infonce`."""
        return _loss(scores, labels, self.rivals, anchor_min)

    def chunked(
        self,
        queries: Tensor,
        documents: Tensor,
        labels: Tensor,
        *,
        temperature: Tensor,
        anchor_min: int = 1,
        chunk: int | None = None,
    ) -> Tensor:
        """`self(queries @ documents.T / temperature, labels)` that never holds [Q, D]: `chunk` queries at a
        time.

        By default as many as make 2**23 scores: then it is also the fastest form, because nothing is copied.

        queries [Q, H], documents [D, H] float; labels sparse COO int [Q, D] (absent = 0); temperature scalar
        tensor, > 0. Gradients are made in the forward pass, so every score is computed once. Same errors as
        `h_infonce`.
        """
        return _chunked(queries, documents, labels, temperature, self.rivals, anchor_min, chunk)


# What a plan takes for a loss: a name in LOSSES, such a value, or a function of scores [Q, D] and dense
# labels int [Q, D] to a scalar.
AnyLoss = str | Loss | Callable[[Tensor, Tensor], Tensor]


def loss_of(rivals: np.ndarray | Tensor | Sequence[Sequence[bool]]) -> Loss:
    """The loss in which an anchor stands against the labels that `rivals` names for its own.

    rivals  bool [6, 6], [label of the anchor, label of the other candidate]; no label rivals itself

    >>> loss_of(np.tri(6, k=-1, dtype=bool)) == LOWER
    True
    """
    matrix = np.asarray(rivals)
    if matrix.shape != (LABELS, LABELS) or matrix.dtype != bool or matrix.diagonal().any():
        raise ValueError(
            f"rivals are {matrix.dtype} {matrix.shape}, expected bool (6, 6) with an empty diagonal"
        )
    return Loss(tuple(map(tuple, matrix.tolist())))


def binary(positive_min: int) -> Loss:
    """InfoNCE: each label from `positive_min` on against all labels below."""
    positive = np.arange(LABELS) >= positive_min
    return loss_of(np.logical_and.outer(positive, ~positive))


LOWER = loss_of(np.tri(LABELS, k=-1, dtype=bool))
OTHER = loss_of(~np.eye(LABELS, dtype=bool))
LOSSES: dict[str, Callable[[int], Loss]] = {
    "h_infonce": lambda _anchor_min: LOWER,
    "softmax_ce": lambda _anchor_min: OTHER,
    "info_nce": binary,
}


def named(name: str, anchor_min: int) -> Loss:
    """The loss that a setting calls `name`."""
    if name not in LOSSES:
        raise ConfigError(f"train.loss is {name!r}, expected one of {', '.join(LOSSES)}")
    return LOSSES[name](anchor_min)


def h_infonce(scores: Tensor, labels: Tensor, *, anchor_min: int = 1) -> Tensor:
    """Hierarchical InfoNCE: each anchor against all candidates of its query with a strictly lower label.

    scores  float [Q, D]  similarity / temperature
    labels  int   [Q, D]  -1 not a candidate, 0 in-batch, 1..5
    Returns a scalar, mean over the anchors (label >= anchor_min), nats; an anchor with no lower candidate
    adds 0. Raises ValueError on other labels or shapes, NaN or +inf scores, or a batch without anchors.
    """
    return LOWER(scores, labels, anchor_min=anchor_min)


def info_nce(scores: Tensor, labels: Tensor, *, positive_min: int = 4) -> Tensor:
    """InfoNCE with binary labels: each candidate >= positive_min against all below positive_min. Else as
    `h_infonce`.
    """
    return binary(positive_min)(scores, labels, anchor_min=positive_min)


def softmax_ce(scores: Tensor, labels: Tensor, *, anchor_min: int = 1) -> Tensor:
    """Softmax cross-entropy: each anchor against every candidate of another label, higher ones too. Else as
    `h_infonce`.
    """
    return OTHER(scores, labels, anchor_min=anchor_min)


h_infonce_chunked = LOWER.chunked


# Finding the listed entries depends on the data: torch.compile breaks its graph here and runs the function as
# it is.
@torch.compiler.disable
def _loss(scores: Tensor, labels: Tensor, rivals: Sequence[Sequence[bool]], anchor_min: int) -> Tensor:
    if scores.ndim != 2 or scores.shape != labels.shape or not scores.is_floating_point():
        raise ValueError(
            f"scores {tuple(scores.shape)} {scores.dtype} and labels {tuple(labels.shape)}: "
            "expected float, int [Q, D]"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels are {labels.dtype}, expected integers -1..5")
    rows, cols = labels.nonzero(as_tuple=True)
    listed = _checked(rows, cols, labels[rows, cols], anchor_min)
    return _Dense.apply(scores, listed, torch.tensor(rivals, device=scores.device), anchor_min)


@torch.compiler.disable
def _chunked(
    queries: Tensor,
    documents: Tensor,
    labels: Tensor,
    temperature: Tensor,
    rivals: Sequence[Sequence[bool]],
    anchor_min: int,
    chunk: int | None,
) -> Tensor:
    if tuple(labels.shape) != (len(queries), len(documents)) or queries.shape[1:] != documents.shape[1:]:
        raise ValueError(
            f"queries {tuple(queries.shape)}, documents {tuple(documents.shape)}, labels "
            f"{tuple(labels.shape)}: expected [Q, H], [D, H], [Q, D]"
        )
    sparse = labels.coalesce()
    rows, cols = sparse.indices()
    listed = _checked(rows, cols, sparse.values(), anchor_min)
    matrix, chunk = torch.tensor(rivals, device=queries.device), chunk or max(1, CELLS // len(documents))
    return _Chunked.apply(queries, documents, temperature, listed, matrix, anchor_min, chunk)


def _checked(rows: Tensor, cols: Tensor, labels: Tensor, anchor_min: int) -> Listed:
    if not 1 <= anchor_min < LABELS:
        raise ValueError(f"the lowest anchor label is {anchor_min}, expected 1..5")
    if len(labels) and (int(labels.min()) < -1 or int(labels.max()) >= LABELS):
        raise ValueError(f"labels run from {int(labels.min())} to {int(labels.max())}, expected -1..5")
    if not bool((labels >= anchor_min).any()):
        raise NothingToTrainOn(
            f"no candidate has a label >= {anchor_min}: the batch has no anchor to take the mean over"
        )
    return rows, cols, labels.long()


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, *rest: Any) -> Tensor:
        ctx.save_for_backward(scores)
        ctx.rest, ctx.buffer = rest, _working_copy(scores)
        total, ctx.anchors = _fold(ctx.buffer, *rest)
        return total / ctx.anchors

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        (scores,) = ctx.saved_tensors
        buffer, ctx.buffer = ctx.buffer, None
        if buffer is None:  # a second backward through a retained graph: the buffer was given away
            buffer = _working_copy(scores)
            _fold(buffer, *ctx.rest)
        return buffer.mul_(grad / ctx.anchors).to(scores.dtype), None, None, None


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        ctx.save_for_backward(*inputs[:3])
        ctx.rest = inputs[3:]
        loss, *ctx.grads = _gradients(*inputs)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        inputs = ctx.saved_tensors
        # Given away, not copied: they are as large as the vectors. A second backward through a retained graph
        # makes them anew.
        grads, ctx.grads = ctx.grads or _gradients(*inputs, *ctx.rest)[1:], None
        return (*(g.mul_(grad).to(x.dtype) for g, x in zip(grads, inputs, strict=True)), *[None] * 4)


def _gradients(
    queries: Tensor,
    documents: Tensor,
    tau: Tensor,
    listed: Listed,
    rivals: Tensor,
    anchor_min: int,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss and its gradients by queries, documents and tau, `chunk` queries at a time."""
    t = float(tau)
    rows, cols, labels = listed
    anchors = int((labels >= anchor_min).sum())
    q, d = _wide(queries) / t, _wide(documents)
    dq, dd = torch.empty_like(q), torch.empty_like(d)
    total, scores = q.new_zeros(()), q.new_empty(min(chunk, len(q)), len(d))  # one memory for all chunks
    ends = torch.searchsorted(rows, torch.arange(0, len(q) + chunk, chunk, device=rows.device)).tolist()
    for i, start in enumerate(range(0, len(q), chunk)):
        own, mine = slice(start, start + chunk), slice(ends[i], ends[i + 1])
        buffer = torch.mm(q[own], d.T, out=scores[: len(q) - start])  # [chunk, D]
        total += _fold(buffer, (rows[mine] - start, cols[mine], labels[mine]), rivals, anchor_min)[0]
        torch.mm(buffer, d, out=dq[own])
        # With beta 0 nothing is read of what was there before.
        torch.addmm(dd, buffer.T, q[own], beta=float(i > 0), alpha=1 / anchors, out=dd)
    dq.div_(anchors)
    dtau = -(dq * q).sum() / t
    return total / anchors, dq.div_(t), dd, dtau


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _working_copy(scores: Tensor) -> Tensor:
    wide = _wide(scores)
    return scores.clone() if wide is scores else wide


def _fold(buffer: Tensor, entries: Listed, rivals: Tensor, anchor_min: int) -> tuple[Tensor, int]:
    """Turns `buffer` from scores into d(sum of anchor losses)/d(scores), in place; returns that sum and the
    anchors' number.
    """
    q, (rows, cols, labels) = len(buffer), entries
    listed = buffer[rows, cols]  # [P]
    buffer[rows, cols] = -INF
    top = buffer.amax(1)  # [Q]
    real = labels > 0
    if not bool((top < INF).all() and (listed[labels >= 0] < INF).all()):
        raise Diverged(
            "scores hold NaN or +inf; training diverged or the temperature is too small: lower learning_rate"
        )
    top = top.masked_fill(top == -INF, 0.0)
    buffer.sub_(top[:, None]).exp_()
    cell = rows * LABELS + labels.clamp(min=0)  # [P]
    per_label = _lse_by(listed[real], cell[real], q)  # [Q, 6]
    per_label[:, 0] = buffer.sum(1).log() + top
    below = per_label[:, None, :].masked_fill(~rivals, -INF).logsumexp(2)  # [Q, 6 of the anchor]
    anchor = labels >= anchor_min
    s, n = listed[anchor], below.flatten()[cell[anchor]]
    weight = _lse_by(-torch.logaddexp(n, s), cell[anchor], q)  # [Q, 6 of the anchor]
    weight = weight[:, :, None].masked_fill(~rivals, -INF).logsumexp(1)  # [Q, 6 of the rival]
    buffer.mul_((top + weight[:, 0]).exp()[:, None])
    grads = torch.where(real, (listed + weight.flatten()[cell]).exp(), 0.0)
    grads[anchor] -= torch.sigmoid(n - s)
    buffer[rows, cols] = grads
    return torch.logaddexp(n - s, torch.zeros_like(s)).sum(), int(anchor.sum())


def _lse_by(values: Tensor, cell: Tensor, q: int) -> Tensor:
    """Log-sum-exp of `values` per cell; -inf for an empty cell. Float [Q, 6]."""
    top = values.new_full((q * LABELS,), -INF).scatter_reduce(0, cell, values, "amax")
    shift = top.masked_fill(top == -INF, 0.0)
    total = torch.zeros_like(top).index_add_(0, cell, (values - shift[cell]).exp())
    return (total.log() + shift).view(q, LABELS)
