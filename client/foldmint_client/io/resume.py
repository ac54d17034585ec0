"""Resume state: structures in the output of an interrupted run, and the options they were tokenized with."""

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from foldmint_client.errors import InvalidOptions, MissingExtra
from foldmint_client.models.job_version import JobVersion


@dataclass
class ResumeState:
    """Tokens that an output has already.

    sources: of the structures. models, versions: of the tokens. codebook_digests, encoder_digests: of the tokens, where
    the server told them. assignments: how they were chosen. distances,
    special_tokens: whether rows have them.
    """

    sources: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    codebook_digests: set[str] = field(default_factory=set)
    encoder_digests: set[str] = field(default_factory=set)
    distances: set[bool] = field(default_factory=set)
    special_tokens: set[bool] = field(default_factory=set)
    assignments: set[str] = field(default_factory=set)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row. Raises KeyError or TypeError if `foldmint tokenize` did not write it."""
        self.sources.add(row["source"])
        self.models.add(row["model"])
        self.versions.add(row["codebook_version"])
        self.codebook_digests.add(row.get("codebook_digest", ""))
        self.encoder_digests.add(row.get("encoder_digest", ""))
        self.distances.add(row.get("distances") is not None)
        self.special_tokens.add(len(row["tokens"]) != len(row["residue_index"]))
        self.assignments.add(row.get("assignment") or "independent")

    def check(self, name: str, *, model: str, distances: bool, special_tokens: bool, assignment: str) -> None:
        """Raise InvalidOptions if new rows would differ from those of the output.

        name: of the output. model: that the server serves.
        """
        for there, wanted, what in (
            (self.models, model, "model"),
            (self.distances, distances, "--distances"),
            (self.special_tokens, special_tokens, "--special-tokens"),
            (self.assignments, assignment, "--assignment"),
        ):
            if there - {wanted}:
                found = ", ".join(sorted(map(_shown, there)))
                raise InvalidOptions(f"{name} was begun with {what} {found}, and now it would be {_shown(wanted)}")

    @property
    def version(self) -> JobVersion | None:
        """The version of all rows; None without rows, or if they have several."""
        if len(self.versions) != 1:
            return None
        return JobVersion(*map(_only, (self.versions, self.codebook_digests, self.encoder_digests, self.models)))


def read_lines(stream: IO[bytes], name: str, requested: Container[str]) -> tuple[ResumeState, int]:
    """The state of a file of JSON lines, and the offset in bytes up to which to keep it.

    An incomplete last line is dropped, and so are all rows of the last source if it is requested, since other chains of
    it may be missing. Raises InvalidOptions for any other line that `foldmint tokenize` did not write.
    """
    resume_state, sure, end = ResumeState(), 0, 0
    pending: list[dict[str, Any]] = []
    for start, number, line in _numbered(stream):
        try:
            row = json.loads(line)
            if pending and row["source"] != pending[0]["source"]:
                for other in pending:
                    resume_state.add(other)
                pending, sure = [], start
            ResumeState().add(row)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidOptions(
                f"{name}:{number}: no row that foldmint tokenize wrote; nothing was changed"
            ) from error
        pending.append(row)
        end = start + len(line)
    if pending and pending[0]["source"] not in requested:
        for row in pending:
            resume_state.add(row)
        sure = end
    return resume_state, sure


def read_shards(paths: Iterable[Path]) -> ResumeState:
    """The state of complete Parquet files. Raises InvalidOptions for a file that `foldmint tokenize` did not write."""
    try:
        import pyarrow as pa
        from pyarrow import compute, parquet
    except ImportError as error:
        raise MissingExtra("Parquet needs pyarrow: pip install 'foldmint[parquet]'") from error
    resume_state = ResumeState()
    for path in paths:
        try:
            file = parquet.ParquetFile(path)
            names = ["source", "model", "codebook_version", "tokens", "residue_index", "distances"]
            # A column that files of earlier releases lack.
            has_assignment = "assignment" in file.schema_arrow.names
            names += ["assignment"] if has_assignment else []
            metadata = file.schema_arrow.metadata or {}
            resume_state.codebook_digests.add(metadata.get(b"codebook_digest", b"").decode())
            resume_state.encoder_digests.add(metadata.get(b"encoder_digest", b"").decode())
            for batch in file.iter_batches(columns=names):
                lengths = [compute.list_value_length(batch.column(name)) for name in ("tokens", "residue_index")]
                columns: list[tuple[set[Any], pa.Array[Any]]] = [
                    (resume_state.sources, batch.column("source")),
                    (resume_state.models, batch.column("model")),
                    (resume_state.versions, batch.column("codebook_version")),
                    (resume_state.distances, batch.column("distances").is_valid()),
                    (resume_state.special_tokens, compute.not_equal(*lengths)),
                ]
                for found, column in columns:
                    found.update(column.unique().to_pylist())
                chosen = batch.column("assignment").unique().to_pylist() if has_assignment else [None]
                resume_state.assignments |= {name or "independent" for name in chosen}
        except (pa.ArrowException, KeyError) as error:
            raise InvalidOptions(
                f"{path}: no shard that foldmint tokenize wrote ({error}); remove it to go on without"
            ) from error
    return resume_state


def _numbered(stream: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Offset, number and content of each whole line."""
    start = 0
    for number, line in enumerate(stream, 1):
        if line.endswith(b"\n"):
            yield start, number, line
        start += len(line)


def _only(found: set[str]) -> str:
    """The value, if there is one; rows of earlier releases have no digests."""
    known = found - {""}
    return next(iter(known)) if len(known) == 1 else ""


def _shown(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
