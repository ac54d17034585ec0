"""What a reader left out of a structure file, and its warnings."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from foldmint_tokenizer.structure.backbone import Backbone


class LeftOutKind(StrEnum):
    """Why residues were left out."""

    WATER = "water"
    ION = "ion"
    LIGAND = "ligand"  # including free amino acids and glycans
    NUCLEIC_ACID = "nucleic_acid"
    CAP = "cap"  # ACE, NH2, NME, ...
    ALTERNATE = "alternate"  # another residue in the same place, of lower occupancy
    OTHER_MODEL = "other_model"
    OTHER_BLOCK = "other_block"  # a data block of an mmCIF file without atoms
    OTHER_CHAIN = "other_chain"  # a protein chain that was not requested
    WITHOUT_CA = "without_ca"  # a name in no table, bonded into the chain, but without all of N, CA and C
    HETATM = "hetatm"  # reading `esm`: a protein's residues in HETATM records, or with names that are not in the CCD


@dataclass(frozen=True)
class LeftOut:
    """Residues of one kind that were left out of one chain.

    chain: its name; empty for other models and blocks, which belong to no chain. residues: number of residues; of
    models or blocks for those kinds. names: the distinct residue names (or numbers of models, names of blocks), the
    most frequent first, at most 20.
    """

    kind: LeftOutKind
    chain: str
    residues: int
    names: tuple[str, ...]

    @property
    def of_protein(self) -> bool:
        """Whether these are a protein's residues, other than those of chains that were not requested."""
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
    """A warning if no residue of the chains has a frame, because none has N, CA and C: all tokens are the same."""
    if not chains or any(np.isfinite(chain.coordinates).all((1, 2)).any() for chain in chains):
        return ()
    coordinates = np.concatenate([chain.coordinates for chain in chains])
    there = np.isfinite(coordinates).all(2).any(0)  # (N, CA, C)
    why = "only CA is present" if there.tolist() == [False, True, False] else "none has all of N, CA and C"
    return (f"no residue has a frame ({why}), so the tokens carry no information",)


@dataclass(frozen=True)
class StructureContent:
    """A file's protein chains, what was left out, and warnings, each a sentence for the user."""

    chains: Sequence[Backbone]
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()
