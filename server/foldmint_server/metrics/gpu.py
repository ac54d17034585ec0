"""Memory and utilization of the GPUs that the server computes on, for Prometheus."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import structlog
import torch
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = structlog.get_logger(__name__)
T = TypeVar("T")

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


def gpu_utilization(device: torch.device) -> float:
    """The share of the last sample period, up to a second, in which a CUDA device computed, for any process.

    Raises ModuleNotFoundError without `pynvml`, and its errors or RuntimeError if the driver does not answer.
    """
    return torch.cuda.utilization(device) / 100


class GpuCollector(Collector):
    """Memory and utilization of devices, read at each scrape; nothing of those that are not CUDA devices.

    The series of a GPU that does not answer are left out, with one line in the log; the other metrics of the scrape are
    not affected.
    """

    def __init__(
        self,
        devices: Iterable[torch.device],
        read: Callable[[torch.device], GpuMemory] = gpu_memory,
        read_utilization: Callable[[torch.device], float] = gpu_utilization,
    ) -> None:
        self._devices = [device for device in devices if device.type == "cuda"]
        self._read, self._read_utilization = read, read_utilization
        self._silent: set[tuple[torch.device, str]] = set()

    def collect(self) -> Iterator[Metric]:
        """A gauge for each kind of memory, and one for utilization."""
        found = self.memory()
        for name in GpuMemory._fields if found else ():
            family = GaugeMetricFamily(f"foldmint_gpu_memory_{name}_bytes", _TEXTS[name], labels=["device"])
            for device, memory in found.items():
                family.add_metric([device], getattr(memory, name))
            yield family
        if busy := self._answers("utilization", self._read_utilization):
            family = GaugeMetricFamily(
                "foldmint_gpu_utilization_ratio",
                "Share of the last second in which the GPU computed, for any process; needs the package nvidia-ml-py.",
                labels=["device"],
            )
            for device, share in busy.items():
                family.add_metric([device], share)
            yield family

    def memory(self) -> dict[str, GpuMemory]:
        """The memory of each device that answers, by its name."""
        return self._answers("memory", self._read)

    def _answers(self, what: str, read: Callable[[torch.device], T]) -> dict[str, T]:
        found = {}
        for device in self._devices:
            try:
                found[str(device)] = read(device)
            except Exception as error:  # noqa: BLE001 (pynvml has its own; none of them may fail a scrape)
                if (device, what) not in self._silent:
                    log.warning(f"the GPU's {what} cannot be read", device=str(device), reason=str(error))
                self._silent.add((device, what))
            else:
                self._silent.discard((device, what))
        return found
