"""Process groups: a single process, or those started by torchrun.

Every process computes a slice of a batch. Sums are all-reduced, so that all compute the same step; random samples are
drawn by rank 0 and broadcast.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


class ProcessGroup:
    """A single process. rank: of this process among `size`."""

    rank = 0
    size = 1

    def even_slice(self, count: int) -> slice:
        """The process's slice of `count` items. Raises `ValueError` if they do not divide evenly."""
        share, rest = divmod(count, self.size)
        if rest:
            raise ValueError(f"{count} items do not divide evenly among {self.size} processes")
        return slice(self.rank * share, (self.rank + 1) * share)

    def slice_of(self, count: int) -> slice:
        """The process's slice of `count` items, as even as possible; none is empty if there are enough."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        return value

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        return self.all_reduce_sum(value) / self.size

    def mean(self, total: Tensor, weight: Tensor) -> Tensor:
        """The process's part of a loss that is total / weight over all processes.

        The value is scaled by `size`, so that the mean of all processes' gradients is the gradient of the mean over the
        whole batch, however unevenly the weight is distributed.
        """
        return total * self.size / self.all_reduce_sum(weight.detach()).clamp_min(1e-6)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over all processes."""

    def all_gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, concatenated."""
        return rows

    def broadcast(self, value: Tensor) -> Tensor:
        """The value of rank 0."""
        return value

    def barrier(self) -> None:
        """Wait for all processes."""


ALONE = ProcessGroup()


class TorchProcessGroup(ProcessGroup):
    """The processes of the initialized default group of torch.distributed."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        total = value.clone()
        dist.all_reduce(total)
        return total

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over all processes, in one all-reduce.

        Parameters unused in a step have no gradient in any process, and get none: with zeros, weight decay would apply.
        """
        parts = [(p, p.grad) for p in parameters if p.grad is not None]
        if not parts:
            return
        flat = torch.cat([gradient.reshape(-1) for _, gradient in parts])
        dist.all_reduce(flat)
        flat /= self.size
        for (parameter, _), part in zip(parts, torch.split(flat, [p.numel() for p, _ in parts]), strict=True):
            parameter.grad = part.view_as(parameter)

    def all_gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, concatenated; each may have a different number."""
        own = torch.tensor(len(rows), device=rows.device)
        counts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(counts, own)
        longest = max(int(count) for count in counts)
        # all_gather needs equal shapes.
        sent = rows.new_zeros(longest, *rows.shape[1:])
        sent[: len(rows)] = rows
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(parts, sent)
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts, strict=True)])

    def broadcast(self, value: Tensor) -> Tensor:
        """The value of rank 0."""
        sent = value.clone()
        dist.broadcast(sent, src=0)
        return sent

    def barrier(self) -> None:
        """Wait for all processes."""
        dist.barrier()


@contextmanager
def process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """The group of torchrun's environment; a single process without it. nccl on GPUs, gloo elsewhere."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Some tensors are on the CPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield TorchProcessGroup()
    finally:
        dist.destroy_process_group()


def own_device(name: str) -> torch.device:
    """The device of this process: the named one; `auto` is the GPU of its local rank, or the CPU without GPUs.

    Raises `ValueError` for a name that torch does not know.
    """
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError as error:
            raise ValueError(f"there is no device {name!r}") from error
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
