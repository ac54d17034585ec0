"""Memory of the GPUs that the server computes on, for Prometheus."""

from collections.abc import Callable, Iterable, Iterator
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
    """Bytes of a GPU: in use by all processes, in total, reserved by this process' torch, and allocated to tensors."""

    used: int
    total: int
    reserved: int
    allocated: int


def gpu_memory(device: torch.device) -> GpuMemory:
    """The memory of a CUDA device. Raises RuntimeError if it does not answer."""
    free, total = torch.cuda.mem_get_info(device)
    return GpuMemory(total - free, total, torch.cuda.memory_reserved(device), torch.cuda.memory_allocated(device))


class GpuCollector(Collector):
    """The memory of devices, read at each scrape; nothing of those that are not CUDA devices.

    The series of a GPU that does not answer are left out; the other metrics of the scrape are not affected.
    """

    def __init__(self, devices: Iterable[torch.device], read: Callable[[torch.device], GpuMemory] = gpu_memory) -> None:
        self._devices = [device for device in devices if device.type == "cuda"]
        self._read = read
        self._silent: set[torch.device] = set()

    def collect(self) -> Iterator[Metric]:
        """A gauge for each kind of memory."""
        found = {str(device): memory for device in self._devices if (memory := self._memory(device)) is not None}
        if not found:
            return
        for name in GpuMemory._fields:
            family = GaugeMetricFamily(f"foldmint_gpu_memory_{name}_bytes", _TEXTS[name], labels=["device"])
            for device, memory in found.items():
                family.add_metric([device], getattr(memory, name))
            yield family

    def _memory(self, device: torch.device) -> GpuMemory | None:
        try:
            memory = self._read(device)
        except RuntimeError as error:
            if device not in self._silent:
                log.warning("the GPU's memory cannot be read", device=str(device), reason=str(error))
            self._silent.add(device)
            return None
        self._silent.discard(device)
        return memory
