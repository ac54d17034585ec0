"""What to read of a structure file, and limits."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from foldmint_tokenizer.errors import InvalidStructure

Format = Literal["pdb", "mmcif", "bcif"]
"""A structure file's format: the PDB's column format, PDBx/mmCIF, or BinaryCIF."""

WrittenFormat = Literal["pdb", "mmcif"]
"""The formats that Foldmint writes."""

Reading = Literal["all", "esm"]
"""Which residues count: all protein residues, or those that ESM's own reader takes (see docs/reading.md)."""


@dataclass(frozen=True)
class Limits:
    """Limits of a structure. unpacked_bytes: of the decompressed file. chains, residues: in total."""

    unpacked_bytes: int = 256 * 2**20
    chains: int = 1_000
    residues: int = 200_000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"Limits.{name} must be positive, not {value}")


@dataclass(frozen=True)
class ReadOptions:
    """What to read of a structure file.

    format: detected from the content if None. model_number: the file's number of the model; 0 is the first. chains: the
    author's names (auth_asym_id); empty: all protein chains. reading: `esm` leaves out what ESM's own reader leaves
    out. min_plddt: residues whose CA has a lower B-factor, which predicted models use for the pLDDT (0 to 100), are
    read as if they had no frame; None: no such threshold. assembly: name of the biological assembly to build (mmCIF's
    `_pdbx_struct_assembly.id`, PDB's BIOMOLECULE); empty: the coordinates as they are. renumber: number the residues of
    each chain 1, 2, 3, ... as `ESM3.encode` does, whatever the file's numbers.

    Raises InvalidStructure, with the option as its field, for invalid values.
    """

    format: Format | None = None
    model_number: int = 0
    chains: Sequence[str] = ()
    reading: Reading = "all"
    min_plddt: float | None = None
    assembly: str = ""
    renumber: bool = False
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in get_args(Format):
            raise InvalidStructure("format", f"must be one of {', '.join(get_args(Format))}, not {self.format!r}")
        if self.reading not in get_args(Reading):
            raise InvalidStructure("reading", f"must be one of {', '.join(get_args(Reading))}, not {self.reading!r}")
        if self.model_number < 0:
            raise InvalidStructure("model_number", f"must be 0 or more, not {self.model_number}")
        if self.min_plddt is not None and not 0 <= self.min_plddt <= 100:
            raise InvalidStructure("min_plddt", f"must be between 0 and 100, not {self.min_plddt}")
