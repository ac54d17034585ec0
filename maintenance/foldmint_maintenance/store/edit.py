"""Changes of a store by hand: old versions of its codebook removed, new ones brought from a file."""

import hashlib
import json
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from foldmint_maintenance.errors import InvalidCodebook
from foldmint_tokenizer.codebook import Codebook
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.model import CodebookVersion, DecoderRows
from foldmint_tokenizer.sizes import ModelConfig
from foldmint_tokenizer.store.lock import StoreLock
from foldmint_tokenizer.store.model_store import Store
from foldmint_tokenizer.store.validation import checked_codebook

_DAY = 86_400.0
# What a write leaves that was killed before its file had its name.
_PART = re.compile(r"\..+\.[0-9a-f]{32}\.part")


@dataclass(frozen=True)
class Pruned:
    """What was removed, or would be. kept: why a version that is not among the newest was kept all the same."""

    removed: tuple[str, ...]
    incomplete: tuple[str, ...]
    parts: tuple[str, ...]
    kept: dict[str, str]


def pruned(
    store: Store,
    keep: int,
    *,
    incomplete: bool = False,
    dry_run: bool = False,
    clock: Callable[[], float] = time.time,
) -> Pruned:
    """Remove all versions but the newest, the active one and its parent, the canary, and what a rollback activates.

    keep: how many of the newest, at least 1. What killed runs left goes once nothing of it was written for a day;
    incomplete versions go at once if `incomplete`. dry_run: only report. clock: seconds since 1970.

    Raises ValueError if keep is below 1, StoreLocked if another run is at the store, LockLost, ModelError.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    with nullcontext() if dry_run else StoreLock(store.files, clock=clock) as lock:
        active, canary, history = store.active(), store.canary(), store.history()
        reasons = {active: "it is in use"}
        if canary is not None:
            reasons.setdefault(canary.version, "it is the canary")
        if len(history) > 1:
            reasons.setdefault(history[-2], "a rollback goes back to it")
        if (parent := store.manifest(active).get("parent")) is not None:
            reasons.setdefault(str(parent), f"{active}, which is in use, was made from it")
        old = store.versions()[:-keep]
        kept = {version: reasons[version] for version in old if version in reasons}
        gone = [version for version in old if version not in reasons]
        unfinished, parts = [], []
        for version in store.incomplete():
            if version in reasons:
                kept[version] = reasons[version]
            elif incomplete or _is_stale(store, f"codebooks/{version}", clock()):
                unfinished.append(version)
            else:
                kept[version] = "it is incomplete, and what was written of it is not a day old"
        for folder in ("", "LOCK", *(f"codebooks/{version}" for version in store.versions() if version not in gone)):
            found = (f"{folder}/{name}".lstrip("/") for name in store.files.names(folder) if _PART.fullmatch(name))
            parts += [name for name in found if _is_stale(store, name, clock())]
        if lock is not None:
            for version in (*gone, *unfinished):
                lock.check()
                store.remove(version)
            for name in parts:
                lock.check()
                store.files.remove(name)
    return Pruned(tuple(gone), tuple(unfinished), tuple(parts), kept)


def imported(store: Store, file: Path, *, activate: bool = True, now: datetime | None = None) -> CodebookVersion:
    """Make a codebook of a file into a new version of a store, and the one in use if `activate`.

    file: safetensors with `embeddings` (codes, out), `N` (codes,) and `z_avg` (codes, out), floating point; others are
    left out. Where it is a version of another store, beside its manifest, that must be of the same encoder. Decoder
    rows of the version in use go with codes whose vectors are the same in both; its windows do not, since the codes'
    regions changed. now: for the manifest.

    Raises InvalidCodebook, with the reason, if the file does not fit; StoreLocked, LockLost, ModelError.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise InvalidCodebook(f"{file} cannot be read: {error}") from error
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise InvalidCodebook(f"{file} is not a safetensors file: {error}") from error
    digest = hashlib.sha256(content).hexdigest()
    own = {name: tensors[name] for name in Codebook._fields if name in tensors}
    with StoreLock(store.files) as lock:
        parent = store.codebook()
        _refuse_another_encoder(file, digest, str(parent.manifest["encoder_sha256"]))
        try:
            codebook, _ = checked_codebook(own, ModelConfig(**store.about()["sizes"]), str(file))
        except ModelError as error:
            raise InvalidCodebook(str(error)) from error
        about = {
            "made_by": "import",
            "file_sha256": digest,
            "created": (now or datetime.now(UTC)).isoformat(timespec="seconds"),
        }
        rows = _rows_of_same_codes(parent, codebook.embeddings)
        lock.check()
        made = store.publish(codebook, parent=parent.version, decoder_rows=rows, about=about)
        if activate:
            lock.check()
            store.activate(made.version)
    return made


def _rows_of_same_codes(parent: CodebookVersion, embeddings: Tensor) -> DecoderRows | None:
    """The parent's decoder rows of the codes whose vectors, embeddings (codes, out), did not change."""
    if parent.decoder_rows is None:
        return None
    codes, rows = parent.decoder_rows
    same = (parent.codebook.embeddings[codes] == embeddings[codes]).all(1)
    return DecoderRows(codes[same], rows[same]) if same.any() else None


def _refuse_another_encoder(file: Path, digest: str, encoder: str) -> None:
    """Raise InvalidCodebook if the file is a store's and the manifest beside it names another encoder."""
    try:
        manifest = json.loads(file.with_name("manifest.json").read_bytes())
    except (OSError, ValueError):
        return  # the file lies alone, or beside something else
    if isinstance(manifest, dict) and manifest.get("codebook_sha256") == digest:
        found = manifest.get("encoder_sha256")
        if found != encoder:
            raise InvalidCodebook(f"{file} belongs to another encoder: that of SHA-256 {found}, not {encoder}")


def _is_stale(store: Store, name: str, now: float) -> bool:
    """Whether nothing of a file, or of the files in a folder, was written for a day."""
    inside = [f"{name}/{one}" for one in store.files.names(name)]
    written = [store.files.modified(one) for one in inside or [name]]
    return all(one is not None and one < now - _DAY for one in written)
