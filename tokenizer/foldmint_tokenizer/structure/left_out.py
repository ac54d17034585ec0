"""What a reader left out of a structure file, and what it warns of."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from foldmint_tokenizer.structure.backbone import Backbone


class LeftOutKind(StrEnum):
    """Why residues were left out."""

    WATER = "water"
    ION = "ion"
    LIGAND = "ligand"  # free amino acids and glycans among them
    NUCLEIC_ACID = "nucleic_acid"
    CAP = "cap"  # ACE, NH2, NME, ...
    ALTERNATE = "alternate"  # another residue in the same place, of lower occupancy
    OTHER_MODEL = "other_model"
    OTHER_BLOCK = "other_block"  # a data block of an mmCIF file that holds no atoms
    OTHER_CHAIN = "other_chain"  # a protein chain that was not asked for
    WITHOUT_CA = "without_ca"  # of a name that no table knows, bonded into the chain, but without all of N, CA and C
    HETATM = (
        "hetatm"  # read as ESM does: a protein's residues in HETATM records, or of names that the CCD does not have
    )


@dataclass(frozen=True)
class LeftOut:
    """Residues of one kind in one chain that were left out.

    chain: its name, empty where it is no chain's (other models and blocks). residues: how many; of other models and
    blocks, how many of those. names: the distinct residue names (or numbers of models, names of blocks), the most
    frequent first, 20 at most.
    """

    kind: LeftOutKind
    chain: str
    residues: int
    names: tuple[str, ...]

    @property
    def of_protein(self) -> bool:
        """Whether a protein's residues are lost by it, other than those of chains that were not asked for."""
        return self.kind in _OF_PROTEIN


_OF_PROTEIN = frozenset(
    {
        LeftOutKind.ALTERNATE,
        LeftOutKind.OTHER_MODEL,
        LeftOutKind.WITHOUT_CA,
        LeftOutKind.HETATM,
    }
)


def frame_warnings(chains: Sequence[Backbone]) -> tuple[str, ...]:
    """A warning if no residue of the chains has N, CA and C, and so none a frame: their tokens say nothing."""
    if not chains or any(np.isfinite(chain.coordinates).all((1, 2)).any() for chain in chains):
        return ()
    coordinates = np.concatenate([chain.coordinates for chain in chains])
    there = np.isfinite(coordinates).all(2).any(0)  # (N, CA, C)
    why = "there is CA only" if there.tolist() == [False, True, False] else "N, CA and C are never all there"
    return (f"no residue has a frame: {why}, so that all tokens say nothing",)


@dataclass(frozen=True)
class StructureContent:
    """What a file holds: its protein chains, what was left out, and warnings, each a sentence for a person."""

    chains: Sequence[Backbone]
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()
