"""What a kind of input does: plan units, and read their structures."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from foldmint_bulk.unit import Unit
from foldmint_tokenizer.structure.backbone import Backbone


@dataclass(frozen=True)
class InputOptions:
    """How to read inputs, where their kinds have a choice; written to job.json."""


@dataclass(frozen=True)
class Unreadable:
    """A structure that cannot even be handed to a parser, and why."""

    reason: str


@dataclass(frozen=True)
class RawStructure:
    """A structure as its input has it, not parsed yet.

    source: what outputs call it, such as `proteome.tar!AF-P12345-F1.cif.gz`. content: the bytes of a structure file,
    plain or compressed; or backbones, of inputs that hold coordinates; or why there is neither. chains: names of those
    to read; empty: all. file_name: of bytes, by which a format is told where the content does not tell it.
    """

    source: str
    content: "bytes | tuple[Backbone, ...] | Unreadable"
    chains: tuple[str, ...] = ()
    file_name: str = ""


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

    def plan(self, paths: Sequence[str], unit_structures: int, options: InputOptions) -> Iterator[Unit]:
        """The units of files of this kind, in order, of about so many structures each.

        A file that cannot be planned becomes one unit, and reading it reports the error.
        """
        ...

    def read(self, unit: Unit, options: InputOptions) -> Iterator[RawStructure]:
        """The structures of a unit, in order, the same at every call.

        Raises UnreadableInput where the rest of the unit cannot be read: what came before counts, and the error becomes
        a failure. One structure that cannot be read is `Unreadable`, and the others follow.
        """
        ...
