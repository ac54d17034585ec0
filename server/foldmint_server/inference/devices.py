"""The devices that a server computes on, and how their batches are cut."""

import copy
from collections.abc import Sequence

import torch

from foldmint_server.inference.scheduler import SchedulerConfig
from foldmint_server.settings import Settings
from foldmint_tokenizer import ModelError
from foldmint_tokenizer.engine import Engine, Precision
from foldmint_tokenizer.model import Model


def devices_of(names: str) -> list[torch.device]:
    """Devices by their names: cpu, cuda, cuda:1, …, several by commas; cuda:all is every GPU, auto one if there is any.

    Raises ModelError for an invalid name, and for a GPU that does not exist.
    """
    devices = [device for name in names.split(",") for device in _named(name.strip())]
    present = torch.cuda.device_count()
    for device in devices:
        if device.type == "cuda" and (device.index or 0) >= present:
            raise ModelError(f"device {device} does not exist: torch finds {present} GPUs")
    return devices


def engines_of(model: Model, settings: Settings) -> list[Engine]:
    """Engines for the devices of the settings, in their order: one of a GPU, of a CPU as many as it has threads.

    Raises ModelError for a device that does not exist, or does not support the precision.
    """
    devices = devices_of(settings.device)
    on_cpu = sum(device.type == "cpu" for device in devices)
    # Several on one CPU share its threads.
    threads = max(1, torch.get_num_threads() // on_cpu) if on_cpu > 1 else None
    encoders = [model.encoder, *(copy.deepcopy(model.encoder) for _ in devices[1:])]  # an engine takes it to its device
    engines = [
        Engine(
            encoder,
            device,
            threads=threads,
            precision=Precision(settings.precision),
            compiled=settings.compile,
        )
        for encoder, device in zip(encoders, devices, strict=True)
    ]
    return [worker for engine in engines for worker in engine.worker_engines()]


def scheduling(settings: Settings, engines: Sequence[Engine]) -> SchedulerConfig:
    """Sizes as set, or as suits the smallest of the devices."""
    batch = settings.max_batch_residues or min(engine.step_rows for engine in engines)
    return SchedulerConfig(
        batch_residues=batch,
        slice_residues=settings.slice_residues or max(1, batch // 8),
        max_delay=settings.max_delay,
        queued_residues=settings.max_queued_residues,
        min_split_residues=min([batch, *(engine.few_rows for engine in engines)]),
    )


def _named(name: str) -> list[torch.device]:
    if name == "auto":
        return [torch.device("cuda" if torch.cuda.is_available() else "cpu")]
    if name == "cuda:all":
        if not torch.cuda.is_available():
            raise ModelError("cuda:all needs a GPU, and torch finds none")
        return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    try:
        return [torch.device(name)]
    except RuntimeError as error:
        raise ModelError(f"{name!r} is not a device; devices are cpu, cuda, cuda:1, …") from error
