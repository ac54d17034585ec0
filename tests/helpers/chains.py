"""The real chains of tests/data/chains.parquet."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray


class ChainLike(Protocol):
    """residue_index (residues,) int64; coordinates (residues, 3, 3) float32, N, CA, C, Å, NaN where missing."""

    @property
    def id(self) -> str:
        """Entry and chain."""
        ...

    @property
    def sequence(self) -> str:
        """A letter a residue."""
        ...

    @property
    def residue_index(self) -> NDArray[np.int64]:
        """(residues,)."""
        ...

    @property
    def coordinates(self) -> NDArray[np.float32]:
        """(residues, 3, 3)."""
        ...


@dataclass(frozen=True)
class RealChain:
    """A chain of the file."""

    id: str
    sequence: str
    residue_index: NDArray[np.int64]
    coordinates: NDArray[np.float32]


def read_chains(path: Path) -> Iterator[RealChain]:
    """The chains of a Parquet set, in its order."""
    for row in pq.read_table(path, columns=["id", "sequence", "residue_index", "coordinates"]).to_pylist():
        coordinates = np.array(row["coordinates"], np.float32).reshape(-1, 3, 3)
        yield RealChain(row["id"], row["sequence"], np.array(row["residue_index"], np.int64), coordinates)
