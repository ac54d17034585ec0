"""Writers of tokens: JSON lines, Parquet and NumPy's npz."""

import errno
import json
import math
import os
import secrets
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from foldmint.version import installed_version
from foldmint_client.errors import MissingExtra
from foldmint_client.models.job_version import JobVersion
from foldmint_client.models.left_out import LeftOut, of_each_chain
from foldmint_client.models.responses import ChainTokens, Tokens

if TYPE_CHECKING:
    import numpy.typing as npt

_ROWS = 1024  # chains in a row group of Parquet


class OutputFormat(StrEnum):
    """How tokens are written."""

    JSONL = "jsonl"
    PARQUET = "parquet"
    NPZ = "npz"


class Writer(Protocol):
    """Takes the tokens of one structure after another."""

    def write(self, source: str, tokens: Tokens) -> None:
        """Write a structure's chains."""

    def close(self) -> None:
        """Write what is buffered, and the end of the file."""


class _Chain(NamedTuple):
    """A chain with the notes of its row; the first chain's row has those of no chain with tokens."""

    tokens: ChainTokens
    left_out: list[LeftOut]
    warnings: list[str]


def _chains(tokens: Tokens) -> list[_Chain]:
    shared = of_each_chain(tokens.left_out, [chain.chain for chain in tokens.chains])
    return [
        _Chain(chain, left_out, [] if place else [*tokens.warnings])
        for place, (chain, left_out) in enumerate(zip(tokens.chains, shared, strict=True))
    ]


class JsonlWriter:
    """One JSON object a line and chain; what is not a number in JSON, such as NaN, is null.

    left_out: of the chain; that of chains without tokens, of models and of data blocks is on the structure's first
    line, and so are its warnings.
    """

    def __init__(self, stream: IO[bytes], *, insertion_codes: bool = False) -> None:
        self._stream, self._insertion_codes = stream, insertion_codes

    def write(self, source: str, tokens: Tokens) -> None:
        """Write a structure's chains, at once."""
        lines = [json.dumps(self._row(source, tokens, chain), allow_nan=False) for chain in _chains(tokens)]
        self._stream.write("".join(f"{line}\n" for line in lines).encode())
        self._stream.flush()

    def close(self) -> None:
        """Nothing is buffered."""

    def _row(self, source: str, tokens: Tokens, one: _Chain) -> dict[str, object]:
        chain = one.tokens
        row: dict[str, object] = {
            "source": source,
            "chain": chain.chain,
            "residue_index": chain.residue_index.tolist(),
            "sequence": chain.sequence,
            "tokens": chain.tokens.tolist(),
            "has_frame": chain.has_frame.tolist(),
            "model": tokens.model,
            "codebook_version": tokens.codebook_version,
        }
        if tokens.codebook_digest:
            row |= {"codebook_digest": tokens.codebook_digest, "encoder_digest": tokens.encoder_digest}
        if self._insertion_codes:
            row["insertion_codes"] = chain.insertion_codes
        if chain.assignment not in (None, "independent"):
            row["assignment"] = chain.assignment
        if chain.segment_starts is not None and (len(chain.segment_starts) > 1 or chain.first_frames is not None):
            row["segment_starts"] = chain.segment_starts.tolist()
        if chain.first_frames is not None:
            row["first_frames"] = [_numbers(frame) for frame in chain.first_frames]
        if chain.composed_rmsd is not None:
            row["composed_rmsd"] = round(chain.composed_rmsd, 4)
        if chain.distances is not None:
            row["distances"] = _numbers(chain.distances)
        return row | {"left_out": [left.row() for left in one.left_out], "warnings": one.warnings}


def _numbers(values: "npt.NDArray[np.float32]") -> list[float | None]:
    """For JSON, by way of text: as short as float32 allows, 0.1 and not 0.10000000149011612; null for NaN."""
    return [float(str(value)) if math.isfinite(value) else None for value in values]


class ParquetWriter:
    """One row a chain; the schema's metadata has the models and codebook versions in it, their digests, and Foldmint's
    version.

    left_out and warnings are as in JSON lines. metadata: more for the schema's.
    """

    def __init__(self, stream: IO[bytes], *, metadata: Mapping[str, str] | None = None) -> None:
        try:
            import pyarrow as pa
            from pyarrow import parquet
        except ImportError as error:
            raise MissingExtra("Parquet needs pyarrow: pip install 'foldmint[parquet]'") from error
        left_out = pa.struct(
            [
                ("kind", pa.string()),
                ("chain", pa.string()),
                ("residues", pa.int64()),
                ("names", pa.list_(pa.string())),
            ]
        )
        self._schema = pa.schema(
            [
                ("source", pa.string()),
                ("chain", pa.string()),
                ("residue_index", pa.list_(pa.int32())),
                ("sequence", pa.string()),
                ("insertion_codes", pa.string()),
                ("tokens", pa.list_(pa.uint16())),
                ("has_frame", pa.list_(pa.bool_())),
                ("distances", pa.list_(pa.float32())),
                ("assignment", pa.string()),
                ("segment_starts", pa.list_(pa.int32())),
                # Twelve numbers a segment, flattened.
                ("first_frames", pa.list_(pa.float32())),
                ("composed_rmsd", pa.float32()),
                ("model", pa.string()),
                ("codebook_version", pa.string()),
                ("left_out", pa.list_(left_out)),
                ("warnings", pa.list_(pa.string())),
            ]
        )
        self._table = pa.Table
        # pyarrow takes the metadata of the file for the schema's only if no schema of Arrow's own is stored.
        self._file = parquet.ParquetWriter(stream, self._schema, compression="zstd", store_schema=False)
        self._rows: list[dict[str, object]] = []
        self._metadata = dict(metadata or {})
        self._versions: set[JobVersion] = set()

    def write(self, source: str, tokens: Tokens) -> None:
        """Add a structure's chains."""
        self._versions.add(tokens.version)
        self._rows += [
            {
                **vars(one.tokens),
                "first_frames": None if one.tokens.first_frames is None else one.tokens.first_frames.ravel(),
                "source": source,
                "model": tokens.model,
                "codebook_version": tokens.codebook_version,
                "left_out": [left.row() for left in one.left_out],
                "warnings": one.warnings,
            }
            for one in _chains(tokens)
        ]
        if len(self._rows) >= _ROWS:
            self._flush()

    def close(self) -> None:
        """Write the last rows, the metadata and the footer."""
        if self._rows:
            self._flush()
        # With ACTIVE, codebooks change within a job; each row has its own version.
        names = ("model", "codebook_version", "codebook_digest", "encoder_digest")
        values = {name: {getattr(version, name) for version in self._versions} for name in names}
        metadata = {name: ",".join(sorted(found)) for name, found in values.items()}
        self._file.add_key_value_metadata({**metadata, "foldmint_version": installed_version(), **self._metadata})
        self._file.close()

    def _flush(self) -> None:
        self._file.write_table(self._table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()


class NpzWriter:
    """Arrays for numpy.load: tokens by `SOURCE:CHAIN`, all else of the chain by `SOURCE:CHAIN:residue_index` and so on.

    left_out and warnings are there where there are any, and as in JSON lines: records of kind, chain, residues and
    names, which are parted by spaces; and texts.
    Each is written as it comes. A key that was there before gets #2 after its chain, then #3.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._archive = zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED)
        self._seen: dict[str, int] = {}

    def write(self, source: str, tokens: Tokens) -> None:
        """Write a structure's chains."""
        for chain, left_out, warnings in _chains(tokens):
            key = f"{source}:{chain.chain}"
            count = self._seen[key] = self._seen.get(key, 0) + 1
            key = key if count == 1 else f"{key}#{count}"
            arrays: dict[str, npt.NDArray[np.generic]] = {
                key: chain.tokens,
                f"{key}:residue_index": chain.residue_index,
                f"{key}:has_frame": chain.has_frame,
            }
            if chain.distances is not None:
                arrays[f"{key}:distances"] = chain.distances
            if chain.assignment not in (None, "independent"):
                arrays[f"{key}:assignment"] = np.array(chain.assignment)
            if chain.segment_starts is not None:
                arrays[f"{key}:segment_starts"] = chain.segment_starts
            if chain.first_frames is not None:
                arrays[f"{key}:first_frames"] = chain.first_frames
            if chain.composed_rmsd is not None:
                arrays[f"{key}:composed_rmsd"] = np.array(chain.composed_rmsd, np.float32)
            if left_out:
                arrays[f"{key}:left_out"] = _records(left_out)
            if warnings:
                arrays[f"{key}:warnings"] = np.array(warnings)
            self._add(arrays)

    def close(self) -> None:
        """Write the archive's directory."""
        self._archive.close()

    def _add(self, arrays: "Mapping[str, npt.NDArray[np.generic]]") -> None:
        for name, array in arrays.items():
            with self._archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _records(left_out: list[LeftOut]) -> "npt.NDArray[np.void]":
    """(entries,), with fields kind, chain, residues and names; texts are as long as they need be."""
    columns = {
        "kind": np.array([left.kind.value for left in left_out]),
        "chain": np.array([left.chain for left in left_out]),
        "residues": np.array([left.residues for left in left_out], np.int64),
        "names": np.array([" ".join(left.names) for left in left_out]),
    }
    records = np.empty(len(left_out), [(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        records[name] = column
    return records


@contextmanager
def opened(format: OutputFormat, path: Path | None, *, insertion_codes: bool = False) -> Iterator[Writer]:  # noqa: A002
    """A writer to a file, or to standard output. The file appears under its name when all is written, or not at all."""
    with standard_output() if path is None else completed(path) as stream:
        writer: Writer
        if format is OutputFormat.PARQUET:
            writer = ParquetWriter(stream)
        elif format is OutputFormat.NPZ:
            writer = NpzWriter(stream)
        else:
            writer = JsonlWriter(stream, insertion_codes=insertion_codes)
        try:
            yield writer
        finally:
            writer.close()  # after an error too: a library would try it later, when the stream is gone


@contextmanager
def standard_output() -> Iterator[IO[bytes]]:
    """Standard output, to be written to as a file is."""
    yield sys.stdout.buffer


@contextmanager
def completed(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, under a temporary name beside `path`; renamed at the end, removed if an error comes first.

    A device or pipe is written to directly.
    """
    path = path.resolve()  # of a symbolic link the target is replaced, not the link
    if path.exists() and not path.is_file() and not path.is_dir():
        with path.open("wb") as stream:
            yield stream
        return
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
