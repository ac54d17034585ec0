"""Sets of backbones: Parquet files, and their in-memory form for training and evaluation."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foldmint_maintenance.datasets.fragments import Fragments, backbone_fragments
from foldmint_maintenance.errors import InvalidSet
from foldmint_tokenizer.frames import backbone_frames
from foldmint_tokenizer.neighborhoods import NEIGHBORS, Geometry, Neighborhoods, build_geometry, join_geometries

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("sequence", pa.string(), nullable=False),
        pa.field("residue_index", pa.list_(pa.int32()), nullable=False),
        # residue, atom (N, CA, C), axis, flattened; Å; NaN where missing
        pa.field("coordinates", pa.list_(pa.float32()), nullable=False),
        # one DSSP letter per residue; null if unknown
        pa.field("dssp", pa.string()),
    ]
)


@dataclass(frozen=True)
class Record:
    """A chain of a set: residue_index (residues,), coordinates (residues, 3, 3) float32, Å, NaN where missing.

    dssp: an ASCII letter a residue, None where not known. Raises InvalidSet where the parts do not fit.
    """

    id: str
    sequence: str
    residue_index: NDArray[np.int64]
    coordinates: NDArray[np.float32]
    dssp: str | None = None

    def __post_init__(self) -> None:
        length = len(self.sequence)
        given = {"residue_index": self.residue_index.shape, "coordinates": self.coordinates.shape}
        for name, shape in {"residue_index": (length,), "coordinates": (length, 3, 3)}.items():
            if given[name] != shape:
                raise InvalidSet(f"{self.id}: {name} has shape {given[name]}, and its sequence asks for {shape}")
        if self.dssp is not None and (len(self.dssp) != length or not self.dssp.isascii()):
            raise InvalidSet(f"{self.id}: {length} residues ask for as many ASCII letters of DSSP, not {self.dssp!r}")


def read_parquet(path: Path) -> Iterator[Record]:
    """The records of a Parquet set, in order. Raises InvalidSet where columns are missing or do not fit."""
    try:
        with pq.ParquetFile(path) as file:
            known = set(file.schema_arrow.names)
            missing = {"id", "sequence", "residue_index", "coordinates"} - known
            if missing:
                raise InvalidSet(f"{path} is not a set of backbones: it lacks {', '.join(sorted(missing))}")
            schema = pa.schema([field for field in SCHEMA if field.name in known])
            for batch in file.iter_batches(batch_size=256, columns=schema.names):
                yield from _records(batch.select(schema.names).cast(schema))
    except InvalidSet:
        raise
    except (pa.ArrowException, ValueError) as error:
        raise InvalidSet(f"{path} cannot be read as a set of backbones: {error}") from error


def _records(batch: pa.RecordBatch) -> Iterator[Record]:
    for row in range(batch.num_rows):
        values = {name: batch.column(name)[row] for name in batch.schema.names}
        yield Record(
            id=values["id"].as_py(),
            sequence=values["sequence"].as_py(),
            residue_index=values["residue_index"].values.to_numpy().astype(np.int64),
            coordinates=values["coordinates"]
            .values.to_numpy(zero_copy_only=False)
            .astype(np.float32)
            .reshape(-1, 3, 3),
            dssp=values["dssp"].as_py() if "dssp" in values else None,
        )


def write_parquet(records: Iterable[Record], path: Path, rows_per_group: int = 512) -> tuple[int, int]:
    """Write a set, complete before its name appears; returns the numbers of chains and residues."""
    chains = residues = 0
    part = path.with_name(path.name + ".part")
    try:
        with pq.ParquetWriter(part, SCHEMA, compression="zstd") as writer:
            group: list[Record] = []
            for record in records:
                group.append(record)
                chains, residues = chains + 1, residues + len(record.sequence)
                if len(group) == rows_per_group:
                    writer.write_table(_table(group))
                    group = []
            if group:
                writer.write_table(_table(group))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return chains, residues


def _table(records: list[Record]) -> pa.Table:
    return pa.table(
        {
            "id": [r.id for r in records],
            "sequence": [r.sequence for r in records],
            "residue_index": [r.residue_index.astype(np.int32) for r in records],
            "coordinates": [r.coordinates.astype(np.float32).ravel() for r in records],
            "dssp": [r.dssp for r in records],
        },
        schema=SCHEMA,
    )


@dataclass(frozen=True)
class PreparedSet:
    """All rows of a set, ready to be drawn in any order.

    ids: of the chains. chain: (residues,), which chain a residue is of. backbone: (residues, 3, 3), Å.
    shape: frames and neighbors of all chains, one after another. dssp: (residues,) letters, 0 where not known.
    sequence: (residues,) letters of the amino acids.
    """

    ids: list[str]
    chain: NDArray[np.int32]
    backbone: NDArray[np.float32]
    shape: Geometry
    dssp: NDArray[np.uint8]
    sequence: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.shape.queries)

    def digest(self) -> str:
        """SHA-256 of coordinates and residue numbers, in order: all that training depends on."""
        numbers = np.ascontiguousarray(self.shape.residue_index)
        return hashlib.sha256(np.ascontiguousarray(self.backbone).tobytes() + numbers.tobytes()).hexdigest()

    def rows(self, select: slice | NDArray[np.integer]) -> Neighborhoods:
        """Neighborhoods of the residues with a frame numbered `select`."""
        return self.shape.rows(select)

    def noisy_rows(
        self, select: NDArray[np.integer], errors: NDArray[np.floating], random: np.random.Generator
    ) -> Neighborhoods:
        """The same, each row's coordinates moved by normal errors of its standard deviation `errors` (rows,), Å, each.

        The neighbors stay those of the structure without errors.
        """
        query, nearest = self.shape.queries[select], self.shape.nearest[select]
        around = np.where(nearest >= 0, nearest, query[:, None])  # (rows, 16)
        # float64: a structure far from the origin loses nothing.
        atoms = self.backbone[around].astype(np.float64)
        atoms += random.standard_normal(atoms.shape, np.float32) * errors[:, None, None, None]
        frames = backbone_frames(atoms.reshape(-1, 3, 3))
        # A query is its own first neighbor.
        own = np.arange(len(query) * NEIGHBORS, dtype=np.int32).reshape(-1, NEIGHBORS)
        shape = Geometry(
            frames,
            self.shape.residue_index[around.ravel()],
            own[:, 0].astype(np.int64),
            np.where(nearest >= 0, own, -1),
        )
        return shape.rows(slice(None))

    def windows(self, select: slice | NDArray[np.integer]) -> Fragments:
        """Windows of the same."""
        return backbone_fragments(self.backbone, self.chain, self.shape, select)


def prepared(records: Iterable[Record]) -> PreparedSet:
    """Frames and neighbors of every chain, joined into one. Raises InvalidSet if no residue has a frame."""
    data = gathered(records)
    if not len(data):
        raise InvalidSet("the set holds no residue with N, CA and C")
    return data


def gathered(records: Iterable[Record]) -> PreparedSet:
    """The same, of one record or more, even if no residue has a frame. Raises InvalidSet without a record."""
    ids: list[str] = []
    shapes: list[Geometry] = []
    backbones: list[NDArray[np.float32]] = []
    letters: list[NDArray[np.uint8]] = []
    sequences: list[NDArray[np.uint8]] = []
    for record in records:
        ids.append(record.id)
        shapes.append(build_geometry(record.coordinates, record.residue_index))
        backbones.append(record.coordinates)
        sequences.append(np.frombuffer(record.sequence.encode("ascii", "replace"), np.uint8))
        letters.append(
            np.zeros(len(record.sequence), np.uint8)
            if record.dssp is None
            else np.frombuffer(record.dssp.encode("ascii"), np.uint8)
        )
    if not ids:
        raise InvalidSet("the set holds no chain")
    lengths = [len(b) for b in backbones]
    chain = np.repeat(np.arange(len(ids), dtype=np.int32), lengths)
    return PreparedSet(
        ids,
        chain,
        np.concatenate(backbones),
        join_geometries(shapes),
        np.concatenate(letters),
        np.concatenate(sequences),
    )
