"""What the chains and residues of a decoded structure are called: as their owner says, or by default."""

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
    """Names, letters and numbers of a chain, such as a `Backbone` and a `TokenizedChain` have; empty: by default."""

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
    """Labels of a chain. All of it may be empty: see `completed`."""

    chain: str = ""
    sequence: str = ""
    residue_index: NDArray[np.integer] | Sequence[int] = ()
    insertion_codes: str = ""


@dataclass(frozen=True, eq=False)
class CompleteLabels:
    """Labels of a chain with nothing missing: as `ChainLabels`; residue_index: (residues,) int64."""

    chain: str
    sequence: str
    residue_index: NDArray[np.int64]
    insertion_codes: str

    def label(self, position: int) -> str:
        """The residue at a position, by its number: `52A`."""
        insertion = self.insertion_codes[position].strip() if self.insertion_codes else ""
        return f"{self.residue_index[position]}{insertion}"


def completed(sizes: Sequence[int], labels: Sequence[Labels] = ()) -> list[CompleteLabels]:
    """The labels of chains of so many residues, one for each, or none at all.

    What is empty becomes: chain: the first of A, B, …, Z, a, …, z, 0, …, 9, AA, AB, … that is free; sequence: X for
    each residue; residue_index: 1, 2, 3, …; insertion_codes: none.

    Raises InvalidStructure, with a field such as `chains[1].sequence`, where labels do not fit the residues.
    """
    if labels and len(labels) != len(sizes):
        raise InvalidStructure("chains", f"{len(labels)} are labelled, and the tokens have {len(sizes)}")
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
    """A, B, …, Z, a, …, z, 0, …, 9, AA, AB, …, without end; those that are taken are left out."""
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
