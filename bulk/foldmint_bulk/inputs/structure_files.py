"""Files of one structure each, plain or compressed."""

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from pathlib import PurePosixPath
from typing import ClassVar

from foldmint_bulk.errors import UnreadableInput
from foldmint_bulk.inputs.base import InputOptions, RawStructure, Unreadable
from foldmint_bulk.inputs.files import printable, read_input, require_foldcomp
from foldmint_bulk.unit import Unit
from foldmint_client.io.suffixes import FOLDCOMP, is_structure


class StructureFiles:
    """A unit is a number of files."""

    name: ClassVar[str] = "files"

    def claims(self, path: str, beside: Container[str]) -> bool:  # noqa: ARG002 (as `InputKind` has it)
        """Whether its suffix is one of a structure."""
        return is_structure(path)

    def check(self, path: str, options: InputOptions) -> None:  # noqa: ARG002
        """Check that Foldcomp is installed if the file is one of its own."""
        if path.lower().endswith(FOLDCOMP):
            require_foldcomp()

    def plan(
        self,
        paths: Sequence[str],
        unit_structures: int,
        options: InputOptions,  # noqa: ARG002
        skipped: Counter[str],  # noqa: ARG002
    ) -> Iterator[Unit]:
        """So many files a unit."""
        for start in range(0, len(paths), unit_structures):
            part = tuple(paths[start : start + unit_structures])
            yield Unit(self.name, part, structures=len(part))

    def read(
        self,
        unit: Unit,
        options: InputOptions,  # noqa: ARG002
        skipped: Counter[str],  # noqa: ARG002
    ) -> Iterator[RawStructure]:
        """The files' contents."""
        for path in unit.paths:
            content: bytes | Unreadable
            try:
                content = read_input(path)
            except UnreadableInput as error:
                content = Unreadable(str(error).removeprefix(f"{path}: "))
            yield RawStructure(printable(path), content, file_name=PurePosixPath(path).name)
