"""A device for tests of the scheduler, and structures whose rows tell where they belong."""

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import torch
from prometheus_client import CollectorRegistry
from torch import Tensor

from foldmint_server.inference.scheduler import Scheduler, SchedulerConfig
from foldmint_server.metrics.registry import Metrics, create_metrics
from foldmint_tokenizer.engine import Quantized
from foldmint_tokenizer.frames import Frames
from foldmint_tokenizer.neighborhoods import Geometry, Neighborhoods

CONFIG = SchedulerConfig(batch_residues=100, slice_residues=10, max_delay=0.0, queued_residues=1000)
EMBEDDINGS = [torch.zeros(1)]


def structure(rows: int, name: int) -> Geometry:
    """A structure whose rows tell which structure and row they are: residue_index = 10,000 * name + row."""
    index = np.arange(rows) + 10_000 * name
    frames = Frames(np.tile(np.eye(3), (rows, 1, 1)), np.zeros((rows, 3)), np.ones(rows, bool))
    frames.origin[:, 0] = index
    nearest = np.full((rows, 16), -1, np.int32)
    nearest[:, 0] = np.arange(rows)
    # A second neighbor a residue, at the chain's start, carries the row's number into the neighborhood.
    nearest[:, 1] = 0
    return Geometry(frames, index.astype(np.int64), np.arange(rows), nearest)


class CountingDevice:
    """Computes each row's distance from its chain's start; can be held up, and can fail."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.seen: dict[float, int] = {}  # codebooks, and how many batches there were before their first use
        self.last: dict[float, int] = {}  # the same of their last use
        self.warmed: list[tuple[str, float]] = []  # by thread, with codebooks
        self.beginnings: list[int] = []  # batches in which a structure's first row was
        self.probes = 0
        self.lost = False
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.failing: Callable[[int], bool] = lambda _: False

    def vectors(self, rows: Neighborhoods) -> Tensor:
        self.entered.set()
        assert self.go.wait(10)
        self.beginnings += [len(self.batches)] * int((rows.origin[:, 1, 0] == 0).sum())
        self.batches.append(len(rows.offset))
        if self.failing(len(rows.offset)):
            raise RuntimeError("out of memory")
        return torch.from_numpy(-rows.origin[:, 1, :1])

    def bind_thread(self) -> None:
        self.thread = threading.current_thread().name

    def warm_up(self, embeddings: Tensor) -> None:
        self.warmed.append((threading.current_thread().name, float(embeddings[0])))
        if self.failing(0):
            raise RuntimeError("no memory")

    def probe(self, embeddings: Tensor) -> None:  # noqa: ARG002 (as the scheduler calls it)
        self.probes += 1
        if self.lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def quantize(self, z: Tensor, embeddings: Tensor) -> Quantized:
        self.seen.setdefault(float(embeddings[0]), len(self.batches) - 1)
        self.last[float(embeddings[0])] = len(self.batches) - 1
        values = z[:, 0].numpy() + float(embeddings[0])
        return Quantized(values.astype(np.int64), values.astype(np.float32))


async def started(device: CountingDevice) -> None:
    await asyncio.to_thread(device.entered.wait, 10)


async def held_up(device: CountingDevice, scheduler: Scheduler) -> "asyncio.Task[Quantized]":
    """A batch of one row that is under way until the device may go on."""
    device.go.clear()
    device.entered.clear()  # by batches before
    running = asyncio.create_task(scheduler.compute(structure(1, 99), EMBEDDINGS))
    await started(device)
    return running


def new_metrics() -> Metrics:
    """Metrics in a registry of their own."""
    return create_metrics(CollectorRegistry())
