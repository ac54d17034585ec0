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
    WITHOUT_CA = "without_ca"  # read as ESM does: no CA
    HETATM = "hetatm"  # read as ESM does: protein residues in HETATM records


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
        """Whether a protein's residues are lost by it, rather than water, ligands and the like."""
        return self.kind in _OF_PROTEIN


_OF_PROTEIN = frozenset(
    {
        LeftOutKind.ALTERNATE,
        LeftOutKind.OTHER_CHAIN,
        LeftOutKind.OTHER_MODEL,
        LeftOutKind.WITHOUT_CA,
        LeftOutKind.HETATM,
    }
)


def frame_warnings(chains: Sequence[Backbone]) -> tuple[str, ...]:
    """A warning if no residue of the chains has N, CA and C, and so none a frame: their tokens say nothing."""
    if not chains or any(np.isfinite(chain.coordinates).all((1, 2)).any() for chain in chains):
        return ()
    traces = any(np.isfinite(chain.coordinates[:, 1]).all(1).any() for chain in chains)
    atoms = "CA only" if traces else "no CA"
    return (f"no residue has N, CA and C ({atoms}): the structure's tokens say nothing",)


@dataclass(frozen=True)
class StructureContent:
    """What a file holds: its protein chains, what was left out, and warnings, each a sentence for a person."""

    chains: Sequence[Backbone]
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()
