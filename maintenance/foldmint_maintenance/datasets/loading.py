"""Loading of sets of backbones: Parquet, the packed corpus, structure files or folders of them."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from foldmint_client.io.suffixes import FOLDCOMP, STRUCTURES, is_structure, stem
from foldmint_maintenance.datasets.packed import SUFFIX, read_packed
from foldmint_maintenance.datasets.records import Record, read_parquet, write_parquet
from foldmint_maintenance.errors import InvalidSet
from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.reader import read_backbones

Skip = Callable[[Path, str], None]
"""Called with each file that is skipped, and the reason."""


def read_set(path: Path, skip: Skip | None = None) -> Iterator[Record]:
    """The records of a set, in an order that depends on its content alone.

    path: a Parquet file; the table of a packed corpus (`NAME.tsv.xz`, with `NAME.xyz.xz` beside it); a structure file
    (.pdb, .cif, .bcif and the like, or any of these compressed); or a folder, of whose structure files, at any depth,
    every protein chain is a record named `<file stem>_<chain>`. Unreadable files of a folder are reported to `skip` and
    left out; without `skip` they raise, as a single file does.

    Raises InvalidSet where there is nothing to read, FileNotFoundError where there is no such path.
    """
    if path.is_dir():
        return _folder(path, skip)
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}")
    if path.suffix == ".parquet":
        return read_parquet(path)
    if path.name.endswith(SUFFIX):
        return read_packed(path)
    if _stem(path) is not None:
        return _structure(path)
    raise InvalidSet(f"{path} is not a Parquet file, packed corpus (*{SUFFIX}), structure file or folder")


def _stem(path: Path) -> str | None:
    """A structure file's name without its endings; None if it is not a structure file."""
    return stem(path.name) if is_structure(path.name) and not path.name.lower().endswith(FOLDCOMP) else None


def _folder(path: Path, skip: Skip | None) -> Iterator[Record]:
    files = sorted(file for file in path.rglob("*") if _stem(file) is not None and file.is_file())
    if not files:
        raise InvalidSet(f"{path} holds no structure files ({', '.join(STRUCTURES)}, or these compressed)")
    for file in files:
        try:
            records = list(_structure(file))
        except (InvalidSet, OSError) as error:
            if skip is None:
                raise
            skip(file, str(error))
        else:
            yield from records


def _structure(path: Path) -> Iterator[Record]:
    try:
        backbones = read_backbones(path)
    except InvalidStructure as error:
        raise InvalidSet(f"{path}: {error.description}") from error
    for backbone in backbones:
        yield Record(
            id=f"{_stem(path)}_{backbone.chain}",
            sequence=backbone.sequence,
            residue_index=backbone.residue_index,
            coordinates=backbone.coordinates,
        )


class Digest:
    """SHA-256 and number of the records that pass through it, independent of the file format."""

    def __init__(self) -> None:
        self.chains = self.residues = 0
        self._hash = hashlib.sha256()

    def through(self, records: Iterable[Record]) -> Iterator[Record]:
        """The same records."""
        for record in records:
            self.chains, self.residues = self.chains + 1, self.residues + len(record.sequence)
            for text in (record.id, record.sequence):
                encoded = text.encode()
                self._hash.update(len(encoded).to_bytes(8, "little") + encoded)
            self._hash.update(record.residue_index.astype("<i8").tobytes())
            self._hash.update(record.coordinates.astype("<f4").tobytes())
            yield record

    def sha256(self) -> str:
        """The digest of all records so far."""
        return self._hash.hexdigest()


@dataclass(frozen=True)
class IngestConfig:
    """Filter of chains: min_residues to max_residues (None: no limit), with at least one frame."""

    min_residues: int = 30
    max_residues: int | None = None

    def __post_init__(self) -> None:
        if self.min_residues < 1:
            raise ValueError("min_residues must be positive")
        if self.max_residues is not None and self.max_residues < self.min_residues:
            raise ValueError("max_residues must not be below min_residues")


@dataclass(frozen=True)
class Ingested:
    """Summary of an import: what the set contains, and the number of files or chains left out, by reason."""

    chains: int
    residues: int
    unreadable_files: int = 0
    skipped: dict[str, int] = field(default_factory=dict)


def ingest(source: Path, out: Path, config: IngestConfig = IngestConfig(), skip: Skip | None = None) -> Ingested:
    """Write the chains of a source as a Parquet set. Raises InvalidSet if none is left, and writes nothing then."""
    skipped: Counter[str] = Counter()
    unreadable = 0

    def unread(path: Path, reason: str) -> None:
        nonlocal unreadable
        unreadable += 1
        if skip is not None:
            skip(path, reason)

    def wanted() -> Iterator[Record]:
        empty = True
        for record in read_set(source, unread):
            reason = _unwanted(record, config)
            if reason is None:
                empty = False
                yield record
            else:
                skipped[reason] += 1
        if empty:
            reasons = ", ".join(f"{count} with {reason}" for reason, count in skipped.items())
            raise InvalidSet(
                f"no chain of {source} can be taken ({unreadable} files unreadable; {reasons or 'no chains'})"
            )

    out.parent.mkdir(parents=True, exist_ok=True)
    chains, residues = write_parquet(wanted(), out)
    return Ingested(chains, residues, unreadable, dict(skipped))


def _unwanted(record: Record, config: IngestConfig) -> str | None:
    length = len(record.sequence)
    if length < config.min_residues:
        return f"fewer than {config.min_residues} residues"
    if config.max_residues is not None and length > config.max_residues:
        return f"more than {config.max_residues} residues"
    if not np.isfinite(record.coordinates).all((1, 2)).any():
        return "no residue with N, CA and C"
    return None
