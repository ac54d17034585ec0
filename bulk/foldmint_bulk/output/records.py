"""Records: what became of a unit. A unit's record is written last, once, and decides which part counts."""

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldmint_bulk import storage
from foldmint_bulk.errors import OutputError
from foldmint_tokenizer.store.storage import Files

FOLDER = "units"
_COUNTS = ("failures", "skipped")


@dataclass(frozen=True)
class Record:
    """What became of a unit.

    attempt: the name of the attempt that was recorded. part, failures_file: its files, relative to the output; empty
    if it has none. structures, chains, residues: in the part. framed: residues with a frame, the sum of the hits.
    failures: number of failures by kind. error: why the whole unit failed; empty if it did not; source: what it is
    called then. hits: packed counts of the codes, see `unpack_hits`. seconds, device_seconds: that it took, and that
    the device computed. skipped: number of members of compressed tars that are no structures, or have a twin, by kind.
    """

    unit: str
    attempt: str = ""
    part: str = ""
    failures_file: str = ""
    structures: int = 0
    chains: int = 0
    residues: int = 0
    framed: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    error: str = ""
    source: str = ""
    hits: str = ""
    seconds: float = 0.0
    device_seconds: float = 0.0
    skipped: Mapping[str, int] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """As plain values, for JSON and engines; `Record.of` is the inverse."""
        return asdict(self) | {name: json.dumps(dict(getattr(self, name)), sort_keys=True) for name in _COUNTS}

    @classmethod
    def of(cls, row: "Record | Mapping[str, Any]") -> "Record":
        """A record, from itself or from its row. Raises ValueError if it is not one."""
        if isinstance(row, Record):
            return row
        try:
            counts = {name: row[name] for name in _COUNTS if name in row}
            read = {
                name: json.loads(value) if isinstance(value, str) else dict(value) for name, value in counts.items()
            }
            return cls(**{**row, **read})
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a record: {error}") from error


def name_of(unit: str) -> str:
    """The name of a unit's record."""
    return f"{FOLDER}/{unit}.json"


def create_record(files: Files, record: Record) -> None:
    """Write a unit's record. Raises FileExistsError if it has one; OutputError."""
    storage.create(files, name_of(record.unit), (json.dumps(asdict(record)) + "\n").encode())


def read_record(files: Files, unit: str) -> Record | None:
    """A unit's record, None if it has none. Raises OutputError if it is damaged."""
    try:
        return parse_record(storage.read(files, name_of(unit)))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise OutputError(f"{files.path(name_of(unit))} is damaged: {error}") from error


def parse_record(content: bytes) -> Record:
    """A record, from its file. Raises ValueError."""
    return Record.of(json.loads(content))


def pack_hits(hits: NDArray[np.integer]) -> str:
    """Counts (codes,) as text."""
    return base64.b64encode(zlib.compress(hits.astype("<i8").tobytes(), 6)).decode()


def unpack_hits(packed: str) -> NDArray[np.int64]:
    """The counts (codes,) of `pack_hits`; (0,) of an empty text."""
    if not packed:
        return np.zeros(0, np.int64)
    return np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<i8").astype(np.int64)
