"""The versions of a store's codebook: listed, shown and verified."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from foldmint_maintenance.vq.ema import dead_codes
from foldmint_tokenizer.errors import ModelError
from foldmint_tokenizer.store.model_store import Store

DEAD_THRESHOLD = 1e-5
"""ESM's own, of N: a code with fewer hits a step is dead."""


@dataclass(frozen=True)
class Listed:
    """One version as `codebooks list` shows it.

    digest: SHA-256 of its file. created: when, if the manifest says so; made_by: what, if it says so. dead: codes whose
    N is below the threshold. problem: why it cannot be read. canary: the share of the servers that serve it, if it is
    the canary. What is not known is None.
    """

    version: str
    active: bool
    complete: bool
    parent: str | None = None
    digest: str | None = None
    created: str | None = None
    made_by: str | None = None
    dead: int | None = None
    problem: str | None = None
    canary: float | None = None


@dataclass(frozen=True)
class Verified:
    """What a verification found. checked: what was looked at; problems: what is wrong; notes: what is harmless."""

    checked: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def listed(store: Store, threshold: float = DEAD_THRESHOLD) -> list[Listed]:
    """All versions of a store, in order, incomplete ones too. Raises ModelError if the store cannot be read."""
    (active, canary), complete = store.control(), store.versions()
    found = []
    for version in sorted({*complete, *store.incomplete()}):
        share = canary.share if canary is not None and version == canary.version else None
        if version not in complete:
            found.append(Listed(version, version == active, complete=False, canary=share))
            continue
        try:
            manifest = store.manifest(version)
            codebook = store.codebook(version)
        except ModelError as error:
            found.append(Listed(version, version == active, complete=True, problem=str(error), canary=share))
            continue
        found.append(
            Listed(
                version,
                version == active,
                complete=True,
                parent=_text(manifest.get("parent")),
                digest=codebook.digest,
                created=_about(manifest, "created"),
                made_by=_about(manifest, "made_by"),
                dead=int(dead_codes(codebook.codebook, threshold).sum()),
                canary=share,
            )
        )
    return found


def shown(store: Store, version: str | None = None, threshold: float = DEAD_THRESHOLD) -> dict[str, Any]:
    """All that is known of a version, the active one by default, for json.dumps. Raises ModelError."""
    active = store.active()
    held = store.codebook(version)
    counts = held.codebook.N.double()
    quartiles = torch.quantile(counts, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)).tolist()
    rows = held.decoder_rows
    return {
        "version": held.version,
        "active": held.version == active,
        "parent": held.manifest.get("parent"),
        "digest": held.digest,
        "encoder_digest": held.manifest["encoder_sha256"],
        "codes": len(counts),
        "dimensions": held.codebook.embeddings.shape[1],
        "dead": int(dead_codes(held.codebook, threshold).sum()),
        "N": {
            "mean": float(counts.mean()),
            "std": float(counts.std(unbiased=False)),
            "min": float(counts.min()),
            "quartiles": quartiles,
            "max": float(counts.max()),
        },
        "windows": held.windows is not None,
        "decoder_rows": 0 if rows is None else len(rows.codes),
        "manifest": dict(held.manifest),
    }


def verified(store: Store, versions: Sequence[str] = ()) -> Verified:
    """Read and check a store: encoder, decoder, ACTIVE, HISTORY, CANARY, and all versions or those given.

    Digests, shapes, that values are finite, that codebook and decoder rows belong to encoder and decoder, that parents
    are older. Parents that were removed and versions that were never finished are notes, not problems. Raises
    ModelError if the store cannot be listed.
    """
    checked: list[str] = []
    problems: list[str] = []
    notes: list[str] = []

    def look(what: str, read: Callable[[], object]) -> None:
        checked.append(what)
        try:
            read()
        except ModelError as error:
            problems.append(f"{what}: {error}")

    look("model", store.weights)
    look("ACTIVE", store.codebook)
    look("HISTORY", store.history)
    look("CANARY", partial(_check_canary, store))
    for version in versions or store.versions():
        look(f"codebook {version}", partial(_check_version, store, version, notes, asked_for=bool(versions)))
    if not versions:
        notes += [
            f"codebook {version} is incomplete: a run was killed at it, or is at it; harmless"
            for version in store.incomplete()
        ]
    return Verified(tuple(checked), tuple(problems), tuple(notes))


def _check_canary(store: Store) -> None:
    canary = store.canary()
    if canary is not None:
        store.codebook(canary.version)


def _check_version(store: Store, version: str, notes: list[str], *, asked_for: bool) -> None:
    try:
        manifest = store.codebook(version).manifest
    except ModelError:
        if not asked_for and version not in store.versions():
            notes.append(f"codebook {version} was removed meanwhile")
            return
        raise
    if manifest.get("version") != version:
        raise ModelError(f"its manifest is that of {manifest.get('version')!r}")
    parent = manifest.get("parent")
    if parent is None:
        return
    # Numbers as text: the longer is the higher.
    if not isinstance(parent, str) or (len(parent), parent) >= (len(version), version):
        raise ModelError(f"its parent, {parent!r}, is not an earlier version")
    if parent not in store.versions():
        notes.append(f"codebook {version}: its parent {parent} was removed")


def _about(manifest: Mapping[str, Any], key: str) -> str | None:
    about = manifest.get("about")
    return _text(about.get(key)) if isinstance(about, Mapping) else None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
