"""Several processes that train one encoder, as `torchrun` starts them: gloo between CPUs, nccl between GPUs.

Every rank draws the same joint batch (it depends on samples, seed and step alone) and encodes its own share
of it, so each distinct text is encoded once in all and the labels are those of one process: no text that a
query knows on another rank can turn into a negative. Vectors are gathered, every rank takes the loss of the
joint batch, and the gradient of its own vectors goes back through its own graph; the parameters' gradients
are summed. No gradient of a vector travels: against the encoder the loss is nothing (0.001 % of the
operations at 1024 queries, 2 % at 64 ranks).
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from crops.errors import ConfigError
from crops.retriever.errors import RanksDiffer

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # rank 0 searches and writes while the others wait


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's number and how many there are; a single process has nothing to exchange."""

    rank: int = 0
    count: int = 1

    def shares(self, lengths: Sequence[int]) -> list[np.ndarray]:
        """Rows of every rank: dealt out by length, so that all have as much to encode; counts differ by one
        at most.
        """
        if self.count == 1:
            return [np.arange(len(lengths))]
        order = np.argsort(np.asarray(lengths), kind="stable")
        return [order[r :: self.count] for r in range(self.count)]

    def gather(self, own: Tensor, shares: Sequence[np.ndarray]) -> Tensor:
        """own [N of this rank, H], rows as in `shares` -> [N, H] of all ranks, without a graph."""
        if self.count == 1:
            return own.detach()
        padded = own.new_zeros(max(map(len, shares)), own.shape[1])
        padded[: len(own)] = own.detach()
        parts = [torch.empty_like(padded) for _ in shares]
        dist.all_gather(parts, padded)
        whole = own.new_empty(sum(map(len, shares)), own.shape[1])
        for part, rows in zip(parts, shares, strict=True):
            whole[torch.from_numpy(rows).to(own.device)] = part[: len(rows)]
        return whole

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sums .grad over the ranks, in place. A parameter without a gradient on every rank stays without."""
        if self.count == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        used = torch.tensor(
            [p.grad is not None for p in trained], dtype=torch.int32, device=trained[0].device
        )
        dist.all_reduce(used)
        waiting = []
        for parameter, ranks in zip(trained, used.tolist(), strict=True):
            if ranks:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                waiting.append(dist.all_reduce(parameter.grad, async_op=True))
        for work in waiting:
            work.wait()

    def check_same(self, facts: dict[str, Any]) -> None:
        """RanksDiffer on every rank if a fact differs between ranks: they would train different models
        without a word.
        """
        if self.count == 1:
            return
        every: list[dict[str, Any]] = [{} for _ in range(self.count)]
        dist.all_gather_object(every, facts)
        for rank, other in enumerate(every):
            for name, value in other.items():
                if value != every[0][name]:
                    raise RanksDiffer(
                        f"rank {rank} has {name} {value}, rank 0 has {every[0][name]}: start every rank "
                        "with the same command, "
                        "config, inputs and a checkpoints folder that all of them see"
                    )

    def from_first(self, make: Callable[[], T]) -> T:
        """make() on rank 0 only; its value on every rank, which also waits for it."""
        if self.count == 1:
            return make()
        box = [make() if self.rank == 0 else None]
        dist.broadcast_object_list(box, src=0)
        return box[0]  # type: ignore[return-value]

    def copy_weights(self, module: nn.Module) -> None:
        """Rank 0's weights on every rank."""
        if self.count > 1:
            for tensor in module.state_dict().values():
                dist.broadcast(tensor, src=0)


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that torchrun started (RANK, WORLD_SIZE, LOCAL_RANK in the environment), else this process
    alone.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield ALONE
        return
    local, cuda = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.is_available()
    if cuda and local >= torch.cuda.device_count():
        raise ConfigError(
            f"local rank {local} has no GPU, {torch.cuda.device_count()} are here: lower --nproc-per-node"
        )
    if cuda:
        torch.cuda.set_device(local)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
