"""Checks of tensors read from files, before anything is computed with them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.model import DecoderRows
from foldmint_tokenizer.motion.motions import MOTION
from foldmint_tokenizer.sizes import ModelConfig

_WINDOW_SHAPE = (9, 3, 3)


def checked_codebook(tensors: Mapping[str, Tensor], config: ModelConfig, where: str) -> tuple[Codebook, Tensor | None]:
    """Codebook, and backbone fragments if any, from a file's tensors. Raises ModelError if they do not match."""
    shapes = {"embeddings": (config.codes, config.out), "N": (config.codes,), "z_avg": (config.codes, config.out)}
    for name, shape in shapes.items():
        if name not in tensors:
            raise ModelError(f"{where} has no tensor {name!r}")
        check(tensors[name], name, shape, where)
    if (tensors["N"] < 0).any():
        raise ModelError(f"{where}: N contains negative counts")
    windows = tensors.get("windows")
    if windows is not None and tuple(windows.shape) != (config.codes, *_WINDOW_SHAPE):
        raise ModelError(f"{where}: windows has shape {tuple(windows.shape)}")
    return Codebook(*(tensors[name].float() for name in Codebook._fields)), windows


def checked_rows(tensors: Mapping[str, Tensor], codes: int, width: int, where: str) -> DecoderRows:
    """Decoder rows from a file's tensors. Raises ModelError if they do not match the numbers of codes and the width."""
    for key in DecoderRows._fields:
        if key not in tensors:
            raise ModelError(f"{where} has no tensor {key!r}")
    own, rows = tensors["codes"], tensors["rows"]
    fit = own.ndim == 1 and own.dtype == torch.int64 and len(set(own.tolist())) == len(own)
    if not fit or ((own < 0) | (own >= codes)).any():
        raise ModelError(f"{where}: the tensor codes does not contain distinct code numbers")
    check(rows, "rows", (len(own), width), where)
    return DecoderRows(own, rows.float())


def checked_lever(about: Mapping[str, Any], config: ModelConfig) -> float | None:
    """The lever arm if the codes encode motions, otherwise None; about: model.json. Raises ValueError or KeyError."""
    if "motion" not in about:
        return None
    lever = about["motion"]["lever"]
    if not isinstance(lever, int | float) or isinstance(lever, bool) or not 0 < lever < float("inf"):
        raise ValueError(f"motion.lever must be a positive number, not {lever!r}")
    if config.out < MOTION:
        raise ValueError(f"vectors of {config.out} numbers cannot encode motions, which take {MOTION}")
    return float(lever)


def fill(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Set a module's weights from a file's tensors. Raises ModelError if names or shapes differ."""
    expected = module.state_dict()
    if expected.keys() != tensors.keys():
        different = sorted(expected.keys() ^ tensors.keys())
        raise ModelError(f"{where} does not contain the model's tensors; missing or unknown: {', '.join(different)}")
    for name, value in expected.items():
        check(tensors[name], name, tuple(value.shape), where)
    module.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)


def check(tensor: Tensor, name: str, shape: tuple[int, ...], where: str) -> None:
    """Raise ModelError if a tensor has another shape, or values that are not finite floating-point numbers."""
    if tuple(tensor.shape) != shape:
        raise ModelError(f"{where}: {name} has shape {tuple(tensor.shape)}, expected {shape}")
    if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
        raise ModelError(f"{where}: {name} contains values that are not finite floating-point numbers")
