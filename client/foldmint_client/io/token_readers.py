"""Reading of tokens: what `foldmint tokenize` writes (JSON lines, Parquet, npz), or bare token ids in a text file."""

import io
import json
import re
import sys
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

from foldmint_client.errors import FoldmintError, MissingExtra, UnreadableInput
from foldmint_client.io.discovery import STDIN
from foldmint_client.models.assignment import ASSIGNMENTS, Assignment
from foldmint_client.models.responses import ChainTokens, Tokens

_PARQUET, _ZIP = b"PAR1", b"PK\x03\x04"
_NPZ_COLUMNS = tuple(
    f":{name}"
    for name in (
        "residue_index",
        "has_frame",
        "distances",
        "assignment",
        "segment_starts",
        "first_frames",
        "composed_rmsd",
        "left_out",
        "warnings",
    )
)
_NPZ_KEY = re.compile(r"(.*):([^:]*?)(#\d+)?", re.DOTALL)  # source, chain, and what distinguishes chains of one name

_Integer = TypeVar("_Integer", bound=np.integer)

TokenIds = npt.NDArray[np.int64]


class Found(NamedTuple):
    """The tokens of one structure, or why they cannot be read.

    source: of the structure, by the tokens' file; otherwise the file itself, with the line. model,
    codebook_version: that the tokens are of; empty if the file has none. chain: the name of a chain that is taken
    by itself; empty for a whole structure.
    """

    source: str
    tokens: Tokens | TokenIds | FoldmintError
    model: str = ""
    codebook_version: str = ""
    chain: str = ""

    @property
    def name(self) -> str:
        """What to call it."""
        return f"{self.source}:{self.chain}" if self.chain else self.source


class _Row(NamedTuple):
    """One chain and what it is of."""

    source: str
    chain: ChainTokens
    model: str
    codebook_version: str

    @property
    def origin(self) -> tuple[str, str, str]:
        return self.source, self.model, self.codebook_version


def read(path: str, *, each_chain: bool = False) -> Iterator[Found]:
    """The structures in a file, or on standard input (`-`), one by one; what form it has is found out from its content.

    The chains of one source that follow one another are a structure; each_chain: each is one by itself. A row without
    residue_index, an array of npz without one beside it, and a line of numbers are structures, their ids taken as they
    are. Raises MissingExtra if Parquet cannot be read here.
    """
    chains: list[_Row] = []
    for row in _rows(path):
        if chains and (each_chain or not _belongs(row, chains)):
            yield _structure(chains, each_chain)
            chains = []
        if isinstance(row, _Row):
            chains.append(row)
        else:
            yield row
    if chains:
        yield _structure(chains, each_chain)


def _belongs(row: _Row | Found, chains: list[_Row]) -> bool:
    """Whether it is a chain of the same structure."""
    if not isinstance(row, _Row) or row.origin != chains[0].origin:
        return False
    # A source that has a chain of this name already has all of its own: the same was tokenized twice.
    return row.chain.chain not in {other.chain.chain for other in chains}


def _structure(rows: list[_Row], each_chain: bool) -> Found:
    source, model, version = rows[0].origin
    tokens = Tokens(model, version, tuple(row.chain for row in rows))
    return Found(source, tokens, model, version, rows[0].chain.chain if each_chain else "")


def _rows(path: str) -> Iterator[_Row | Found]:
    nothing = True
    try:
        with _opened(path) as stream:
            start = stream.read(4)
            if start == _PARQUET:
                rows = _parquet(path, _whole(start, stream))
            elif start == _ZIP:
                rows = _npz(_whole(start, stream))
            else:
                rows = _lines(path, start, stream)
            for row in rows:
                nothing = False
                yield row
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        yield _unreadable(path, getattr(error, "strerror", None) or str(error))
    else:
        if nothing:
            yield _unreadable(path, "there are no tokens in it")


def _unreadable(source: str, reason: str) -> Found:
    return Found(source, UnreadableInput(f"{source}: {reason}"))


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == STDIN:
        yield sys.stdin.buffer
    else:
        with Path(path).open("rb") as stream:
            yield stream


def _whole(start: bytes, stream: IO[bytes]) -> IO[bytes]:
    """The stream from its start, able to seek."""
    if stream.seekable():
        stream.seek(0)
        return stream
    return io.BytesIO(start + stream.read())


def _lines(path: str, start: bytes, stream: IO[bytes]) -> Iterator[_Row | Found]:
    def lines() -> Iterator[bytes]:
        # Line by line, so that a pipe's beginning is decoded before its end is there. The start may hold several.
        yield from (start + stream.readline()).splitlines()
        yield from stream

    for number, line in enumerate(lines(), 1):
        content = line.strip()
        source = f"{path}:{number}"
        try:
            if content.startswith(b"{"):
                yield _of_columns(source, json.loads(content))
            elif content:
                ids = [int(word) for word in content.replace(b",", b" ").split()]
                yield Found(source, np.array(ids, np.int64))
        except (ValueError, OverflowError) as error:
            yield _unreadable(source, f"neither a row of tokens nor whole numbers: {error}")


def _parquet(path: str, stream: IO[bytes]) -> Iterator[_Row | Found]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtra("Parquet needs pyarrow: pip install 'foldmint[parquet]'") from error
    rows: Iterable[dict[str, Any]] = (
        row for batch in parquet.ParquetFile(stream).iter_batches() for row in batch.to_pylist()
    )
    for number, row in enumerate(rows, 1):
        source = f"{path}:{number}"
        try:
            found = _of_columns(source, row)
        except ValueError as error:
            found = _unreadable(source, str(error))
        yield found


def _npz(stream: IO[bytes]) -> Iterator[_Row | Found]:
    with np.load(stream) as arrays:
        names = set(arrays.files)
        for name in arrays.files:
            if any(name.endswith(column) and name.removesuffix(column) in names for column in _NPZ_COLUMNS):
                continue
            key = _NPZ_KEY.fullmatch(name)
            source, chain = key.group(1, 2) if key else (name, "")
            row = {"tokens": arrays[name], "chain": chain} | {
                column[1:]: arrays[name + column] for column in _NPZ_COLUMNS if name + column in names
            }
            index = row.get("residue_index")
            if "assignment" in row:
                row["assignment"] = str(row["assignment"])
            try:
                found = _of_columns(name if index is None else source, row)
            except ValueError as error:
                found = _unreadable(name, str(error))
            yield found


def _of_columns(source: str, row: Mapping[str, Any]) -> _Row | Found:
    """A chain, or a structure's bare token ids. Raises ValueError if the columns are not what they should be."""
    if row.get("tokens") is None:
        raise ValueError("'tokens' is missing")
    source = _text(row, "source") or source
    model, version = _text(row, "model"), _text(row, "codebook_version")
    if row.get("residue_index") is None:
        return Found(source, _integers(row["tokens"], "tokens", np.int64), model, version)
    index = _integers(row["residue_index"], "residue_index", np.int32)
    chain = ChainTokens(
        chain=_text(row, "chain"),
        sequence=_text(row, "sequence"),
        residue_index=index,
        insertion_codes=_text(row, "insertion_codes"),
        tokens=_integers(row["tokens"], "tokens", np.uint16),
        has_frame=_frames(row.get("has_frame"), len(index)),
        distances=None,
        assignment=_assignment(row),
        segment_starts=_optional(row, "segment_starts"),
        first_frames=_first_frames(row),
    )
    return _Row(source, chain, model, version)


def _frames(values: object, length: int) -> npt.NDArray[np.bool_]:
    """Which residues have a frame; all, if the file does not say."""
    if values is None:
        return np.ones(length, np.bool_)
    array = np.asarray(values)
    if array.shape != (length,) or (length and array.dtype != np.bool_):
        raise ValueError(f"'has_frame' is not an array of {length} booleans")
    return array.astype(np.bool_)


def _assignment(row: Mapping[str, Any]) -> Assignment | None:
    """How the tokens were chosen; None if the file does not say."""
    found = _text(row, "assignment")
    for known in ASSIGNMENTS:
        if found == known:
            return cast(Assignment, known)
    if found:
        raise ValueError(f"'assignment' is {', '.join(ASSIGNMENTS)}, not {found!r}")
    return None


def _optional(row: Mapping[str, Any], name: str) -> npt.NDArray[np.int32] | None:
    return None if row.get(name) is None else _integers(row[name], name, np.int32)


def _first_frames(row: Mapping[str, Any]) -> npt.NDArray[np.float32] | None:
    """(segments, 12), as rows or flattened; null, in JSON, is NaN."""
    if row.get("first_frames") is None:
        return None
    try:
        frames = np.asarray(row["first_frames"], np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError("'first_frames' is not an array of numbers of shape (segments, 12)") from error
    if frames.size % 12 or frames.ndim not in (1, 2):
        raise ValueError(f"'first_frames' has shape {frames.shape}, not (segments, 12)")
    return frames.reshape(-1, 12)


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name!r} is not text")
    return value or ""


def _integers(values: object, name: str, dtype: type[_Integer]) -> npt.NDArray[_Integer]:
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(f"{name!r} is not an array of integers of shape (length,)")
    bounds = np.iinfo(dtype)
    if array.size and not bounds.min <= array.min() <= array.max() <= bounds.max:
        raise ValueError(
            f"{name!r} has values from {array.min()} to {array.max()}; allowed: {bounds.min} to {bounds.max}"
        )
    return array.astype(dtype)
