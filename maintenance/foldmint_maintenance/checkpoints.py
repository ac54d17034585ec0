"""Checkpoints of a training: one safetensors file, from which it goes on as if it had never stopped."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from foldmint_maintenance.errors import OtherTraining
from foldmint_maintenance.training import Trainer
from foldmint_tokenizer.codebook import Codebook

NAME = "checkpoint.safetensors"


def save(trainer: Trainer, folder: Path) -> None:
    """Write the training's whole state; the file is complete before it takes the last one's place."""
    tensors: dict[str, Tensor] = {}
    for prefix, module in (("encoder", trainer.encoder), ("predictor", trainer.predictor)):
        tensors |= {f"{prefix}.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"codebook.{name}": value for name, value in trainer.codebook._asdict().items()}
    for index, state in trainer.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    part = folder / (NAME + ".part")
    save_file({name: value.contiguous() for name, value in tensors.items()}, part, {"training": _identity(trainer)})
    part.replace(folder / NAME)


def restore(trainer: Trainer, folder: Path) -> None:
    """Put the state of the folder's checkpoint into a new trainer.

    Raises OtherTraining if the checkpoint belongs to a training with other sizes, settings or data.
    """
    with safe_open(folder / NAME, "pt") as file:
        metadata = json.loads((file.metadata() or {})["training"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    step = metadata.pop("step")
    expected = json.loads(_identity(trainer))
    different = [key for key in metadata if metadata[key] != expected.get(key)]
    if different:
        raise OtherTraining(f"the checkpoint in {folder} is of another training: {', '.join(different)} differ")
    for prefix, module in (("encoder.", trainer.encoder), ("predictor.", trainer.predictor)):
        module.load_state_dict({n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)})
    trainer.codebook = Codebook(*(tensors[f"codebook.{name}"] for name in Codebook._fields))
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, field = name.split(".")
            state.setdefault(int(index), {})[field] = value
    trainer.optimizer.load_state_dict(trainer.optimizer.state_dict() | {"state": state})
    trainer.step = step


def _identity(trainer: Trainer) -> str:
    return json.dumps(
        {
            "model": asdict(trainer.encoder.config),
            "config": asdict(trainer.config),
            "data": trainer.data_digest,
            "torch": torch.__version__,
            "step": trainer.step,
        }
    )
