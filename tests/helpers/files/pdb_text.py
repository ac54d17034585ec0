"""Variants of a real PDB file: what files do that textbooks do not."""

from collections.abc import Callable
from pathlib import Path


class PdbText:
    """The atom lines of a PDB file, to be edited by residue."""

    def __init__(self, path: Path) -> None:
        lines = path.read_text().splitlines()
        self.lines = [line.ljust(80) for line in lines if line.startswith(("ATOM", "HETATM")) and line[21] == "A"]

    def each(self, change: Callable[[str, int], str | list[str] | None]) -> "PdbText":
        """Replace each atom line by what `change(line, residue number)` returns; None drops it."""
        edited: list[str] = []
        for line in self.lines:
            result = change(line, int(line[22:26]))
            edited.extend([] if result is None else [result] if isinstance(result, str) else result)
        self.lines = edited
        return self

    def numbered(self, number: Callable[[int], int], insertion: Callable[[int], str] = lambda _: " ") -> "PdbText":
        """Number the residues anew."""
        return self.each(lambda line, was: f"{line[:22]}{number(was):4d}{insertion(was)}{line[27:]}")

    def bytes(self) -> bytes:
        return ("\n".join([*self.lines, "TER", "END"]) + "\n").encode()


def moved(line: str, by: float) -> str:
    """The atom moved along x, Å."""
    return f"{line[:30]}{float(line[30:38]) + by:8.3f}{line[38:]}"


def alternative(line: str, name: str, occupancy: float) -> str:
    """The atom as an alternate location."""
    return f"{line[:16]}{name}{line[17:54]}{occupancy:6.2f}{line[60:]}"


def atom(line: str) -> str:
    return line[12:16].strip()
