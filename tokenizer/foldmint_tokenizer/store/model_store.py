"""The store: a model and the versions of its codebook, as files whose digests are checked; anywhere fsspec reaches.

model.json                              name, sizes, digests of encoder and decoder; the lever arm of motions, if codes
                                        state them; `reading`, if files are to be read otherwise than with `all`
encoder.safetensors
decoder.safetensors                     if the model has a decoder
codebooks/000001/codebook.safetensors   embeddings, N, z_avg; windows if they were measured
codebooks/000001/decoder.safetensors    codes, rows: what the decoder reads of codes that mean something else than in
                                        the model's own decoder; if there are such
codebooks/000001/manifest.json          digests of the files and of the encoder, and what the version came from
ACTIVE                                  the version in use
LAST                                    the highest version that was ever begun, once there are several

A version is never changed, and there is none without its manifest, which is written last.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from foldmint_tokenizer import vocabulary
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.decoder import Decoder, DecoderConfig
from foldmint_tokenizer.encoder import Encoder, ModelConfig
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.model import CodebookVersion, DecoderRows, Model, Weights
from foldmint_tokenizer.motion.motion_decoder import AnyDecoder, MotionDecoder, MotionDecoderConfig
from foldmint_tokenizer.store.storage import Files
from foldmint_tokenizer.store.validation import checked_codebook, checked_lever, checked_rows, fill
from foldmint_tokenizer.structure.options import Reading

FORMAT = 1
DEFAULT = Path(__file__).parent.parent / "default"
"""The embedded default model."""

EMBEDDED = {"foldmint": DEFAULT, "geometry": Path(__file__).parent.parent / "geometry"}
"""The models that the package holds, by the names that stand for their stores where there is no such path."""

_MANIFEST, _CODEBOOK, _ROWS = "manifest.json", "codebook.safetensors", "decoder.safetensors"

Location = str | os.PathLike[str]


def load_model(location: Location | None = None, version: str | None = None) -> Model:
    """The model of a store, with a version of its codebook; of the embedded default if no location is given.

    location: a path, a URL as fsspec takes them, or the name of an embedded model (`EMBEDDED`). version: by default,
    the active one. Raises ModelError, with the reason, if a file is missing or does not fit what the others say.
    """
    return Store(location).load(version)


class Store:
    """A model's store. All methods raise ModelError, with the reason, where something is missing or does not fit."""

    def __init__(self, location: Location | None = None) -> None:
        """location: a path, a URL as fsspec takes them, or the name of an embedded model; by default foldmint."""
        try:
            self.files = Files(DEFAULT if location is None else _embedded(location))
        except OSError as error:
            raise ModelError(str(error)) from error

    def about(self) -> dict[str, Any]:
        """model.json."""
        about = self._json("model.json")
        if about.get("format") != FORMAT:
            where = self.files.path("model.json")
            raise ModelError(f"{where}: format {about.get('format')!r}; this software reads {FORMAT}")
        return about

    def load(self, version: str | None = None) -> Model:
        """The model with a version of its codebook, by default the active one."""
        weights = self.weights()
        return Model(
            weights.name,
            weights.config,
            weights.encoder,
            weights.encoder_digest,
            self.codebook(version),
            weights.decoder,
            weights.decoder_digest,
            weights.reading,
            weights.lever,
        )

    def weights(self) -> Weights:
        """What of the model does not change with its codebook: encoder, and decoder if there is one."""
        about, where = self.about(), self.files.path("model.json")
        try:
            name, sizes, digest = str(about["name"]), dict(about["sizes"]), str(about["encoder_sha256"])
            config = ModelConfig(**sizes)
            lever = checked_lever(about, config)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{where} is incomplete or wrong: {error!r}") from error
        with torch.device("meta"):  # no memory and no random numbers for weights that the file holds
            encoder = Encoder(config)
        fill(encoder, self._tensors("encoder.safetensors", digest), self.files.path("encoder.safetensors"))
        if "decoder" in about and config.codes > vocabulary.CODES:
            raise ModelError(
                f"{self.files}: a decoder knows {vocabulary.CODES} codes, and the codebook has {config.codes}"
            )
        decoder, decoder_digest = self._decoder(about)
        return Weights(name, config, encoder.eval(), digest, decoder, decoder_digest, self._reading(about), lever)

    def versions(self) -> list[str]:
        """The versions of the codebook that are complete, in order."""
        try:
            names = [name for name in self.files.names("codebooks") if _is_version(name)]
            return [name for name in names if self.files.exists(f"codebooks/{name}/{_MANIFEST}")]
        except OSError as error:
            raise ModelError(str(error)) from error

    def active(self) -> str:
        """The version in use."""
        return self._text("ACTIVE").strip()

    def manifest(self, version: str) -> dict[str, Any]:
        """What was written of a version."""
        if not _is_version(version):
            raise ModelError(f"{version[:100]!r} is no version of a codebook")
        return self._json(f"codebooks/{version}/{_MANIFEST}")

    def codebook(self, version: str | None = None) -> CodebookVersion:
        """A version of the codebook, by default the active one; refused if it belongs to another encoder."""
        about = self.about()
        try:
            config, encoder_digest = ModelConfig(**about["sizes"]), str(about["encoder_sha256"])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{self.files.path('model.json')} is incomplete or wrong: {error!r}") from error
        version = self.active() if version is None else version
        manifest = self.manifest(version)
        if manifest.get("encoder_sha256") != encoder_digest:
            raise ModelError(
                f"codebook {version} belongs to another encoder than {self.files.path('encoder.safetensors')}"
            )
        digest, name = str(manifest.get("codebook_sha256")), f"codebooks/{version}/{_CODEBOOK}"
        codebook, windows = checked_codebook(self._tensors(name, digest), config, self.files.path(name))
        rows = self._decoder_rows(version, manifest, about)
        return CodebookVersion(version, digest, codebook, windows, rows, manifest)

    def begin(
        self,
        *,
        name: str,
        encoder: Encoder,
        codebook: Codebook,
        decoder: AnyDecoder | None = None,
        windows: Tensor | None = None,
        lever: float | None = None,
        reading: Reading | None = None,
        about: Mapping[str, object],
    ) -> Model:
        """What `create_store` does, in a place that holds nothing."""
        if self._listed(""):
            raise ModelError(f"{self.files} exists and is not empty")
        version = "000001"
        model: dict[str, object] = {
            "format": FORMAT,
            "name": name,
            "sizes": asdict(encoder.config),
            "encoder_sha256": self._save(encoder.state_dict(), "encoder.safetensors"),
            "about": dict(about),
        }
        if lever is not None:
            model["motion"] = {"lever": lever}
        if reading is not None:
            model["reading"] = reading
        if decoder is not None:
            reads = "vectors" if isinstance(decoder, MotionDecoder) else "ids"
            decoder_digest = self._save(decoder.state_dict(), "decoder.safetensors")
            model["decoder"] = {"reads": reads, "sizes": asdict(decoder.config), "sha256": decoder_digest}
        self._write_version(version, None, codebook, windows, None, model, about)
        self._write("ACTIVE", f"{version}\n".encode())
        # Last: without it, the folder is no store.
        self._create("model.json", _written(model))
        return self.load()

    def publish(
        self,
        codebook: Codebook,
        *,
        parent: str | None,
        windows: Tensor | None = None,
        decoder_rows: DecoderRows | None = None,
        about: Mapping[str, object],
    ) -> CodebookVersion:
        """Write a new version beside the others, whole before it is seen, and load it back; it is not active yet.

        parent: the version that it was made from. about: goes into the manifest as it is. What a run that was killed
        left of a version is passed over. Raises ModelError if another process publishes at the same time.
        """
        numbers = [
            int(name) for name in (*self._listed("codebooks"), self._last()) if name.isascii() and name.isdecimal()
        ]
        version = f"{max(numbers, default=0) + 1:06d}"
        # Before anything else of it: no number is ever given twice, even if its version is removed.
        self._write("LAST", f"{version}\n".encode())
        self._write_version(version, parent, codebook, windows, decoder_rows, self.about(), about)
        return self.codebook(version)

    def activate(self, version: str) -> None:
        """Let a version be the one in use, after a look at all of it."""
        self.codebook(version)
        self._write("ACTIVE", f"{version}\n".encode())

    def remove(self, version: str) -> None:
        """Remove a version, its manifest first, or what is left of one; the one in use is refused."""
        if not _is_version(version):
            raise ModelError(f"{version[:100]!r} is no version of a codebook")
        if version == self.active():
            raise ModelError(f"codebook {version} is in use")
        try:
            self.files.remove(f"codebooks/{version}/{_MANIFEST}")
            self.files.remove(f"codebooks/{version}")
        except OSError as error:
            raise ModelError(str(error)) from error

    def incomplete(self) -> list[str]:
        """Versions without a manifest: of a run that was killed, or that is at it."""
        complete = self.versions()
        return [name for name in self._listed("codebooks") if _is_version(name) and name not in complete]

    def _write_version(
        self,
        version: str,
        parent: str | None,
        codebook: Codebook,
        windows: Tensor | None,
        decoder_rows: DecoderRows | None,
        model: Mapping[str, Any],
        about: Mapping[str, object],
    ) -> None:
        folder = f"codebooks/{version}"
        tensors = dict(codebook._asdict()) | ({} if windows is None else {"windows": windows})
        manifest: dict[str, object] = {
            "version": version,
            "parent": parent,
            "codebook_sha256": self._save(tensors, f"{folder}/{_CODEBOOK}"),
            "encoder_sha256": model["encoder_sha256"],
        }
        if decoder_rows is not None:
            manifest["decoder_rows_sha256"] = self._save(decoder_rows._asdict(), f"{folder}/{_ROWS}")
            manifest["decoder_sha256"] = model["decoder"]["sha256"]
        self._create(f"{folder}/{_MANIFEST}", _written(manifest | {"about": dict(about)}))

    def _reading(self, about: Mapping[str, Any]) -> Reading:
        reading: Reading = about.get("reading", "all")
        if reading not in get_args(Reading):
            known = ", ".join(get_args(Reading))
            raise ModelError(f"{self.files.path('model.json')}: reading is {reading!r}; this software knows {known}")
        return reading

    def _decoder(self, about: Mapping[str, Any]) -> tuple[AnyDecoder, str] | tuple[None, None]:
        if "decoder" not in about:
            return None, None
        try:
            digest = str(about["decoder"]["sha256"])
            # Of models written before there were others: token ids.
            reads, sizes = about["decoder"].get("reads", "ids"), about["decoder"]["sizes"]
            config = {"ids": DecoderConfig, "vectors": MotionDecoderConfig}[reads](**sizes)
            vectors = about["sizes"]["out"] if "motion" in about else None
            if isinstance(config, MotionDecoderConfig) and config.out != vectors:
                raise ValueError("it reads vectors that the model does not have")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{self.files.path('model.json')}: its decoder is incomplete or wrong: {error!r}"
            ) from error
        decoder: AnyDecoder
        with torch.device("meta"):
            decoder = Decoder(config) if isinstance(config, DecoderConfig) else MotionDecoder(config)
        fill(decoder, self._tensors("decoder.safetensors", digest), self.files.path("decoder.safetensors"))
        return decoder.eval(), digest

    def _decoder_rows(self, version: str, manifest: Mapping[str, Any], about: Mapping[str, Any]) -> DecoderRows | None:
        if "decoder_rows_sha256" not in manifest:
            return None
        decoder = about.get("decoder") or {}
        if manifest.get("decoder_sha256") != decoder.get("sha256"):
            raise ModelError(
                f"codebook {version} belongs to another decoder than {self.files.path('decoder.safetensors')}"
            )
        name = f"codebooks/{version}/{_ROWS}"
        tensors = self._tensors(name, str(manifest["decoder_rows_sha256"]))
        width = int(decoder["sizes"]["width"])
        return checked_rows(tensors, int(about["sizes"]["codes"]), width, self.files.path(name))

    def _last(self) -> str:
        """The highest version that was ever begun; empty if that is not written down."""
        try:
            return self.files.read("LAST").decode("ascii", "replace").strip()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise ModelError(f"{self.files.path('LAST')} cannot be read: {error}") from error

    def _text(self, name: str) -> str:
        try:
            return self.files.read(name).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{self.files.path(name)} cannot be read: {error}") from error

    def _json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads(self._text(name))
        except ValueError as error:
            raise ModelError(f"{self.files.path(name)} is no JSON: {error}") from error
        if not isinstance(value, dict):
            raise ModelError(f"{self.files.path(name)} holds no JSON object")
        return value

    def _tensors(self, name: str, digest: str) -> dict[str, Tensor]:
        where = self.files.path(name)
        try:
            content = self.files.read(name)
        except OSError as error:
            raise ModelError(f"{where} cannot be read: {error}") from error
        found = hashlib.sha256(content).hexdigest()
        if found != digest:
            raise ModelError(f"{where} is damaged: its SHA-256 is {found}, and should be {digest}")
        try:
            return load(content)
        except SafetensorError as error:
            raise ModelError(f"{where} is no safetensors file: {error}") from error

    def _listed(self, folder: str) -> list[str]:
        try:
            return self.files.names(folder)
        except OSError as error:
            raise ModelError(str(error)) from error

    def _write(self, name: str, content: bytes) -> None:
        try:
            self.files.write(name, content)
        except OSError as error:
            raise ModelError(f"{self.files.path(name)} cannot be written: {error}") from error

    def _create(self, name: str, content: bytes) -> None:
        try:
            self.files.create(name, content)
        except FileExistsError as error:
            raise ModelError(f"{self.files.path(name)}: another process has just written it") from error
        except OSError as error:
            raise ModelError(f"{self.files.path(name)} cannot be written: {error}") from error

    def _save(self, tensors: Mapping[str, Tensor], name: str) -> str:
        content = save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
        self._create(name, content)
        return hashlib.sha256(content).hexdigest()


def create_store(
    location: Location,
    *,
    name: str,
    encoder: Encoder,
    codebook: Codebook,
    decoder: AnyDecoder | None = None,
    windows: Tensor | None = None,
    lever: float | None = None,
    reading: Reading | None = None,
    about: Mapping[str, object],
) -> Model:
    """Write a new store with one version of the codebook, and load it back.

    decoder, windows, lever: if the model has them. reading: which residues of a file count unless a caller says
    otherwise; all if None. about: where the model came from; goes into model.json and the manifest as it is. Raises
    ModelError if the folder exists and holds anything.
    """
    return Store(location).begin(
        name=name,
        encoder=encoder,
        codebook=codebook,
        decoder=decoder,
        windows=windows,
        lever=lever,
        reading=reading,
        about=about,
    )


def _embedded(location: Location) -> Location:
    """The place of an embedded model, if its name is given and nothing else has this path."""
    name = os.fspath(location)
    return EMBEDDED[name] if name in EMBEDDED and not Path(name).exists() else location


def _is_version(name: str) -> bool:
    return name.isascii() and name.isalnum()


def _written(value: Mapping[str, object]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
