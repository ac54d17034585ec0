"""Memory of the GPU that the server computes on, for Prometheus."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import structlog
import torch
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = structlog.get_logger(__name__)

_TEXTS = {
    "used": "Memory of the GPU in use, by all processes.",
    "total": "Memory that the GPU has.",
    "reserved": "Memory of the GPU that this server's torch holds, in use or not.",
    "allocated": "Memory of the GPU that this server's tensors take.",
}


class GpuMemory(NamedTuple):
    """Bytes of a GPU: in use by all processes, there at all, held by this process' torch, and taken by its tensors."""

    used: int
    total: int
    reserved: int
    allocated: int


def gpu_memory(device: torch.device) -> GpuMemory:
    """The memory of a CUDA device. Raises RuntimeError if it does not answer."""
    free, total = torch.cuda.mem_get_info(device)
    return GpuMemory(total - free, total, torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device))


class GpuCollector(Collector):
    """The memory of a device, read at each scrape; nothing of one that is no CUDA device.

    A GPU that does not answer leaves the gaps that it is seen by: the scrape's other metrics tell what else is wrong.
    """

    def __init__(self, device: torch.device, read: Callable[[torch.device], GpuMemory] = gpu_memory) -> None:
        self._device, self._read = device, read
        self._well = True

    def collect(self) -> Iterator[Metric]:
        """A gauge for each kind of memory."""
        if self._device.type != "cuda":
            return
        try:
            memory = self._read(self._device)
        except RuntimeError as error:
            if self._well:
                log.warning("the GPU's memory cannot be read", device=str(self._device), reason=str(error))
            self._well = False
            return
        self._well = True
        for name, value in memory._asdict().items():
            family = GaugeMetricFamily(f"foldmint_gpu_memory_{name}_bytes", _TEXTS[name], labels=["device"])
            family.add_metric([str(self._device)], value)
            yield family
