"""The backbone of a chain, validated."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.errors import InvalidStructure

_INT32 = np.iinfo(np.int32)

FARTHEST = 1e6
"""Å; larger coordinates, positive or negative, are rejected (ESM3's own bound)."""

LONGEST_NAME = 100
"""Maximum number of characters in a chain's name, which responses and error messages repeat."""


@dataclass(frozen=True)
class Backbone:
    """One chain.

    chain: its name. sequence: one letter a residue. residue_index: (residues,) int64, each residue's number; gaps mark
    missing residues. coordinates: (residues, 3, 3) float32: residue, atom (N, CA, C), axis; Å; NaN for missing atoms.
    insertion_codes: one character a residue, a space for none; empty if no residue has one.

    Raises InvalidStructure if shapes do not match, a residue number is not a 32-bit integer, a coordinate is infinite
    or beyond 1e6 Å, the name is longer than 100 characters or not printable, or an insertion code is not a printable
    ASCII character.
    """

    chain: str
    sequence: str
    residue_index: NDArray[np.int64]
    coordinates: NDArray[np.float32]
    insertion_codes: str = ""

    def __post_init__(self) -> None:
        check_name(self.chain)
        length = len(self.coordinates)
        if self.coordinates.shape != (length, 3, 3):
            self._refuse("coordinates", f"shape is {self.coordinates.shape}, not (residues, 3, 3)")
        if length == 0:
            self._refuse("coordinates", "there are no residues")
        for name in ("residue_index", "sequence", "insertion_codes"):
            given = len(getattr(self, name))
            if given != length and not (name == "insertion_codes" and given == 0):
                self._refuse(name, f"has {given} entries for {length} residues")
        whole_numbers(self.residue_index, self.chain)
        check_insertions(self.insertion_codes, self.chain)
        # Comparisons with NaN are false, so missing atoms pass.
        beyond = (np.abs(self.coordinates) > FARTHEST).any((1, 2))
        if beyond.any():
            where = int(beyond.argmax())
            values = self.coordinates[where]
            value = values[np.abs(values) > FARTHEST][0]
            self._refuse("coordinates", f"{value:g} is beyond {FARTHEST:g} Å", where)

    def _refuse(self, field: str, reason: str, position: int | None = None) -> None:
        residue = None if position is None else self.label(position)
        raise InvalidStructure(field, reason, chain=self.chain, residue=residue)

    def __len__(self) -> int:
        return len(self.coordinates)

    def label(self, position: int) -> str:
        """The number of the residue at a position, as its author writes it: `52A`."""
        insertion = self.insertion_codes[position].strip() if self.insertion_codes else ""
        return f"{self.residue_index[position]}{insertion}"


def check_name(chain: str) -> None:
    """Raise InvalidStructure if a chain's name is longer than 100 characters or not printable."""
    if len(chain) > LONGEST_NAME or not chain.isprintable():
        start = f"{chain[:20]!r}{'...' * (len(chain) > 20)}"
        raise InvalidStructure("chain", f"the name {start} is too long or contains unprintable characters")


def check_insertions(insertion_codes: str, chain: str) -> None:
    """Raise InvalidStructure if an insertion code is not a printable ASCII character."""
    if not (insertion_codes.isascii() and insertion_codes.isprintable()):
        raise InvalidStructure("insertion_codes", "an insertion code is not a printable ASCII character", chain=chain)


def whole_numbers(residue_index: NDArray[np.integer] | Sequence[int], chain: str) -> NDArray[np.int64]:
    """The residue numbers (residues,). Raises InvalidStructure for values that are not 32-bit integers."""
    given = np.asarray(residue_index)
    large = given.dtype == object and all(isinstance(number, int) for number in given.flat)
    if not large and given.size and not np.issubdtype(given.dtype, np.integer):
        raise InvalidStructure("residue_index", "expected one integer for each residue", chain=chain)
    if large or (given.size and (given.min() < _INT32.min or given.max() > _INT32.max)):
        raise InvalidStructure("residue_index", "a number does not fit into 32 bits", chain=chain)
    return given.astype(np.int64)


def as_float32(coordinates: NDArray[np.floating] | Sequence[object]) -> NDArray[np.float32]:
    """Coordinates in float32; values too large for it become infinite, and are rejected later."""
    with np.errstate(over="ignore"):
        return np.asarray(np.asarray(coordinates, np.float64), np.float32)


def backbone(
    coordinates: NDArray[np.floating] | Sequence[object],
    residue_index: NDArray[np.integer] | Sequence[int] | None = None,
    *,
    chain: str = "A",
    sequence: str = "",
) -> Backbone:
    """A backbone from coordinates (residues, 3, 3), Å, NaN where missing; numbered 1, 2, 3, ... by default.

    Raises InvalidStructure, as `Backbone` does.
    """
    positions = as_float32(coordinates)
    length = len(positions) if positions.ndim else 0
    index = np.arange(1, length + 1) if residue_index is None else whole_numbers(residue_index, chain)
    return Backbone(chain, sequence or "X" * length, index, positions)
