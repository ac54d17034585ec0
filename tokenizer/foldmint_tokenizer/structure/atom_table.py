"""The atoms of one model of a file, as columns: the common form of all formats, from which residues are found."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.left_out import LeftOut, LeftOutKind

MISSING = np.iinfo(np.int64).min
"""The value in integer columns where a file has none, or in CIF `?` or `.`."""

MOST_MODELS = 10_000
_LISTED = 20


class AtomRole(IntEnum):
    """An atom's role in its residue's backbone. SECOND_O: the second oxygen of a carboxylate."""

    OTHER = -1
    N = 0
    CA = 1
    C = 2
    SECOND_O = 3


ROLES = {
    b"N": AtomRole.N,
    b"CA": AtomRole.CA,
    b"C": AtomRole.C,
    **dict.fromkeys((b"OXT", b"OT2", b"O2", b"OC2"), AtomRole.SECOND_O),
}
"""Roles by atom name."""


class EntityClass(IntEnum):
    """How the file's own tables classify a residue."""

    UNKNOWN = 0
    PROTEIN = 1  # part of a polypeptide's sequence
    NUCLEIC_ACID = 2  # part of another polymer's sequence
    NOT_IN_CHAIN = 3  # a ligand, a glycan or water


@dataclass(frozen=True, eq=False)
class AtomTable:
    """Atoms in the order of the file, and runs of consecutive atoms, each a residue or part of one.

    Per atom: role: (atoms,) int8, `AtomRole`. altloc: (atoms,) int64, 0 for none. hetatm: (atoms,) bool.

    Per run: starts: (runs + 1,) int64, the first atom of each, and the number of atoms at the end. chain, segment,
    name: (runs,) int64, indices into chain_names, segment_names and names; an empty name means none. part: (runs,)
    int64, index among the parts between END records, or among the data blocks. section: (runs,) int64, index among the
    sections between TER and END records. number: (runs,) int64, MISSING if there is none. insertion: (runs,) uint8, a
    space for none. entity_class: (runs,) int8, `EntityClass`. entity_tables: whether the file lists which residues
    belong to polymers.

    positions, occupancies, b_factors: functions from indices of atoms, (n,), to (n, 3) in Å, (n,) and (n,), NaN where
    unknown; positions raises InvalidStructure for values that are not numbers. number_text: the text in place of a
    run's number. sequences: a function from residue names to SEQRES, names by chain; empty if the file has none, or
    none with these names.
    """

    role: NDArray[np.int8]
    altloc: NDArray[np.int64]
    hetatm: NDArray[np.bool_]
    starts: NDArray[np.int64]
    chain: NDArray[np.int64]
    chain_names: list[str]
    segment: NDArray[np.int64]
    segment_names: list[str]
    name: NDArray[np.int64]
    names: list[str]
    part: NDArray[np.int64]
    section: NDArray[np.int64]
    number: NDArray[np.int64]
    insertion: NDArray[np.uint8]
    entity_class: NDArray[np.int8]
    entity_tables: bool
    positions: Callable[[NDArray[np.int64]], NDArray[np.float64]]
    occupancies: Callable[[NDArray[np.int64]], NDArray[np.float64]]
    b_factors: Callable[[NDArray[np.int64]], NDArray[np.float64]]
    number_text: Callable[[int], str]
    sequences: Callable[[Collection[str]], dict[str, list[str]]]

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.chain)

    def residue_label(self, run: int) -> str:
        """A run's residue for messages, such as `MSE 52A`."""
        number = self.number_text(run) if self.number[run] == MISSING else str(self.number[run])
        return f"{self.names[self.name[run]]} {number}{chr(self.insertion[run]).strip()}".strip()


def choose_model(numbers: Sequence[int], model_number: int) -> tuple[int, list[LeftOut]]:
    """Index of the model to read, and the models left out. numbers: of the models, in the order of the file.

    Raises InvalidStructure if there are too many models, or if none has the number.
    """
    if len(numbers) > MOST_MODELS:
        raise InvalidStructure("content", f"more than {MOST_MODELS} models, the maximum accepted")
    if model_number and model_number not in numbers:
        known = listed([str(number) for number in numbers])
        raise InvalidStructure("model_number", f"the file has no model {model_number}; its models are: {known}")
    place = numbers.index(model_number) if model_number else 0
    others = [str(number) for at, number in enumerate(numbers) if at != place]
    return place, [LeftOut(LeftOutKind.OTHER_MODEL, "", len(others), tuple(others[:_LISTED]))] if others else []


def listed(names: Sequence[str]) -> str:
    """The first of many names, so that messages stay short for any file."""
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def decode_name(name: bytes, what: str) -> str:
    """A name from a file, as text. Raises InvalidStructure if it is not UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise InvalidStructure("content", f"the {what} {name!r} is not UTF-8 text") from error
