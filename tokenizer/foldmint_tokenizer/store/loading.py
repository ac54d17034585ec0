"""Loads a model's weights and a version of its codebook from a store's files, and checks that they fit each other."""

from collections.abc import Mapping
from typing import Any, get_args

from foldmint_tokenizer import vocabulary
from foldmint_tokenizer.decoder import Decoder
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.model import CodebookVersion, DecoderRows, Weights
from foldmint_tokenizer.motion.motion_decoder import AnyDecoder, MotionDecoder, MotionDecoderConfig
from foldmint_tokenizer.shapes_only import shapes_only
from foldmint_tokenizer.sizes import DecoderConfig, ModelConfig
from foldmint_tokenizer.store import layout
from foldmint_tokenizer.store.checked_files import list_names, read_json, read_tensors
from foldmint_tokenizer.store.storage import Files
from foldmint_tokenizer.store.validation import checked_codebook, checked_lever, checked_rows, fill
from foldmint_tokenizer.structure.options import Reading


def load_about(files: Files) -> dict[str, Any]:
    """model.json. Raises ModelError if it is missing or of another format."""
    try:
        about = read_json(files, layout.MODEL)
    except ModelError as error:
        if isinstance(error.__cause__, FileNotFoundError) and not list_names(files, ""):
            hint = f"to begin with the embedded model: foldmint-maintenance init --store {files}"
            raise ModelError(f"{error}; {hint}") from error.__cause__
        raise
    if about.get("format") != layout.FORMAT:
        where = files.path(layout.MODEL)
        raise ModelError(f"{where}: format {about.get('format')!r}; this software reads {layout.FORMAT}")
    return about


def load_manifest(files: Files, version: str) -> dict[str, Any]:
    """A version's manifest. Raises ModelError if the version does not exist or is incomplete."""
    if not layout.is_version(version):
        raise ModelError(f"invalid codebook version: {version[:100]!r}")
    return read_json(files, layout.manifest_of(version))


def load_weights(files: Files, about: Mapping[str, Any]) -> Weights:
    """The parts of a model that do not change with its codebook: the encoder, and the decoder if any.

    about: model.json.
    """
    where = files.path(layout.MODEL)
    try:
        name, sizes, digest = str(about["name"]), dict(about["sizes"]), str(about["encoder_sha256"])
        config = ModelConfig(**sizes)
        lever = checked_lever(about, config)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{where} is incomplete or wrong: {error!r}") from error
    with shapes_only():
        encoder = Encoder(config)
    fill(encoder, read_tensors(files, layout.ENCODER, digest), files.path(layout.ENCODER))
    if "decoder" in about and config.codes > vocabulary.CODES:
        raise ModelError(f"{files}: a decoder knows {vocabulary.CODES} codes, and the codebook has {config.codes}")
    decoder, decoder_digest = _load_decoder(files, about)
    reading = _reading(files, about)
    return Weights(name, config, encoder.eval(), digest, decoder, decoder_digest, reading, lever)


def load_codebook(files: Files, about: Mapping[str, Any], version: str) -> CodebookVersion:
    """A version of the codebook. about: model.json.

    Raises ModelError if the version was made for another encoder or decoder than the store's.
    """
    try:
        config, encoder_digest = ModelConfig(**about["sizes"]), str(about["encoder_sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{files.path(layout.MODEL)} is incomplete or wrong: {error!r}") from error
    manifest = load_manifest(files, version)
    if manifest.get("encoder_sha256") != encoder_digest:
        raise ModelError(f"codebook {version} belongs to another encoder than {files.path(layout.ENCODER)}")
    digest, name = str(manifest.get("codebook_sha256")), layout.codebook_of(version)
    codebook, windows = checked_codebook(read_tensors(files, name, digest), config, files.path(name))
    rows = _load_decoder_rows(files, version, manifest, about)
    return CodebookVersion(version, digest, codebook, windows, rows, manifest)


def _reading(files: Files, about: Mapping[str, Any]) -> Reading:
    reading: Reading = about.get("reading", "all")
    if reading not in get_args(Reading):
        known = ", ".join(get_args(Reading))
        raise ModelError(f"{files.path(layout.MODEL)}: reading is {reading!r}; this software knows {known}")
    return reading


def _load_decoder(files: Files, about: Mapping[str, Any]) -> tuple[AnyDecoder, str] | tuple[None, None]:
    if "decoder" not in about:
        return None, None
    try:
        digest = str(about["decoder"]["sha256"])
        # Models from before `reads` existed have decoders of token ids.
        reads, sizes = about["decoder"].get("reads", "ids"), about["decoder"]["sizes"]
        config = {"ids": DecoderConfig, "vectors": MotionDecoderConfig}[reads](**sizes)
        vectors = about["sizes"]["out"] if "motion" in about else None
        if isinstance(config, MotionDecoderConfig) and config.out != vectors:
            raise ValueError("it reads vectors that the model does not have")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{files.path(layout.MODEL)}: its decoder is incomplete or wrong: {error!r}") from error
    decoder: AnyDecoder
    with shapes_only():
        decoder = Decoder(config) if isinstance(config, DecoderConfig) else MotionDecoder(config)
    fill(decoder, read_tensors(files, layout.DECODER, digest), files.path(layout.DECODER))
    return decoder.eval(), digest


def _load_decoder_rows(
    files: Files, version: str, manifest: Mapping[str, Any], about: Mapping[str, Any]
) -> DecoderRows | None:
    if "decoder_rows_sha256" not in manifest:
        return None
    decoder = about.get("decoder") or {}
    if manifest.get("decoder_sha256") != decoder.get("sha256"):
        raise ModelError(f"codebook {version} belongs to another decoder than {files.path(layout.DECODER)}")
    name = layout.decoder_rows_of(version)
    tensors = read_tensors(files, name, str(manifest["decoder_rows_sha256"]))
    width = int(decoder["sizes"]["width"])
    return checked_rows(tensors, int(about["sizes"]["codes"]), width, files.path(name))
