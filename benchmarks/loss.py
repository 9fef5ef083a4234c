"""H-InfoNCE against InfoNCE: CPU time and peak memory, forward and backward, from vectors to their gradients.

    python benchmarks/loss.py            prints a Markdown table in under a minute
    python benchmarks/loss.py --write    also stores it in benchmarks/results/loss.md

All forms run in turn in one process on one thread, so that load from elsewhere meets all of them alike. Every
query owns N/B listed candidates, 8 of them positives (label 4 or 5), the others 1..3; everything else is
label 0, in the batch.
"""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import report
import torch
import torch.nn.functional as F
from torch import Tensor

from crops.retriever.loss import h_infonce, h_infonce_chunked

WIDTH, TAU, POSITIVES = 256, 0.05, 8
SIZES = ((256, 4096, 12), (512, 16384, 5))  # queries, documents, rounds
MEMORY = (1024, 16384)
PLAIN, HAND, FLOOR = (
    "InfoNCE, autograd (F.cross_entropy)",
    "InfoNCE, backward by hand",
    "three bare matmuls (floor)",
)
OURS = "**H-InfoNCE, as training calls it**"
DENSE, SMALL = "H-InfoNCE on a score matrix, dense labels", "H-InfoNCE, 64 queries at a time"
GOALS = {(256, PLAIN): 0.84, (512, PLAIN): 0.64, (256, HAND): 1.06, (512, HAND): 1.06}


class Batch(NamedTuple):
    """queries [B, H], documents [N, H], labels int8 [B, N] (dense and sparse), one positive per query [B]."""

    queries: Tensor
    documents: Tensor
    dense: Tensor
    sparse: Tensor
    positive: Tensor


def batch(b: int, n: int) -> Batch:
    g = torch.Generator().manual_seed(b)
    q, c = (F.normalize(torch.randn(k, WIDTH, generator=g), dim=1).requires_grad_() for k in (b, n))
    own = n // b
    graded = torch.randint(1, 4, (b, own), generator=g, dtype=torch.int8)
    graded[:, :POSITIVES] = torch.randint(4, 6, (b, POSITIVES), generator=g, dtype=torch.int8)
    dense = torch.zeros(b, n, dtype=torch.int8)
    rows, cols = torch.arange(b)[:, None].expand(b, own), torch.arange(n).view(b, own)
    dense[rows, cols] = graded
    return Batch(q, c, dense, dense.to_sparse(), torch.arange(b) * own)


class ByHand(torch.autograd.Function):
    """InfoNCE with as much care as the hierarchical loss gets: one [B, N] buffer for scores, exponentials and
    gradient.
    """

    @staticmethod
    def forward(ctx, q: Tensor, c: Tensor, positive: Tensor) -> Tensor:
        buffer = (q / TAU) @ c.T
        rows = torch.arange(len(q))
        mine = buffer[rows, positive]
        top = buffer.amax(1, keepdim=True)
        buffer.sub_(top).exp_()
        total = buffer.sum(1, keepdim=True)
        buffer.mul_(1 / total)
        buffer[rows, positive] -= 1
        ctx.save_for_backward(buffer @ c, buffer.T @ q)
        return ((total.log() + top).squeeze(1) - mine).mean()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        dq, dc = ctx.saved_tensors
        scale = grad / (TAU * len(dq))
        return dq * scale, dc * scale, None


def forms(x: Batch) -> dict[str, Callable[[], Tensor | None]]:
    def floor() -> None:
        with torch.no_grad():
            scores = x.queries @ x.documents.T
            _ = scores @ x.documents, scores.T @ x.queries

    tau = torch.tensor(TAU)
    return {
        FLOOR: floor,
        PLAIN: lambda: F.cross_entropy(x.queries @ x.documents.T / TAU, x.positive),
        HAND: lambda: ByHand.apply(x.queries, x.documents, x.positive),
        OURS: lambda: h_infonce_chunked(x.queries, x.documents, x.sparse, temperature=tau),
        SMALL: lambda: h_infonce_chunked(x.queries, x.documents, x.sparse, temperature=tau, chunk=64),
        DENSE: lambda: h_infonce(x.queries @ x.documents.T / TAU, x.dense),
    }


def once(x: Batch, form: Callable[[], Tensor | None]) -> None:
    x.queries.grad = x.documents.grad = None
    loss = form()
    if loss is not None:
        loss.backward()


def times_ms(x: Batch, rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds per form and round; the first round only warms up."""
    found: dict[str, list[float]] = {name: [] for name in forms(x)}
    for round_ in range(rounds + 1):
        for name, form in forms(x).items():
            start = time.process_time()
            once(x, form)
            if round_:
                found[name].append((time.process_time() - start) * 1e3)
    return found


def peak_mib(x: Batch, form: Callable[[], Tensor | None]) -> float:
    """Most bytes that the allocator had out at once for this call: gradients counted, inputs not."""
    x.queries.grad = x.documents.grad = None
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        loss = form()
        if loss is not None:
            loss.backward()
    events = sorted(
        (e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"),
        key=lambda e: e.start_ns(),
    )
    now = peak = 0
    for event in events:
        now += event.nbytes()
        peak = max(peak, now)
    return peak / 2**20


def ratio(found: dict[str, list[float]], name: str, to: str) -> float:
    """Median over the rounds of the ratio within a round: both met the same load."""
    return statistics.median(a / b for a, b in zip(found[name], found[to], strict=True))


def main() -> None:
    write = report.arguments(__doc__ or "").parse_args().write
    torch.set_num_threads(1)
    parts = [
        "# H-InfoNCE against InfoNCE\n",
        f"d = {WIDTH}, τ = {TAU}, forward and backward, one thread; ms: median CPU time; "
        "ratios: median over the rounds.\n",
    ]
    reached = []
    for b, n, rounds in SIZES:
        x = batch(b, n)
        found = times_ms(x, rounds)
        rows = [
            [
                name,
                f"{statistics.median(ms):.1f}",
                f"{ratio(found, name, PLAIN):.2f}",
                f"{ratio(found, name, HAND):.2f}",
                f"{peak_mib(x, form):.1f}",
            ]
            for (name, ms), form in zip(found.items(), forms(x).values(), strict=True)
        ]
        header = (f"B = {b}, N = {n}, P = {b * POSITIVES}", "ms", "of autograd", "of by hand", "peak MiB")
        parts.append(report.table(header, rows) + "\n")
        for to in (PLAIN, HAND):
            got, goal = ratio(found, OURS, to), GOALS[b, to]
            reached.append(
                [f"B = {b}: time of {to}", f"{goal:.2f}", f"{got:.2f}", "yes" if got <= goal else "no"]
            )
    x = batch(*MEMORY)
    peaks = {name: peak_mib(x, form) for name, form in forms(x).items()}
    rows = [[name, f"{mib:.1f}", f"{mib / peaks[PLAIN]:.2f}"] for name, mib in peaks.items()]
    parts.append(report.table((f"B = {MEMORY[0]}, N = {MEMORY[1]}", "peak MiB", "of autograd"), rows) + "\n")
    share = peaks[SMALL] / peaks[PLAIN]
    reached.append(
        [
            f"B = {MEMORY[0]}: peak memory, 64 queries at a time",
            "0.12",
            f"{share:.2f}",
            "yes" if share < 0.125 else "no",
        ]
    )
    parts.append(
        report.table(("H-InfoNCE as training calls it, against", "goal", "measured", "reached"), reached)
        + "\n"
    )
    parts.append(report.machine(["torch"]))
    report.out("loss", "\n".join(parts), write=write)


if __name__ == "__main__":
    main()
