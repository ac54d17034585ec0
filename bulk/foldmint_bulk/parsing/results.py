"""What becomes of a structure that is parsed."""

from dataclasses import dataclass

from foldmint_tokenizer.neighborhoods import Geometry
from foldmint_tokenizer.structure.left_out import StructureContent

INVALID = "InvalidStructure"
"""Kind of failures of structures that the reader rejects; another try changes nothing."""
UNREADABLE = "Unreadable"
"""Kind of failures of what cannot be read: files, members of archives, the rest of a damaged archive."""
KILLED = "Killed"
"""Kind of failures of structures that end their parser, or need more memory or time than it has."""
FAILED = "Failed"
"""Kind of failures that should not be: a defect in this software."""


@dataclass(frozen=True)
class Failure:
    """A structure without tokens. kind: `InvalidStructure`, `Killed`, `Unreadable`, …; reason: for people."""

    source: str
    kind: str
    reason: str


@dataclass(frozen=True, eq=False)
class Parsed:
    """A structure, ready for the encoder. geometry: of its chains, each alone."""

    source: str
    content: StructureContent
    geometry: Geometry

    @property
    def residues(self) -> int:
        """In all chains."""
        return len(self.geometry.residue_index)
