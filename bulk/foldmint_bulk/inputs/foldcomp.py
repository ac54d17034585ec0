"""Databases of Foldcomp: units are ranges of their entries; parsers decompress them."""

import io
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack
from itertools import islice, pairwise
from pathlib import PurePosixPath
from typing import IO, ClassVar

import numpy as np
from fsspec.core import url_to_fs

from foldmint_bulk.errors import UnreadableInput
from foldmint_bulk.inputs.base import InputOptions, RawStructure, Unreadable
from foldmint_bulk.inputs.files import open_input, printable, reason_of, require_foldcomp
from foldmint_bulk.unit import Unit, detail_of, with_detail
from foldmint_client import errors as client_errors
from foldmint_client.io.foldcomp_files import BESIDE, INDEX, LOOKUP, index_entries
from foldmint_client.io.suffixes import FOLDCOMP

_CHUNK = 2**24  # bytes of an index


class FoldcompDatabases:
    """A unit is a range of entries, in the order of the index."""

    name: ClassVar[str] = "foldcomp"

    def claims(self, path: str, beside: Container[str]) -> bool:
        """Whether there are an index and a type beside it."""
        name = PurePosixPath(path).name
        return not name.endswith((*BESIDE, LOOKUP)) and all(name + suffix in beside for suffix in BESIDE)

    def check(self, path: str, options: InputOptions) -> None:  # noqa: ARG002
        """Check that Foldcomp is installed."""
        require_foldcomp()

    def plan(
        self,
        paths: Sequence[str],
        unit_structures: int,
        options: InputOptions,  # noqa: ARG002
        skipped: Counter[str],  # noqa: ARG002
    ) -> Iterator[Unit]:
        """Ranges of entries; the lines of the index and of the lookup are counted."""
        for path in paths:
            try:
                index = _offsets(path + INDEX, unit_structures)
                names = _offsets(path + LOOKUP, unit_structures) if _exists(path + LOOKUP) else [(0, 0)]
            except UnreadableInput:
                yield Unit(self.name, (path,))
                continue
            for place, ((start, at), (stop, _)) in enumerate(pairwise(index)):
                # Of a lookup with fewer lines, the rest have no names.
                name_at = names[place][1] if place < len(names) and names[place][0] == start else -1
                unit = Unit(self.name, (path,), start, stop, stop - start)
                yield with_detail(unit, index=at, lookup=name_at if len(names) > 1 else -1)

    def read(
        self,
        unit: Unit,
        options: InputOptions,  # noqa: ARG002
        skipped: Counter[str],  # noqa: ARG002
    ) -> Iterator[RawStructure]:
        """The entries of the range, as Foldcomp compressed them."""
        (path,) = unit.paths
        at = detail_of(unit)
        with ExitStack() as opened:
            data, index = (opened.enter_context(open_input(name)) for name in (path, path + INDEX))
            lookup: IO[bytes] = io.BytesIO()
            names_at = at.get("lookup", 0 if _exists(path + LOOKUP) else -1)
            if names_at >= 0:
                lookup = opened.enter_context(open_input(path + LOOKUP))
            try:
                index.seek(at.get("index", 0))
                lookup.seek(max(0, names_at))
                size = data.seek(0, io.SEEK_END)
                lines = islice(index, unit.stop - unit.start if unit.stop else None)
                for entry in index_entries(lines, lookup, path + INDEX, unit.start + 1):
                    found = entry.read(data, size)
                    content = Unreadable(str(found)) if isinstance(found, client_errors.InvalidStructure) else found
                    yield RawStructure(printable(f"{path}!{entry.name}"), content, file_name=f"entry{FOLDCOMP}")
            except client_errors.UnreadableInput as error:
                raise UnreadableInput(str(error)) from error
            except OSError as error:
                raise UnreadableInput(f"{path}: {reason_of(error)}") from error


def _exists(path: str) -> bool:
    """Whether a file exists. Raises UnreadableInput."""
    try:
        system, name = url_to_fs(path)
        return bool(system.exists(name))
    except Exception as error:
        raise UnreadableInput(f"{path}: {reason_of(error)}") from error


def _offsets(path: str, every: int) -> list[tuple[int, int]]:
    """Of every so many lines of a file, the number from 0 on, and where the line begins; at last, those of its end.

    Raises UnreadableInput.
    """
    found, lines, at = [(0, 0)], 0, 0
    with open_input(path) as stream:
        try:
            last = b"\n"
            while chunk := stream.read(_CHUNK):
                ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n"))
                first = -(lines + 1) % every
                found += [(lines + place + 1, at + int(ends[place]) + 1) for place in range(first, len(ends), every)]
                lines, at, last = lines + len(ends), at + len(chunk), chunk[-1:]
        except OSError as error:
            raise UnreadableInput(f"{path}: {reason_of(error)}") from error
    lines += last != b"\n"
    return found if found[-1] == (lines, at) else [*found, (lines, at)]
