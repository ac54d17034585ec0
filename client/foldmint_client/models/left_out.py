"""What a server left out of structure files: by chain and kind, and counted over many structures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class LeftOutKind(StrEnum):
    """Why residues of a file were left out; OTHER: for a reason that this client does not know."""

    WATER = "water"
    ION = "ion"
    LIGAND = "ligand"
    NUCLEIC_ACID = "nucleic_acid"
    CAP = "cap"
    ALTERNATE = "alternate"
    OTHER_MODEL = "other_model"
    OTHER_BLOCK = "other_block"
    OTHER_CHAIN = "other_chain"
    WITHOUT_CA = "without_ca"
    HETATM = "hetatm"
    OTHER = "other"


# What is counted of these, instead of residues.
_UNITS = {LeftOutKind.OTHER_MODEL: "model", LeftOutKind.OTHER_BLOCK: "data block"}


@dataclass(frozen=True)
class LeftOut:
    """Residues of one kind in one chain that were left out.

    chain: its name, empty for models and data blocks. residues: how many; of other models and blocks, how many of
    those. names: the distinct residue names, the most frequent first, 20 at most; of models their numbers, of blocks
    their names. of_protein: whether a protein's residues are lost by it, chains that were not requested aside.
    """

    kind: LeftOutKind
    chain: str
    residues: int
    names: tuple[str, ...]
    of_protein: bool

    def row(self) -> dict[str, object]:
        """As it stands in JSON and Parquet."""
        return {"kind": self.kind.value, "chain": self.chain, "residues": self.residues, "names": [*self.names]}


def of_each_chain(left_out: Sequence[LeftOut], chains: Sequence[str]) -> list[list[LeftOut]]:
    """What was left out of a structure, for each of its chains' names.

    What belongs to a chain that has no tokens, or to none, is with the first; what belongs to several chains of one
    name, with the first of those.
    """
    places = {name: place for place, name in reversed([*enumerate(chains)])}
    shared: list[list[LeftOut]] = [[] for _ in chains]
    for one in left_out:
        if shared:
            shared[places.get(one.chain, 0)].append(one)
    return shared


class Tally:
    """What was left out of many structures, and what they were warned of."""

    def __init__(self) -> None:
        self._counts: Counter[LeftOutKind] = Counter()
        self._of_protein: Counter[LeftOutKind] = Counter()
        self._structures = self.warned = 0
        self._example = ""

    def add(self, source: str, left_out: Sequence[LeftOut], warnings: Sequence[str]) -> None:
        """Count a structure in."""
        for one in left_out:
            self._counts[one.kind] += one.residues
            if one.of_protein:
                self._of_protein[one.kind] += one.residues
        self._structures += any(one.of_protein for one in left_out)
        self.warned += bool(warnings)
        if warnings and not self._example:
            self._example = f"{source}: {warnings[0]}"

    def counts(self) -> Mapping[str, int]:
        """Residues (models, data blocks) of each kind that came."""
        return {kind.value: count for kind, count in self._counts.most_common()}

    def lines(self) -> list[str]:
        """For a person: a line if anything of a protein was left out, and one if there were warnings."""
        lines = []
        if self._of_protein:
            counts = ", ".join(
                f"{counted(count, _UNITS.get(kind, 'residue'))} ({kind})"
                for kind, count in self._of_protein.most_common()
            )
            structures = counted(self._structures, "structure")
            lines.append(f"left out of {structures}: {counts}; see `left_out` in the output")
        if self.warned:
            more = "" if self.warned == 1 else f", and {self.warned - 1} more; see `warnings` in the output"
            lines.append(f"warning: {self._example}{more}")
        return lines


def counted(count: int, unit: str) -> str:
    """A number of things, such as `2 residues`."""
    return f"{count} {unit}{'' if count == 1 else 's'}"
