"""Import of ESM3's published structure encoder: from its `.pth` to a model of Foldmint's own format.

    foldmint-maintenance import-esm3 --encoder esm3_structure_encoder_v0.pth --out model/

The weights are under a license of their own; the user brings the file. This is the only place that opens a pickle,
and only for tensors.
"""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder, ModelConfig
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.neighborhoods import OFFSETS
from foldmint_tokenizer.store import Model, create_store

NAME = "esm3-structure-encoder-v0"

_CODEBOOK = "codebook."
_NOT_THIS = "this is no state dict of ESM3's structure encoder"
_TABLE = "relative_positional_embedding.embedding.weight"


def import_esm3(encoder_pth: Path, out: Path, name: str = NAME) -> Model:
    """Write the model of a state dict of the reference's StructureTokenEncoder; its sizes may be any.

    Tensors may be float32, bfloat16 or float16, and are stored as float32. Raises ModelError, naming the tensor, if
    the file is no such state dict; OSError if it cannot be read.
    """
    tensors = _loaded(encoder_pth)
    config = _config(tensors)
    with torch.device("meta"):  # shapes only: no memory is taken before the file has proved to hold what it says
        encoder = Encoder(config)
    expected = {name: value.shape for name, value in encoder.state_dict().items()}
    expected |= {
        _CODEBOOK + "embeddings": torch.Size([config.codes, config.out]),
        _CODEBOOK + "N": torch.Size([config.codes]),
        _CODEBOOK + "z_avg": torch.Size([config.codes, config.out]),
    }
    _check(tensors, expected)
    weights = {name: value.float() for name, value in tensors.items()}
    own = {name: value for name, value in weights.items() if not name.startswith(_CODEBOOK)}
    encoder.load_state_dict(own, assign=True)
    codebook = Codebook(*(weights[_CODEBOOK + name] for name in Codebook._fields))
    with encoder_pth.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    about: dict[str, object] = {"imported_from": encoder_pth.name, "sha256": digest}
    return create_store(out, name=name, encoder=encoder.eval(), codebook=codebook, about=about)


def _loaded(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ModelError(f"{path} is no PyTorch checkpoint: it is not a zip archive")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # the unpickler fails in as many ways as files can be damaged
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{path} cannot be read as a checkpoint of tensors alone: {reason[:200]}") from error
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path} holds no tensors by name, but a {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ModelError(f"{path} holds no tensors by name: {name!r} is a {type(value).__name__}")
    return dict(content)


def _config(tensors: Mapping[str, Tensor]) -> ModelConfig:
    """Sizes from the shapes of the tensors that tell them."""
    width = _size(tensors, _TABLE, 2, 1)
    if _size(tensors, _TABLE, 2, 0) != OFFSETS:
        raise ModelError(f"{_TABLE} has {len(tensors[_TABLE])} rows; ESM3's encoder has {OFFSETS}")
    layers = 0
    while any(name.startswith(f"transformer.blocks.{layers}.") for name in tensors):
        layers += 1
    config = (
        width,
        _size(tensors, "transformer.blocks.0.geom_attn.distance_scale_per_head", 1, 0),
        layers,
        _size(tensors, "pre_vq_proj.weight", 2, 0),
        _size(tensors, _CODEBOOK + "embeddings", 2, 0),
    )
    if min(config) < 1:
        raise ModelError(f"a size of the encoder is zero: width, heads, layers, out and codes are {config}")
    return ModelConfig(*config)


def _size(tensors: Mapping[str, Tensor], name: str, dimensions: int, axis: int) -> int:
    if name not in tensors:
        raise ModelError(f"{_NOT_THIS}: {name} is missing")
    shape = tensors[name].shape
    if len(shape) != dimensions:
        raise ModelError(f"{name} has {len(shape)} dimensions, not {dimensions}")
    return shape[axis]


def _check(tensors: Mapping[str, Tensor], expected: Mapping[str, torch.Size]) -> None:
    for what, names in (("missing", expected.keys() - tensors.keys()), ("unknown", tensors.keys() - expected.keys())):
        if names:
            raise ModelError(f"{_NOT_THIS}: {len(names)} tensors are {what}, such as {min(names)}")
    for name, shape in expected.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise ModelError(f"{name} has shape {tuple(tensor.shape)}, and the other tensors ask for {tuple(shape)}")
        if not tensor.is_floating_point():
            raise ModelError(f"{name} holds {tensor.dtype}, not floating-point numbers")
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{name} holds numbers that are not finite")
