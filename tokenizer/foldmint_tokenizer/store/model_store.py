"""The store: a model and the versions of its codebook, in a folder or wherever else fsspec reaches.

`layout` lists a store's files.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.encoder import Encoder
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.model import CodebookVersion, DecoderRows, Model, Weights
from foldmint_tokenizer.motion.motion_decoder import AnyDecoder, MotionDecoder
from foldmint_tokenizer.store import control, layout
from foldmint_tokenizer.store.checked_files import create_json, create_tensors, list_names, write
from foldmint_tokenizer.store.control import Canary, Control
from foldmint_tokenizer.store.embedded import DEFAULT as DEFAULT
from foldmint_tokenizer.store.embedded import EMBEDDED as EMBEDDED
from foldmint_tokenizer.store.loading import load_about, load_codebook, load_manifest, load_weights
from foldmint_tokenizer.store.storage import Files
from foldmint_tokenizer.structure.options import Reading

Location = str | os.PathLike[str]


def load_model(location: Location | None = None, version: str | None = None) -> Model:
    """Load a store's model with a version of its codebook.

    location: a path, a URL as fsspec takes them, or the name of an embedded model (`EMBEDDED`); by default `foldmint`.
    version: by default, the active one. Raises ModelError, with the reason, if a file is missing, damaged, or does not
    match the others.
    """
    return Store(location).load(version)


class Store:
    """A model's store. All methods raise ModelError, with the reason, if a file is missing, damaged or inconsistent."""

    def __init__(self, location: Location | None = None) -> None:
        """location: a path, a URL as fsspec takes them, or the name of an embedded model; by default `foldmint`."""
        try:
            self.files = Files(DEFAULT if location is None else _resolve_embedded(location))
        except OSError as error:
            raise ModelError(str(error)) from error

    def about(self) -> dict[str, Any]:
        """model.json."""
        return load_about(self.files)

    def load(self, version: str | None = None) -> Model:
        """Load the model with a version of its codebook, by default the active one."""
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
        """Load the parts of the model that do not change with its codebook: the encoder, and the decoder if any."""
        return load_weights(self.files, self.about())

    def codebook(self, version: str | None = None) -> CodebookVersion:
        """Load a version of the codebook, by default the active one.

        Raises ModelError if it was made for another encoder or decoder than the store's.
        """
        about = self.about()
        return load_codebook(self.files, about, self.active() if version is None else version)

    def versions(self) -> list[str]:
        """The complete versions of the codebook, in order."""
        try:
            names = [name for name in self.files.names(layout.CODEBOOKS) if layout.is_version(name)]
            return [name for name in names if self.files.exists(layout.manifest_of(name))]
        except OSError as error:
            raise ModelError(str(error)) from error

    def incomplete(self) -> list[str]:
        """Versions without a manifest: being written now, or left by a run that was killed."""
        complete = self.versions()
        names = list_names(self.files, layout.CODEBOOKS)
        return [name for name in names if layout.is_version(name) and name not in complete]

    def active(self) -> str:
        """The active version."""
        return control.read_active(self.files)

    def canary(self) -> Canary | None:
        """The version that a share of the servers serves instead, None if there is none."""
        return control.read_canary(self.files)

    def control(self) -> Control:
        """The active version and the canary: what servers follow."""
        return control.read_control(self.files)

    def history(self) -> list[str]:
        """The versions that were active, the oldest first; the last one is active now."""
        return control.read_history(self.files)

    def rollback_target(self, from_version: str = "") -> tuple[str, str]:
        """The active version and the one that was active before.

        from_version: that must be the active one; empty: any. Raises ModelError if another is, or none was before.
        """
        history = self.history()
        return history[-1], control.rollback_target(self.files, history, from_version)

    def manifest(self, version: str) -> dict[str, Any]:
        """A version's manifest."""
        return load_manifest(self.files, version)

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
        """Write the first version of a model, as `create_store` does, at a location that must be empty."""
        if list_names(self.files, ""):
            raise ModelError(f"{self.files} exists and is not empty")
        version = "000001"
        model: dict[str, object] = {
            "format": layout.FORMAT,
            "name": name,
            "sizes": asdict(encoder.config),
            "encoder_sha256": create_tensors(self.files, layout.ENCODER, encoder.state_dict()),
            "about": dict(about),
        }
        if lever is not None:
            model["motion"] = {"lever": lever}
        if reading is not None:
            model["reading"] = reading
        if decoder is not None:
            reads = "vectors" if isinstance(decoder, MotionDecoder) else "ids"
            digest = create_tensors(self.files, layout.DECODER, decoder.state_dict())
            model["decoder"] = {"reads": reads, "sizes": asdict(decoder.config), "sha256": digest}
        self._write_version(version, None, codebook, windows, None, model, about)
        control.write_active(self.files, version)
        # Last: a folder without it is not a store.
        create_json(self.files, layout.MODEL, model)
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
        """Write a new version and load it back. Readers see it once it is complete; it is not activated.

        parent: the version that it was derived from. about: goes into the manifest unchanged. Numbers of incomplete
        versions are not reused. Raises ModelError if another process publishes at the same time.
        """
        names = [*list_names(self.files, layout.CODEBOOKS), self._last()]
        numbers = [int(name) for name in names if name.isascii() and name.isdecimal()]
        version = f"{max(numbers, default=0) + 1:06d}"
        # First, so that a number is never used twice, even if its version is removed.
        write(self.files, layout.LAST, f"{version}\n".encode())
        self._write_version(version, parent, codebook, windows, decoder_rows, self.about(), about)
        return self.codebook(version)

    def activate(self, version: str) -> None:
        """Make a version the active one, after loading and checking it. A canary of the version ends.

        Of this and the next three methods, one may run at a time: under the store's lock (`StoreLock`).
        """
        self.codebook(version)
        control.activate(self.files, version)

    def roll_back(self, from_version: str = "") -> str:
        """Make the version active again that was active before, after loading and checking it, and return it.

        Arguments and errors are those of `rollback_target`.
        """
        active, target = self.rollback_target(from_version)
        self.codebook(target)
        return control.roll_back(self.files, active)

    def start_canary(self, version: str, share: float) -> None:
        """Let a share of the servers, above 0 and at most 1, serve a version, after loading and checking it."""
        self.codebook(version)
        if version == self.active():
            raise ModelError(f"codebook {version} is active: all servers serve it")
        control.write_canary(self.files, Canary(version, share))

    def end_canary(self) -> None:
        """Let all servers serve the active version; also if CANARY cannot be read."""
        control.end_canary(self.files)

    def remove(self, version: str) -> None:
        """Remove a version, complete or not, its manifest first. Raises ModelError if it is active or the canary."""
        if not layout.is_version(version):
            raise ModelError(f"invalid codebook version: {version[:100]!r}")
        if version == self.active():
            raise ModelError(f"codebook {version} is in use")
        canary = self.canary()
        if canary is not None and version == canary.version:
            raise ModelError(f"codebook {version} is the canary")
        try:
            self.files.remove(layout.manifest_of(version))
            self.files.remove(f"{layout.CODEBOOKS}/{version}")
        except OSError as error:
            raise ModelError(str(error)) from error

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
        tensors = dict(codebook._asdict()) | ({} if windows is None else {"windows": windows})
        manifest: dict[str, object] = {
            "version": version,
            "parent": parent,
            "codebook_sha256": create_tensors(self.files, layout.codebook_of(version), tensors),
            "encoder_sha256": model["encoder_sha256"],
        }
        if decoder_rows is not None:
            rows = create_tensors(self.files, layout.decoder_rows_of(version), decoder_rows._asdict())
            manifest["decoder_rows_sha256"] = rows
            manifest["decoder_sha256"] = model["decoder"]["sha256"]
        create_json(self.files, layout.manifest_of(version), manifest | {"about": dict(about)})

    def _last(self) -> str:
        """The highest version number ever used; empty if the store does not record it."""
        try:
            return self.files.read(layout.LAST).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise ModelError(f"{self.files.path(layout.LAST)} cannot be read: {error}") from error


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

    decoder, windows, lever: if the model has them. reading: which residues of a file count by default; `all` if None.
    about: the model's origin; goes into model.json and the manifest unchanged. Raises ModelError if the folder exists
    and is not empty.
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


def _resolve_embedded(location: Location) -> Location:
    """The path of an embedded model if the location is its name and no such path exists; otherwise the location."""
    name = os.fspath(location)
    return EMBEDDED[name] if name in EMBEDDED and not Path(name).exists() else location
