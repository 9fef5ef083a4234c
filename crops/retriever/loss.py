"""H-InfoNCE, InfoNCE and Softmax-CE (arXiv 2511.15443) with a backward written by hand.

All three are: mean over the anchors i of log(1 + sum over rivals k of exp(s_k - s_i)); they differ in which
labels are rivals. One log-sum-exp per (query, label), joined over the labels, gives every anchor its
denominator, so the cost does not grow with the number of anchors; one [Q, D] buffer is score, exponential and
gradient in turn.
"""

from typing import Any

import torch
from torch import Tensor

LABELS = 6  # 0..5; -1 is not a candidate
# Scores held at once unless told otherwise: 32 MiB in single precision. Fewer queries at a time cost time:
# each chunk adds to the whole [D, H] gradient of the documents.
CELLS = 2**23
INF = float("inf")


def h_infonce(scores: Tensor, labels: Tensor, *, anchor_min: int = 1) -> Tensor:
    """Hierarchical InfoNCE: each anchor against all candidates of its query with a strictly lower label.

    scores  float [Q, D]  similarity / temperature
    labels  int   [Q, D]  -1 not a candidate, 0 in-batch, 1..5
    Returns a scalar, mean over the anchors (label >= anchor_min), nats; an anchor with no lower candidate
    adds 0. Raises ValueError on other labels or shapes, NaN or +inf scores, or a batch without anchors.
    """
    return _loss(scores, labels, _lower(), anchor_min)


def info_nce(scores: Tensor, labels: Tensor, *, positive_min: int = 4) -> Tensor:
    """InfoNCE with binary labels: each candidate >= positive_min against all below positive_min. Else as
    `h_infonce`.
    """
    return _loss(scores, labels, _binary(positive_min), positive_min)


def softmax_ce(scores: Tensor, labels: Tensor, *, anchor_min: int = 1) -> Tensor:
    """Softmax cross-entropy: each anchor against every candidate of another label, higher ones too. Else as
    `h_infonce`.
    """
    return _loss(scores, labels, _other(), anchor_min)


def h_infonce_chunked(
    queries: Tensor,
    documents: Tensor,
    labels: Tensor,
    *,
    temperature: Tensor,
    anchor_min: int = 1,
    chunk: int | None = None,
) -> Tensor:
    """`h_infonce(queries @ documents.T / temperature, labels)` that never holds [Q, D]: `chunk` queries at a
    time.

    By default as many as make 2**23 scores: then it is also the fastest form, because nothing is copied.

    queries [Q, H], documents [D, H] float; labels sparse COO int [Q, D] (absent = 0); temperature scalar
    tensor, > 0. Gradients are made in the forward pass, so every score is computed once. Same errors as
    `h_infonce`.
    """
    return _chunked(
        queries, documents, labels, temperature=temperature, rivals=_lower(), first=anchor_min, chunk=chunk
    )


def info_nce_chunked(
    queries: Tensor,
    documents: Tensor,
    labels: Tensor,
    *,
    temperature: Tensor,
    positive_min: int = 4,
    chunk: int | None = None,
) -> Tensor:
    """`info_nce` in the form of `h_infonce_chunked`."""
    return _chunked(
        queries,
        documents,
        labels,
        temperature=temperature,
        rivals=_binary(positive_min),
        first=positive_min,
        chunk=chunk,
    )


def softmax_ce_chunked(
    queries: Tensor,
    documents: Tensor,
    labels: Tensor,
    *,
    temperature: Tensor,
    anchor_min: int = 1,
    chunk: int | None = None,
) -> Tensor:
    """`softmax_ce` in the form of `h_infonce_chunked`."""
    return _chunked(
        queries, documents, labels, temperature=temperature, rivals=_other(), first=anchor_min, chunk=chunk
    )


def _lower() -> Tensor:
    """bool [anchor label, candidate label]: whether the candidate stands in the anchor's denominator."""
    return torch.ones(LABELS, LABELS, dtype=torch.bool).tril(-1)


def _other() -> Tensor:
    return ~torch.eye(LABELS, dtype=torch.bool)


def _binary(positive_min: int) -> Tensor:
    rivals = torch.zeros(LABELS, LABELS, dtype=torch.bool)
    rivals[positive_min:, :positive_min] = True
    return rivals


# Finding the listed entries depends on the data: torch.compile breaks its graph here and runs the function as
# it is.
@torch.compiler.disable
def _loss(scores: Tensor, labels: Tensor, rivals: Tensor, first: int) -> Tensor:
    if scores.ndim != 2 or scores.shape != labels.shape or not scores.is_floating_point():
        raise ValueError(
            f"scores {tuple(scores.shape)} {scores.dtype} and labels {tuple(labels.shape)}: "
            "expected float, int [Q, D]"
        )
    _check_first(first)
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels are {labels.dtype}, expected integers -1..5")
    rows, cols = labels.nonzero(as_tuple=True)
    return _Dense.apply(
        scores, rows, cols, _check_labels(labels[rows, cols]), rivals.to(scores.device), first
    )


@torch.compiler.disable
def _chunked(
    queries: Tensor,
    documents: Tensor,
    labels: Tensor,
    *,
    temperature: Tensor,
    rivals: Tensor,
    first: int,
    chunk: int | None,
) -> Tensor:
    _check_first(first)
    if tuple(labels.shape) != (len(queries), len(documents)) or queries.shape[1:] != documents.shape[1:]:
        raise ValueError(
            f"queries {tuple(queries.shape)}, documents {tuple(documents.shape)}, labels "
            f"{tuple(labels.shape)}: "
            "expected [Q, H], [D, H], [Q, D]"
        )
    sparse = labels.coalesce()
    listed = (*sparse.indices(), _check_labels(sparse.values()))
    return _Chunked.apply(queries, documents, temperature, listed, rivals.to(queries.device), first, chunk)


def _check_first(first: int) -> None:
    if not 1 <= first < LABELS:
        raise ValueError(f"the lowest anchor label is {first}, expected 1..5")


def _check_labels(listed: Tensor) -> Tensor:
    if len(listed) and (int(listed.min()) < -1 or int(listed.max()) >= LABELS):
        raise ValueError(f"labels run from {int(listed.min())} to {int(listed.max())}, expected -1..5")
    return listed.long()


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, rows: Tensor, cols: Tensor, labels: Tensor, rivals: Tensor, first: int
    ) -> Tensor:
        ctx.save_for_backward(scores, rows, cols, labels, rivals)
        ctx.first = first
        buffer = _working_copy(scores)
        total, anchors = _fold(buffer, rows, cols, labels, rivals, first)
        if not anchors:
            raise ValueError(
                f"no candidate has a label >= {first}: the batch has no anchor to take the mean over"
            )
        ctx.anchors, ctx.buffer = anchors, buffer
        return total / anchors

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        scores, rows, cols, labels, rivals = ctx.saved_tensors
        buffer, ctx.buffer = ctx.buffer, None
        if buffer is None:  # a second backward through a retained graph: the buffer was given away
            buffer = _working_copy(scores)
            _fold(buffer, rows, cols, labels, rivals, ctx.first)
        return buffer.mul_(grad / ctx.anchors).to(scores.dtype), None, None, None, None, None


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        documents: Tensor,
        tau: Tensor,
        listed: tuple[Tensor, Tensor, Tensor],
        rivals: Tensor,
        first: int,
        chunk: int | None,
    ) -> Tensor:
        ctx.save_for_backward(queries, documents, tau)
        ctx.rest = (listed, rivals, first, chunk or max(1, CELLS // len(documents)))
        loss, *ctx.grads = _gradients(queries, documents, tau, *ctx.rest)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        inputs = ctx.saved_tensors
        # Given away, not copied: they are as large as the vectors. A second backward through a retained graph
        # makes them anew.
        grads, ctx.grads = ctx.grads or _gradients(*inputs, *ctx.rest)[1:], None
        return (
            *(g.mul_(grad).to(x.dtype) for g, x in zip(grads, inputs, strict=True)),
            None,
            None,
            None,
            None,
        )


def _gradients(
    queries: Tensor,
    documents: Tensor,
    tau: Tensor,
    listed: tuple[Tensor, Tensor, Tensor],
    rivals: Tensor,
    first: int,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The loss and its gradients by queries, documents and tau, `chunk` queries at a time."""
    t = float(tau)
    rows, cols, labels = listed
    anchors = int((labels >= first).sum())
    if not anchors:
        raise ValueError(
            f"no candidate has a label >= {first}: the batch has no anchor to take the mean over"
        )
    q, d = _wide(queries) / t, _wide(documents)
    dq, dd = torch.empty_like(q), torch.empty_like(d)
    total, scores = q.new_zeros(()), q.new_empty(min(chunk, len(q)), len(d))  # one memory for all chunks
    ends = torch.searchsorted(rows, torch.arange(0, len(q) + chunk, chunk, device=rows.device)).tolist()
    for i, start in enumerate(range(0, len(q), chunk)):
        own, mine = slice(start, start + chunk), slice(ends[i], ends[i + 1])
        buffer = torch.mm(q[own], d.T, out=scores[: len(q) - start])  # [chunk, D]
        total += _fold(buffer, rows[mine] - start, cols[mine], labels[mine], rivals, first)[0]
        torch.mm(buffer, d, out=dq[own])
        torch.addmm(
            dd, buffer.T, q[own], beta=float(i > 0), alpha=1 / anchors, out=dd
        )  # beta 0: what was there is not read
    dq.div_(anchors)
    dtau = -(dq * q).sum() / t
    return total / anchors, dq.div_(t), dd, dtau


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _working_copy(scores: Tensor) -> Tensor:
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores.clone()


def _fold(
    buffer: Tensor, rows: Tensor, cols: Tensor, labels: Tensor, rivals: Tensor, first: int
) -> tuple[Tensor, int]:
    """Turns `buffer` from scores into d(sum of anchor losses)/d(scores), in place; returns that sum and the
    anchors' number.
    """
    q = len(buffer)
    listed = buffer[rows, cols]  # [P]
    buffer[rows, cols] = -INF
    top = buffer.amax(1)  # [Q]
    real = labels > 0
    if not bool((top < INF).all() and (listed[labels >= 0] < INF).all()):
        raise ValueError(
            "scores hold NaN or +inf; training diverged or the temperature is too small: lower learning_rate"
        )
    top = top.masked_fill(top == -INF, 0.0)
    buffer.sub_(top[:, None]).exp_()
    cell = rows * LABELS + labels.clamp(min=0)  # [P]
    per_label = _lse_by(listed[real], cell[real], q)  # [Q, 6]
    per_label[:, 0] = buffer.sum(1).log() + top
    below = per_label[:, None, :].masked_fill(~rivals, -INF).logsumexp(2)  # [Q, 6 of the anchor]
    anchor = labels >= first
    s, n = listed[anchor], below.flatten()[cell[anchor]]
    weight = _lse_by(-torch.logaddexp(n, s), cell[anchor], q)  # [Q, 6 of the anchor]
    weight = weight[:, :, None].masked_fill(~rivals, -INF).logsumexp(1)  # [Q, 6 of the rival]
    buffer.mul_((top + weight[:, 0]).exp()[:, None])
    grads = torch.where(real, (listed + weight.flatten()[cell]).exp(), 0.0)
    grads[anchor] -= torch.sigmoid(n - s)
    buffer[rows, cols] = grads
    return torch.logaddexp(n - s, torch.zeros_like(s)).sum(), int(anchor.sum())


def _lse_by(values: Tensor, cell: Tensor, q: int) -> Tensor:
    """Log-sum-exp of `values` per cell; -inf where a cell is empty. Float [Q, 6]."""
    top = values.new_full((q * LABELS,), -INF).scatter_reduce(0, cell, values, "amax")
    shift = top.masked_fill(top == -INF, 0.0)
    total = torch.zeros_like(top).index_add_(0, cell, (values - shift[cell]).exp())
    return (total.log() + shift).view(q, LABELS)
