"""Import of ESM3's published structure encoder and decoder: from `.pth` files to a model of Foldmint's own format.

    foldmint-maintenance import-esm3 --encoder esm3_structure_encoder_v0.pth \
        --decoder esm3_structure_decoder_v0.pth --out model/

The weights are under a license of their own; the user brings the files. This is the only place that opens a pickle,
and only for tensors.
"""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from foldmint_tokenizer import vocabulary
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.decoder import ESM3_DECODER, Decoder
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.model import Model
from foldmint_tokenizer.neighborhoods import OFFSETS
from foldmint_tokenizer.shapes_only import shapes_only
from foldmint_tokenizer.sizes import DecoderConfig, ModelConfig
from foldmint_tokenizer.store.model_store import create_store
from foldmint_tokenizer.structure.options import Reading

NAME = "esm3-structure-encoder-v0"

_CODEBOOK = "codebook."
_ENCODER, _DECODER = "encoder", "decoder"
_HEAD_SIZE = ESM3_DECODER.width // ESM3_DECODER.heads
_TABLE = "relative_positional_embedding.embedding.weight"


def import_esm3(
    encoder_pth: Path,
    out: Path,
    name: str = NAME,
    *,
    decoder_pth: Path | None = None,
    decoder_heads: int | None = None,
    reading: Reading | None = None,
) -> Model:
    """Write the model of state dicts of the reference's StructureTokenEncoder, and StructureTokenDecoder if given.

    Sizes may be any. decoder_heads: of the decoder's attention, which no shape shows; heads of 64 dimensions, as in
    the published decoder, by default. reading: which residues of a file count by default; `esm` gives the tokens that
    ESM's SDK gives of the same file; all if None. Tensors may be float32, bfloat16 or float16, and are stored as
    float32. Raises ModelError, naming the tensor, if a file is not such a state dict; OSError if it cannot be read.
    """
    encoder, codebook = _encoder(_loaded(encoder_pth))
    about: dict[str, object] = {"imported_from": encoder_pth.name, "sha256": _digest(encoder_pth)}
    decoder = None
    if decoder_pth is not None:
        if encoder.config.codes > vocabulary.CODES:
            raise ModelError(f"a decoder reads {vocabulary.CODES} codes, and the encoder has {encoder.config.codes}")
        decoder = _decoder(_loaded(decoder_pth), decoder_heads)
        about |= {"decoder_imported_from": decoder_pth.name, "decoder_sha256": _digest(decoder_pth)}
    return create_store(
        out, name=name, encoder=encoder, codebook=codebook, decoder=decoder, reading=reading, about=about
    )


def _encoder(tensors: Mapping[str, Tensor]) -> tuple[Encoder, Codebook]:
    config = _config(tensors)
    with shapes_only():  # no memory is taken before the file has proved to hold what it says
        encoder = Encoder(config)
    expected = {name: value.shape for name, value in encoder.state_dict().items()}
    expected |= {
        _CODEBOOK + "embeddings": torch.Size([config.codes, config.out]),
        _CODEBOOK + "N": torch.Size([config.codes]),
        _CODEBOOK + "z_avg": torch.Size([config.codes, config.out]),
    }
    _check(tensors, expected, _ENCODER)
    weights = {name: value.float() for name, value in tensors.items()}
    own = {name: value for name, value in weights.items() if not name.startswith(_CODEBOOK)}
    encoder.load_state_dict(own, assign=True)
    return encoder.eval(), Codebook(*(weights[_CODEBOOK + name] for name in Codebook._fields))


def _decoder(tensors: Mapping[str, Tensor], heads: int | None) -> Decoder:
    with shapes_only():
        decoder = Decoder(_decoder_config(tensors, heads))
    _check(tensors, {name: value.shape for name, value in decoder.state_dict().items()}, _DECODER)
    decoder.load_state_dict({name: value.float() for name, value in tensors.items()}, assign=True)
    return decoder.eval()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _loaded(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ModelError(f"{path} is not a PyTorch checkpoint: it is not a zip archive")
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
    """Sizes from the shapes of the tensors."""
    config = (
        _width(tensors, _TABLE, OFFSETS, _ENCODER),
        _size(tensors, "transformer.blocks.0.geom_attn.distance_scale_per_head", 1, 0, _ENCODER),
        _layers(tensors, "transformer.blocks."),
        _size(tensors, "pre_vq_proj.weight", 2, 0, _ENCODER),
        _size(tensors, _CODEBOOK + "embeddings", 2, 0, _ENCODER),
    )
    if min(config) < 1:
        raise ModelError(f"a size of the encoder is zero: width, heads, layers, out and codes are {config}")
    return ModelConfig(*config)


def _decoder_config(tensors: Mapping[str, Tensor], heads: int | None) -> DecoderConfig:
    """The same of a decoder. heads: None for heads as large as the published ones."""
    width = _width(tensors, "embed.weight", vocabulary.SIZE, _DECODER)
    if heads is None and width % _HEAD_SIZE:
        raise ModelError(f"the decoder's width, {width}, is not a multiple of {_HEAD_SIZE}: say how many heads it has")
    try:
        return DecoderConfig(
            width, width // _HEAD_SIZE if heads is None else heads, _layers(tensors, "decoder_stack.blocks.")
        )
    except ValueError as error:
        raise ModelError(f"no decoder has these sizes: {error}") from error


def _width(tensors: Mapping[str, Tensor], table: str, rows: int, of: str) -> int:
    width = _size(tensors, table, 2, 1, of)
    if len(tensors[table]) != rows:
        raise ModelError(f"{table} has {len(tensors[table])} rows; ESM3's {of} has {rows}")
    return width


def _layers(tensors: Mapping[str, Tensor], prefix: str) -> int:
    layers = 0
    while any(name.startswith(f"{prefix}{layers}.") for name in tensors):
        layers += 1
    return layers


def _not(of: str) -> str:
    return f"this is not a state dict of ESM3's structure {of}"


def _size(tensors: Mapping[str, Tensor], name: str, dimensions: int, axis: int, of: str) -> int:
    if name not in tensors:
        raise ModelError(f"{_not(of)}: {name} is missing")
    shape = tensors[name].shape
    if len(shape) != dimensions:
        raise ModelError(f"{name} has {len(shape)} dimensions, not {dimensions}")
    return shape[axis]


def _check(tensors: Mapping[str, Tensor], expected: Mapping[str, torch.Size], of: str) -> None:
    for what, names in (("missing", expected.keys() - tensors.keys()), ("unknown", tensors.keys() - expected.keys())):
        if names:
            raise ModelError(f"{_not(of)}: {len(names)} tensors are {what}, such as {min(names)}")
    for name, shape in expected.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise ModelError(f"{name} has shape {tuple(tensor.shape)}, and the other tensors ask for {tuple(shape)}")
        if not tensor.is_floating_point():
            raise ModelError(f"{name} holds {tensor.dtype}, not floating-point numbers")
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{name} holds numbers that are not finite")
