"""Labels of the chains and residues of a decoded structure: given by the caller, or default ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, product
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.backbone import check_insertions, check_name, whole_numbers

_NAMES = ascii_uppercase + ascii_lowercase + digits


class Labels(Protocol):
    """A chain's name, letters and numbers, as in a `Backbone` or a `TokenizedChain`; empty for the default."""

    @property
    def chain(self) -> str:
        """The chain's name."""
        ...

    @property
    def sequence(self) -> str:
        """One letter a residue."""
        ...

    @property
    def residue_index(self) -> NDArray[np.integer] | Sequence[int]:
        """The number of each residue, (residues,)."""
        ...

    @property
    def insertion_codes(self) -> str:
        """One character a residue, a space for none; empty if no residue has one."""
        ...


@dataclass(frozen=True, eq=False)
class ChainLabels:
    """A chain's labels. Any of them may be empty: see `completed`."""

    chain: str = ""
    sequence: str = ""
    residue_index: NDArray[np.integer] | Sequence[int] = ()
    insertion_codes: str = ""


@dataclass(frozen=True, eq=False)
class CompleteLabels:
    """A chain's labels, all present: as in `ChainLabels`; residue_index: (residues,) int64."""

    chain: str
    sequence: str
    residue_index: NDArray[np.int64]
    insertion_codes: str

    def label(self, position: int) -> str:
        """The number of the residue at a position: `52A`."""
        insertion = self.insertion_codes[position].strip() if self.insertion_codes else ""
        return f"{self.residue_index[position]}{insertion}"


def completed(sizes: Sequence[int], labels: Sequence[Labels] = ()) -> list[CompleteLabels]:
    """The labels of chains with the given numbers of residues. labels: one entry a chain, or empty.

    Empty labels become: chain: the first free name among A, B, …, Z, a, …, z, 0, …, 9, AA, AB, …; sequence: X for each
    residue; residue_index: 1, 2, 3, …; insertion_codes: none.

    Raises InvalidStructure, with a field such as `chains[1].sequence`, if labels do not match the residues.
    """
    if labels and len(labels) != len(sizes):
        raise InvalidStructure("chains", f"there are labels for {len(labels)} chains, but tokens of {len(sizes)}")
    given = labels or [ChainLabels()] * len(sizes)
    free = default_names({label.chain for label in given})
    found = []
    for place, (size, label) in enumerate(zip(sizes, given, strict=True)):
        try:
            found.append(_complete(size, label, label.chain or next(free)))
        except InvalidStructure as error:
            raise error.within(f"chains[{place}].") from error
    return found


def default_names(taken: set[str]) -> Iterator[str]:
    """A, B, …, Z, a, …, z, 0, …, 9, AA, AB, …, without end, except for names that are taken."""
    for length in count(1):
        for letters in product(_NAMES, repeat=length):
            name = "".join(letters)
            if name not in taken:
                yield name


def _complete(size: int, label: Labels, chain: str) -> CompleteLabels:
    check_name(chain)
    for name in ("sequence", "residue_index", "insertion_codes"):
        entries = len(getattr(label, name))
        if entries not in (0, size):
            raise InvalidStructure(name, f"has {entries} entries for {size} residues", chain=chain)
    index = whole_numbers(label.residue_index, chain) if len(label.residue_index) else np.arange(1, size + 1)
    check_insertions(label.insertion_codes, chain)
    return CompleteLabels(chain, label.sequence or "X" * size, index, label.insertion_codes)
