"""Metrics of GPUs. No test has one: torch's own functions are replaced, where the server calls them."""

from collections.abc import Callable

import pytest
import torch
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from foldmint_server.metrics.gpu import GpuCollector, GpuMemory
from helpers.monitoring.metrics_reference import linted, shown, told

GPUS = [torch.device(name) for name in ("cuda:0", "cuda:1")]


class FakeCuda:
    """What torch.cuda answers of two GPUs; broken: functions that raise, by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broken: dict[str, Exception] = {}
        answers: dict[str, Callable[[torch.device], object]] = {
            "mem_get_info": lambda device: (7, 10) if device == GPUS[0] else (70, 100),
            "memory_reserved": lambda device: 2 if device == GPUS[0] else 20,
            "memory_allocated": lambda device: 1 if device == GPUS[0] else 10,
            "utilization": lambda device: 100 if device == GPUS[0] else 25,
        }
        for name, answer in answers.items():
            monkeypatch.setattr(torch.cuda, name, self._faulty(name, answer))

    def _faulty(self, name: str, answer: Callable[[torch.device], object]) -> Callable[[torch.device], object]:
        def call(device: torch.device) -> object:
            if name in self.broken:
                raise self.broken[name]
            return answer(device)

        return call


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


def values(registry: CollectorRegistry) -> dict[str, dict[str, float]]:
    """Of each metric, its values by device."""
    return {
        family.name.removeprefix("foldmint_gpu_"): {one.labels["device"]: one.value for one in family.samples}
        for family in registry.collect()
    }


MEMORY = {
    "memory_used_bytes": {"cuda:0": 3, "cuda:1": 30},
    "memory_total_bytes": {"cuda:0": 10, "cuda:1": 100},
    "memory_reserved_bytes": {"cuda:0": 2, "cuda:1": 20},
    "memory_allocated_bytes": {"cuda:0": 1, "cuda:1": 10},
}


def test_memory_and_utilization_of_each(cuda: FakeCuda) -> None:
    registry = CollectorRegistry()
    registry.register(GpuCollector([torch.device("cpu"), *GPUS]))
    text = generate_latest(registry).decode()
    assert shown(text_string_to_metric_families(text)) == told("GPU")
    assert linted(text) == ""
    assert values(registry) == MEMORY | {"utilization_ratio": {"cuda:0": 1, "cuda:1": 0.25}}


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("pynvml does not seem to be installed"),  # torch's own
        RuntimeError("cuda driver can't be loaded"),
        type("NVMLError_NotSupported", (Exception,), {})("Not Supported"),  # pynvml's derive from Exception
    ],
)
def test_without_utilization_memory_is_still_told(
    cuda: FakeCuda, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    cuda.broken["utilization"] = error
    registry = CollectorRegistry()
    registry.register(GpuCollector(GPUS[:1]))
    for _ in range(3):
        assert values(registry) == {name: {"cuda:0": of["cuda:0"]} for name, of in MEMORY.items()}
    assert capsys.readouterr().out.count(str(error)) == 1  # told once
    cuda.broken.clear()
    assert values(registry)["utilization_ratio"] == {"cuda:0": 1}


def test_without_a_gpu_nothing_is_read(cuda: FakeCuda) -> None:
    cuda.broken = dict.fromkeys(("mem_get_info", "utilization"), AssertionError("a CPU has no memory of its own"))
    assert list(GpuCollector([torch.device("cpu")]).collect()) == []


def test_a_gpu_that_does_not_answer_leaves_all_else_to_be_scraped(
    cuda: FakeCuda, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {GPUS[0]}

    def read(device: torch.device) -> GpuMemory:
        if device in broken:
            raise RuntimeError("CUDA error: device-side assert triggered")
        return GpuMemory(1, 2, 1, 1)

    collector = GpuCollector(GPUS, read)

    def devices() -> set[str]:
        return {
            sample.labels["device"]
            for family in collector.collect()
            if "memory" in family.name
            for sample in family.samples
        }

    assert [devices(), devices()] == [{"cuda:1"}] * 2
    assert capsys.readouterr().out.count("device-side assert triggered") == 1  # told once
    broken.clear()
    assert devices() == {"cuda:0", "cuda:1"}
    broken.update(GPUS)
    assert devices() == set()
