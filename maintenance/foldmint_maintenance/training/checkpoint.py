"""Checkpoints of a training: one safetensors file, from which it resumes bit-exactly."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from foldmint_maintenance.errors import CheckpointMismatch
from foldmint_tokenizer.codebook import Codebook

NAME = "checkpoint.safetensors"


class Resumable(Protocol):
    """A training whose state can be saved. step: number of finished steps."""

    step: int

    @property
    def codebook(self) -> Codebook | None:
        """None if the training has none."""
        ...

    @codebook.setter
    def codebook(self, value: Codebook) -> None: ...

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Its state is saved too."""
        ...

    @property
    def modules(self) -> Mapping[str, nn.Module]:
        """Trained modules, by name."""
        ...

    @property
    def identity(self) -> Mapping[str, Any]:
        """What must be equal for a checkpoint to be resumed."""
        ...


def save(trainer: Resumable, folder: Path) -> None:
    """Save the training's whole state. The file is complete before it replaces the previous one."""
    tensors: dict[str, Tensor] = {}
    for prefix, module in trainer.modules.items():
        tensors |= {f"{prefix}.{name}": value for name, value in module.state_dict().items()}
    if trainer.codebook is not None:
        tensors |= {f"codebook.{name}": value for name, value in trainer.codebook._asdict().items()}
    for index, state in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    part = folder / (NAME + ".part")
    # Copies: a file cannot hold two tensors that share memory.
    save_file({name: value.detach().clone() for name, value in tensors.items()}, part, {"training": _metadata(trainer)})
    part.replace(folder / NAME)


def restore(trainer: Resumable, folder: Path) -> None:
    """Load the state of the folder's checkpoint into a new trainer.

    Raises CheckpointMismatch if the checkpoint belongs to a training with other sizes, settings or data.
    """
    with safe_open(folder / NAME, "pt") as file:
        metadata = json.loads((file.metadata() or {})["training"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    step = metadata.pop("step")
    expected = json.loads(_metadata(trainer))
    expected.pop("step")
    different = sorted(key for key in {*metadata, *expected} if metadata.get(key) != expected.get(key))
    if different:
        raise CheckpointMismatch(f"the checkpoint in {folder} is of another training: {', '.join(different)} differ")
    for name, module in trainer.modules.items():
        prefix = name + "."
        module.load_state_dict({n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)})
    if trainer.codebook is not None:
        device = trainer.codebook.embeddings.device
        trainer.codebook = Codebook(*(tensors[f"codebook.{name}"].to(device) for name in Codebook._fields))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, field = name.split(".")
            state.setdefault(int(index), {})[field] = value
    trainer.optimizer.load_state_dict(trainer.optimizer.state_dict() | {"state": state})
    trainer.step = step


def _metadata(trainer: Resumable) -> str:
    return json.dumps({**trainer.identity, "torch": torch.__version__, "step": trainer.step})
