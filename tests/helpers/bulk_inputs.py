"""What a kind of input makes of files."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foldmint_bulk.inputs.base import InputKind, InputOptions, RawStructure
from foldmint_bulk.inputs.registry import KINDS
from foldmint_bulk.unit import Unit


def plan(
    kind: str | InputKind,
    *paths: str | Path,
    structures: int = 10_000,
    options: InputOptions | None = None,
    skipped: Counter[str] | None = None,
) -> list[Unit]:
    """The units of files of a kind."""
    found = KINDS[kind] if isinstance(kind, str) else kind
    own = Counter[str]() if skipped is None else skipped
    return [*found.plan([str(path) for path in paths], structures, options or InputOptions(), own)]


def read(
    units: Sequence[Unit], options: InputOptions | None = None, skipped: Counter[str] | None = None
) -> list[RawStructure]:
    """The structures of units, as another process reads them: from their rows."""
    own = Counter[str]() if skipped is None else skipped
    return [
        structure
        for unit in units
        for structure in KINDS[unit.kind].read(Unit.of(unit.row()), options or InputOptions(), own)
    ]


def contents(structures: Sequence[RawStructure]) -> dict[str, object]:
    """By source, which none shares with another one."""
    found: dict[str, object] = {structure.source: structure.content for structure in structures}
    assert len(found) == len(structures)
    return found


class Trajectory:
    """1A8O, which has MSE and waters, with moved atoms; of alternate locations the first, as simulations have it.

    positions: (frames, atoms, 3), Å; multiples of 1/4, which all formats store exactly.
    """

    def __init__(self, data: Path, frames: int) -> None:
        lines = [line for line in (data / "1a8o.pdb").read_text().splitlines() if line.startswith(("ATOM", "HETATM"))]
        self.lines = [line for line in lines if line[16] in " A"]
        positions = np.array([[float(line[at : at + 8]) for at in (30, 38, 46)] for line in self.lines])
        moves = np.random.default_rng(5).normal(0, 0.1, (frames, *positions.shape))
        self.positions: NDArray[np.float64] = np.round((positions + moves) * 4) / 4

    def pdb(self, frame: int) -> bytes:
        """A frame as a PDB file."""
        rows = [
            line[:30] + "".join(f"{value:8.3f}" for value in place) + line[54:]
            for line, place in zip(self.lines, self.positions[frame], strict=True)
        ]
        return ("\n".join(rows) + "\nEND\n").encode()

    def write(self, path: Path) -> Path:
        """Write it as mdtraj does."""
        return write_trajectory(path, self.positions)


def write_trajectory(path: Path, positions: NDArray[np.float64]) -> Path:
    """Write a trajectory of the format of its suffix. positions: (frames, atoms, 3), Å."""
    from mdtraj import formats

    kinds = {
        ".xtc": formats.XTCTrajectoryFile,
        ".trr": formats.TRRTrajectoryFile,
        ".dcd": formats.DCDTrajectoryFile,
    }
    scale = 1 if path.suffix == ".dcd" else 0.1
    with kinds[path.suffix](str(path), "w") as file:
        file.write((positions * scale).astype(np.float32))
    return path
