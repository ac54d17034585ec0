"""Resume state: what an earlier run of `foldmint tokenize` left behind; what need not be asked again, and what it is
of.
"""

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from foldmint_client.errors import InvalidOptions, MissingExtra


@dataclass
class ResumeState:
    """Tokens that are there already.

    sources: of the structures. models, versions: that the tokens are of. assignments: how they were chosen. distances,
    special_tokens: whether each of them was asked for, as far as the rows tell.
    """

    sources: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    versions: set[str] = field(default_factory=set)
    distances: set[bool] = field(default_factory=set)
    special_tokens: set[bool] = field(default_factory=set)
    assignments: set[str] = field(default_factory=set)

    def add(self, row: Mapping[str, Any]) -> None:
        """Take a row in. Raises KeyError or TypeError if it is none that `foldmint tokenize` writes."""
        self.sources.add(row["source"])
        self.models.add(row["model"])
        self.versions.add(row["codebook_version"])
        self.distances.add(row.get("distances") is not None)
        self.special_tokens.add(len(row["tokens"]) != len(row["residue_index"]))
        self.assignments.add(row.get("assignment") or "independent")

    def check(self, name: str, *, model: str, distances: bool, special_tokens: bool, assignment: str) -> None:
        """Raise InvalidOptions if what is to come would not fit to what is there.

        name: of the output. model: that the server serves.
        """
        for there, wanted, what in (
            (self.models, model, "model"),
            (self.distances, distances, "--distances"),
            (self.special_tokens, special_tokens, "--special-tokens"),
            (self.assignments, assignment, "--assignment"),
        ):
            if there - {wanted}:
                found = ", ".join(sorted(map(_told, there)))
                raise InvalidOptions(f"{name} was begun with {what} {found}, and now it would be {_told(wanted)}")

    @property
    def version(self) -> str | None:
        """The version of the codebook that all of it is of; None if it is of none or of several."""
        return next(iter(self.versions)) if len(self.versions) == 1 else None


def read_lines(stream: IO[bytes], name: str, asked: Container[str]) -> tuple[ResumeState, int]:
    """What JSON lines hold, and the offset in bytes up to which they are to be kept.

    A torn last line is left out, and so are all rows of the last source if it is among those asked for: whether its
    other chains were written too, the file does not tell. Raises InvalidOptions for a line before the last that is none
    of `foldmint tokenize`.
    """
    resume_state, sure, end = ResumeState(), 0, 0
    held: list[dict[str, Any]] = []
    for start, number, line in _numbered(stream):
        try:
            row = json.loads(line)
            if held and row["source"] != held[0]["source"]:
                for other in held:
                    resume_state.add(other)
                held, sure = [], start
            ResumeState().add(row)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidOptions(
                f"{name}:{number}: no row that foldmint tokenize wrote; nothing was changed"
            ) from error
        held.append(row)
        end = start + len(line)
    if held and held[0]["source"] not in asked:
        for row in held:
            resume_state.add(row)
        sure = end
    return resume_state, sure


def read_shards(paths: Iterable[Path]) -> ResumeState:
    """What complete files of Parquet hold. Raises InvalidOptions for a file that is not one of `foldmint tokenize`."""
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
            told = "assignment" in file.schema_arrow.names
            names += ["assignment"] if told else []
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
                chosen = batch.column("assignment").unique().to_pylist() if told else [None]
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


def _told(value: object) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
