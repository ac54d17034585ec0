"""The store: a model and the versions of its codebook, as files whose digests are checked.

model.json                              name, sizes, digests of encoder and decoder
encoder.safetensors
decoder.safetensors                     if the model has a decoder
codebooks/000001/codebook.safetensors   embeddings, N, z_avg; windows if they were measured
codebooks/000001/manifest.json          digests of codebook and encoder, and what the version came from
ACTIVE                                  the version in use
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from foldmint_tokenizer import vocabulary
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.decoder import Decoder, DecoderConfig
from foldmint_tokenizer.encoder import Encoder, ModelConfig
from foldmint_tokenizer.errors import ModelError

FORMAT = 1
DEFAULT = Path(__file__).parent / "default"
"""The embedded default model."""

_WINDOW_SHAPE = (9, 3, 3)


@dataclass(frozen=True)
class CodebookVersion:
    """One version of a codebook. digest: SHA-256 of its file.

    windows: (codes, 9, 3, 3), Å, mean backbone (N, CA, C) of the nine residues around those that got a code, in the
    middle one's frame; NaN for codes that were never met; None if it was not measured.
    """

    version: str
    digest: str
    codebook: Codebook
    windows: Tensor | None = None


@dataclass(frozen=True)
class Model:
    """An encoder, the active version of its codebook, and a decoder if there is one.

    encoder_digest, decoder_digest: SHA-256 of their files.
    """

    name: str
    config: ModelConfig
    encoder: Encoder
    encoder_digest: str
    codebook: CodebookVersion
    decoder: Decoder | None = None
    decoder_digest: str | None = None


def load_model(path: str | os.PathLike[str] | None = None) -> Model:
    """The model of a store, with its active codebook; of the embedded default if no path is given.

    Raises ModelError, with the reason, if a file is missing or does not fit what model.json and manifest say.
    """
    root = DEFAULT if path is None else Path(path)
    about = _json(root / "model.json")
    if about.get("format") != FORMAT:
        raise ModelError(f"{root / 'model.json'}: format {about.get('format')!r}; this software reads {FORMAT}")
    try:
        name, sizes, digest = str(about["name"]), dict(about["sizes"]), str(about["encoder_sha256"])
        config = ModelConfig(**sizes)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{root / 'model.json'} is incomplete or wrong: {error!r}") from error
    with torch.device("meta"):  # no memory and no random numbers for weights that the file holds
        encoder = Encoder(config)
    _fill(encoder, _tensors(root / "encoder.safetensors", digest), root / "encoder.safetensors")
    version = _text(root / "ACTIVE").strip()
    codebook = load_codebook(root, version, config, digest)
    if "decoder" in about and config.codes > vocabulary.CODES:
        raise ModelError(f"{root}: a decoder knows {vocabulary.CODES} codes, and the codebook has {config.codes}")
    return Model(name, config, encoder.eval(), digest, codebook, *_decoder(root, about))


def _decoder(root: Path, about: Mapping[str, Any]) -> tuple[Decoder, str] | tuple[None, None]:
    if "decoder" not in about:
        return None, None
    try:
        digest = str(about["decoder"]["sha256"])
        config = DecoderConfig(**about["decoder"]["sizes"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{root / 'model.json'}: its decoder is incomplete or wrong: {error!r}") from error
    with torch.device("meta"):
        decoder = Decoder(config)
    _fill(decoder, _tensors(root / "decoder.safetensors", digest), root / "decoder.safetensors")
    return decoder.eval(), digest


def load_codebook(root: Path, version: str, config: ModelConfig, encoder_digest: str) -> CodebookVersion:
    """A version of a store's codebook. Raises ModelError if it is damaged or belongs to another encoder."""
    if not version.isalnum():
        raise ModelError(f"{version!r} is no version of a codebook")
    folder = root / "codebooks" / version
    manifest = _json(folder / "manifest.json")
    if manifest.get("encoder_sha256") != encoder_digest:
        raise ModelError(f"codebook {version} belongs to another encoder than {root / 'encoder.safetensors'}")
    digest = str(manifest.get("codebook_sha256"))
    file = folder / "codebook.safetensors"
    tensors = _tensors(file, digest)
    shapes = {"embeddings": (config.codes, config.out), "N": (config.codes,), "z_avg": (config.codes, config.out)}
    for name, shape in shapes.items():
        if name not in tensors:
            raise ModelError(f"{file} lacks the tensor {name!r}")
        _check(tensors[name], name, shape, file)
    windows = tensors.get("windows")
    if windows is not None and tuple(windows.shape) != (config.codes, *_WINDOW_SHAPE):
        raise ModelError(f"{file}: windows has shape {tuple(windows.shape)}")
    return CodebookVersion(version, digest, Codebook(*(tensors[n].float() for n in Codebook._fields)), windows)


def create_store(
    path: str | os.PathLike[str],
    *,
    name: str,
    encoder: Encoder,
    codebook: Codebook,
    decoder: Decoder | None = None,
    windows: Tensor | None = None,
    about: Mapping[str, object],
) -> Model:
    """Write a new store with one version of the codebook, and load it back.

    decoder, windows: if the model has them. about: where the model came from; goes into model.json and the manifest as
    it is. Raises ModelError if the folder exists and holds anything.
    """
    root = Path(path)
    if root.exists() and any(root.iterdir()):
        raise ModelError(f"{root} exists and is not empty")
    version = "000001"
    folder = root / "codebooks" / version
    folder.mkdir(parents=True)
    encoder_digest = _save(encoder.state_dict(), root / "encoder.safetensors")
    tensors = dict(codebook._asdict()) | ({} if windows is None else {"windows": windows})
    codebook_digest = _save(tensors, folder / "codebook.safetensors")
    manifest = {
        "version": version,
        "parent": None,
        "codebook_sha256": codebook_digest,
        "encoder_sha256": encoder_digest,
        "about": dict(about),
    }
    _write_json(folder / "manifest.json", manifest)
    model: dict[str, object] = {
        "format": FORMAT,
        "name": name,
        "sizes": asdict(encoder.config),
        "encoder_sha256": encoder_digest,
        "about": dict(about),
    }
    if decoder is not None:
        decoder_digest = _save(decoder.state_dict(), root / "decoder.safetensors")
        model["decoder"] = {"sizes": asdict(decoder.config), "sha256": decoder_digest}
    (root / "ACTIVE").write_text(version + "\n", encoding="utf-8")
    # Last: without it, the folder is no store.
    _write_json(root / "model.json", model)
    return load_model(root)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_text(path))
    except ValueError as error:
        raise ModelError(f"{path} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object")
    return value


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _save(tensors: Mapping[str, Tensor], path: Path) -> str:
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _tensors(path: Path, digest: str) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise ModelError(f"{path} is damaged: its SHA-256 is {found}, and should be {digest}")
    try:
        return load(content)
    except SafetensorError as error:
        raise ModelError(f"{path} is no safetensors file: {error}") from error


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    expected = module.state_dict()
    if expected.keys() != tensors.keys():
        different = sorted(expected.keys() ^ tensors.keys())
        raise ModelError(f"{path} does not hold the model's tensors; missing or not known: {', '.join(different)}")
    for name, value in expected.items():
        _check(tensors[name], name, tuple(value.shape), path)
    module.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)


def _check(tensor: Tensor, name: str, shape: tuple[int, ...], path: Path) -> None:
    if tuple(tensor.shape) != shape:
        raise ModelError(f"{path}: {name} has shape {tuple(tensor.shape)}, and should have {shape}")
    if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
        raise ModelError(f"{path}: {name} holds values that are no finite floating-point numbers")
