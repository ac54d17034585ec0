"""What a kind of input does: plan units, and read their structures."""

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, get_args

from foldmint_bulk.unit import Unit
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.structure.options import Format, Reading


@dataclass(frozen=True)
class InputOptions:
    """How to read inputs, where their kinds have a choice; written to job.json.

    reading: which residues count. Of Parquet files: id_column, structure_column: names of columns; empty: found by
    their names; format: of structure files in cells; empty: detected. Of trajectories: topology: path or URL of the
    file with their atoms; empty: beside each; stride: every so many frames. Raises ValueError for invalid values.
    """

    reading: Reading = "all"
    id_column: str = ""
    structure_column: str = ""
    format: str = ""
    topology: str = ""
    stride: int = 1

    def __post_init__(self) -> None:
        if self.format and self.format not in get_args(Format):
            raise ValueError(f"format must be one of {', '.join(get_args(Format))}, not {self.format!r}")
        if self.stride < 1:
            raise ValueError(f"stride must be positive, not {self.stride}")


@dataclass(frozen=True)
class Unreadable:
    """A structure that cannot even be handed to a parser, and why."""

    reason: str


@dataclass(frozen=True)
class RawStructure:
    """A structure as its input has it, not parsed yet.

    source: what outputs call it, such as `proteome.tar!AF-P12345-F1.cif.gz`. content: the bytes of a structure file,
    plain or compressed; or backbones, of inputs that hold coordinates; or why there is neither. chains: names of those
    to read; empty: all. file_name: of bytes; what ends with .fcz is decompressed by Foldcomp. format: of bytes; empty:
    detected.
    """

    source: str
    content: "bytes | tuple[Backbone, ...] | Unreadable"
    chains: tuple[str, ...] = ()
    file_name: str = ""
    format: str = ""


class InputKind(Protocol):
    """A kind of input.

    `plan` and `read` reach files by fsspec only, so that paths may be URLs.
    """

    @property
    def name(self) -> str:
        """By which units name it."""
        ...

    def claims(self, path: str, beside: Container[str]) -> bool:
        """Whether a file is of this kind, judged by its name and the names in its folder."""
        ...

    def check(self, path: str, options: InputOptions) -> None:
        """Check cheaply, before anything is begun, that a file of this kind can be read with these options.

        Raises InvalidInput if a library is missing or the options do not fit the file. Damage is for `read` to report.
        """
        ...

    def plan(
        self, paths: Sequence[str], unit_structures: int, options: InputOptions, skipped: Counter[str]
    ) -> Iterator[Unit]:
        """The units of files of this kind, in order, of about so many structures each.

        A file that cannot be planned becomes one unit, and reading it reports the error. skipped: counts what is within
        the files and no structure, as far as planning sees it, by kind.
        """
        ...

    def read(self, unit: Unit, options: InputOptions, skipped: Counter[str]) -> Iterator[RawStructure]:
        """The structures of a unit, in order, the same at every call.

        Raises UnreadableInput where the rest of the unit cannot be read: what came before counts, and the error becomes
        a failure. One structure that cannot be read is `Unreadable`, and the others follow. skipped: counts what is
        no structure, if planning could not, by kind.
        """
        ...
