"""Archives of structure files: plain tars in ranges, all others as one unit each."""

import io
import tarfile
import zipfile
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from pathlib import PurePosixPath
from typing import IO, ClassVar, cast

from foldmint_bulk.errors import UnreadableInput
from foldmint_bulk.inputs.base import InputOptions, RawStructure, Unreadable
from foldmint_bulk.inputs.files import open_input, printable, reason_of
from foldmint_bulk.inputs.tar_headers import is_plain_tar, scan
from foldmint_bulk.inputs.twins import PDB_TWINS, Names, Twins, without_twins
from foldmint_bulk.unit import Unit, detail_of, with_detail
from foldmint_client import errors as client_errors
from foldmint_client.io.archives import Members, Wanted, other_kind
from foldmint_client.io.suffixes import ZIP, is_archive

_TAR = ".tar"


class Tars:
    """Plain tars: a unit is a range of bytes with whole members, which is read without unpacking to disk."""

    name: ClassVar[str] = "tar"

    def claims(self, path: str, beside: Container[str]) -> bool:  # noqa: ARG002 (as `InputKind` has it)
        """Whether its suffix is .tar."""
        return path.lower().endswith(_TAR)

    def check(self, path: str, options: InputOptions) -> None:
        """Check nothing: archives need no options."""

    def plan(
        self,
        paths: Sequence[str],
        unit_structures: int,
        options: InputOptions,  # noqa: ARG002
        skipped: Counter[str],
    ) -> Iterator[Unit]:
        """Ranges of each tar; its headers are read, and nothing between them if it is a local file."""
        for path in paths:
            try:
                yield from _tar_units(self.name, path, unit_structures, skipped)
            except UnreadableInput:
                yield Unit(self.name, (path,))

    def read(
        self,
        unit: Unit,
        options: InputOptions,  # noqa: ARG002
        skipped: Counter[str],
    ) -> Iterator[RawStructure]:
        """The members whose headers are in the range."""
        (path,) = unit.paths
        if unit.stop == 0:
            yield from _compressed(path, skipped)
            return
        with open_input(path) as stream:
            size = stream.seek(0, io.SEEK_END)
        if unit.stop > size:
            raise UnreadableInput(f"{path}: it has {size} bytes, {unit.stop} when the job was planned")
        members = Members(
            path,
            opened=lambda: cast("IO[bytes]", _Slice(open_input(path), unit.start, unit.stop)),
            part=unit.stop < size,
            nested=True,
        )
        yield from _members(path, members, _wanted(unit))


class Archives:
    """Compressed tars and zips: a unit is an archive, which is read from its beginning."""

    name: ClassVar[str] = "archive"

    def claims(self, path: str, beside: Container[str]) -> bool:  # noqa: ARG002 (as `InputKind` has it)
        """Whether its suffix is one of an archive."""
        return is_archive(path)

    def check(self, path: str, options: InputOptions) -> None:
        """Check nothing: archives need no options."""

    def plan(
        self,
        paths: Sequence[str],
        unit_structures: int,  # noqa: ARG002
        options: InputOptions,  # noqa: ARG002
        skipped: Counter[str],
    ) -> Iterator[Unit]:
        """A unit for each; of a zip, its directory is read."""
        for path in paths:
            unit = Unit(self.name, (path,))
            if path.lower().endswith(ZIP):
                with suppress(UnreadableInput):  # which reading it reports
                    unit = _zip_unit(unit, skipped)
            yield unit

    def read(
        self,
        unit: Unit,
        options: InputOptions,  # noqa: ARG002
        skipped: Counter[str],
    ) -> Iterator[RawStructure]:
        """Its members."""
        (path,) = unit.paths
        if path.lower().endswith(ZIP):
            yield from _members(path, Members(path, opened=lambda: open_input(path), nested=True), _wanted(unit))
        else:
            yield from _compressed(path, skipped)


def _compressed(path: str, skipped: Counter[str]) -> Iterator[RawStructure]:
    """The structures of a tar that can only be read from its beginning; the other members are counted in `skipped`."""
    members = Members(path, opened=lambda: open_input(path), nested=True)
    try:
        yield from without_twins(_members(path, members), skipped)
    finally:
        skipped.update(members.skipped)


def _members(path: str, members: Members, wanted: Wanted = lambda _: True) -> Iterator[RawStructure]:
    try:
        for name, content in members.read(wanted):
            found = Unreadable(str(content)) if isinstance(content, client_errors.InvalidStructure) else content
            yield RawStructure(printable(f"{path}!{name}"), found, file_name=PurePosixPath(name).name)
    except client_errors.UnreadableInput as error:
        raise UnreadableInput(str(error)) from error
    except Exception as error:
        # File systems raise errors of their own libraries.
        raise UnreadableInput(f"{path}: {reason_of(error)}") from error


def _wanted(unit: Unit) -> Wanted:
    """Which members of a unit are read: all but the twins found when it was planned."""
    twins = Twins(detail_of(unit).get("twins"))
    return lambda name: name not in twins


def _tar_units(kind: str, path: str, unit_structures: int, skipped: Counter[str]) -> Iterator[Unit]:
    """Ranges of a tar of so many structures each; the last one goes to its end. Raises UnreadableInput.

    Of each structure, 17 bytes are kept: its place, and by which twins are found.
    """
    names, others, whole = Names(), Counter[str](), True
    with open_input(path) as stream:
        try:
            size = stream.seek(0, io.SEEK_END)
            stream.seek(0)
            if not is_plain_tar(stream):  # compressed, in spite of its name, or of another time
                raise UnreadableInput(f"{path}: not a plain tar")
            for member in scan(stream):
                if member.file and is_archive(member.name):
                    names.add(member.name, member.start)  # reading it is an error
                elif (other := other_kind(member.name, file=member.file, folder=member.folder)) is None:
                    names.add(member.name, member.start)
                elif other:
                    others[other] += 1
        except (tarfile.TarError, OSError, EOFError) as error:
            if not len(names):
                raise UnreadableInput(f"{path}: {reason_of(error)}") from error
            # What can be read before is planned; reading the last range reports the error.
            whole = False
    skipped.update(others)
    ranges = names.ranges(unit_structures)
    for place, part in enumerate(ranges):
        last = place == len(ranges) - 1
        start, stop = part.start if place else 0, size if last else ranges[place + 1].start
        if part.twins:
            skipped[PDB_TWINS] += part.twin_count
        unit = Unit(kind, (path,), start, stop, part.structures if whole or not last else None)
        yield with_detail(unit, twins=part.twins) if part.twins else unit


def _zip_unit(unit: Unit, skipped: Counter[str]) -> Unit:
    names = Names()
    (path,) = unit.paths
    try:
        with open_input(path) as stream, zipfile.ZipFile(stream) as archive:
            for member in archive.infolist():
                link = (member.external_attr >> 16) & 0o170000 == 0o120000
                other = other_kind(member.filename, file=not link, folder=member.is_dir())
                if other is None or is_archive(member.filename):
                    names.add(member.filename, member.header_offset)
                elif other:
                    skipped[other] += 1
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise UnreadableInput(f"{path}: {reason_of(error)}") from error
    for part in names.ranges(max(1, len(names))):
        if part.twins:
            skipped[PDB_TWINS] += part.twin_count
            return with_detail(Unit(unit.kind, unit.paths, structures=part.structures), twins=part.twins)
        return Unit(unit.kind, unit.paths, structures=part.structures)
    return unit


class _Slice(io.RawIOBase):
    """A range of a file, as a file of its own."""

    def __init__(self, raw: IO[bytes], start: int, stop: int) -> None:
        self._raw, self._start, self._stop, self._at = raw, start, stop, start
        raw.seek(start)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: self._start, io.SEEK_CUR: self._at, io.SEEK_END: self._stop}[whence]
        self._at = self._raw.seek(base + offset)
        return self.tell()

    def tell(self) -> int:
        return self._at - self._start

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._stop - self._at)
        part = self._raw.read(left if size < 0 else min(size, left))
        self._at += len(part)
        return part

    def close(self) -> None:
        self._raw.close()
        super().close()
