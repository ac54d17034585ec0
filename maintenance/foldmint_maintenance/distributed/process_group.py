"""The processes that train together: one alone, or as many as torchrun started.

Every process sees its share of a batch. Sums go over all of them, so that all compute the same step; what is drawn at
random is drawn by rank 0 and sent to the others.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor


class ProcessGroup:
    """One process alone. rank: which of `size` processes this is."""

    rank = 0
    size = 1

    def even_slice(self, count: int) -> slice:
        """The share of `count` items that is this process's. Raises ValueError if they do not divide evenly."""
        share, rest = divmod(count, self.size)
        if rest:
            raise ValueError(f"{count} items do not divide evenly among {self.size} processes")
        return slice(self.rank * share, (self.rank + 1) * share)

    def slice_of(self, count: int) -> slice:
        """The share of `count` items that is this process's, as even as may be; none is empty if there are enough."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        return value

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """The mean over all processes."""
        return self.all_reduce_sum(value) / self.size

    def mean(self, total: Tensor, weight: Tensor) -> Tensor:
        """total / weight over all processes, as a share of a loss.

        Its value is this process's part times `size`: the mean of all processes' gradients is the gradient of the
        mean over the whole batch, however unevenly what counts is spread.
        """
        return total * self.size / self.all_reduce_sum(weight.detach()).clamp_min(1e-6)

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Put the mean over all processes into every gradient."""

    def all_gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes one after another."""
        return rows

    def broadcast(self, value: Tensor) -> Tensor:
        """The value of rank 0."""
        return value

    def barrier(self) -> None:
        """Until every process has come here."""


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
        """Put the mean over all processes into every gradient, in one exchange.

        What takes no part in a step has no gradient in any process, and gets none: zeros would let it decay.
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
        """The rows of all processes one after another, however many each has."""
        own = torch.tensor(len(rows), device=rows.device)
        counts = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(counts, own)
        longest = max(int(count) for count in counts)
        # What is exchanged must be of one shape.
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
        """Until every process has come here."""
        dist.barrier()


@contextmanager
def process_group(device: torch.device) -> Iterator[ProcessGroup]:
    """The group that torchrun's environment tells of; one process alone without it. nccl on GPUs, gloo elsewhere."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Not all that is exchanged lies on the GPUs.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield TorchProcessGroup()
    finally:
        dist.destroy_process_group()


def own_device(name: str) -> torch.device:
    """The device that a process trains on: as named; auto takes a GPU if there is one, of several that of its rank.

    Raises ValueError for a name that torch does not know.
    """
    if name != "auto":
        try:
            return torch.device(name)
        except RuntimeError as error:
            raise ValueError(f"there is no device {name!r}") from error
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
