"""Archives of structure files: plain tars in ranges, all others as one unit each."""

import io
import tarfile
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, ClassVar, cast

from foldmint_bulk.errors import UnreadableInput
from foldmint_bulk.inputs.base import InputOptions, RawStructure, Unreadable
from foldmint_bulk.inputs.files import open_input, printable, reason_of
from foldmint_bulk.unit import Unit
from foldmint_client import errors as client_errors
from foldmint_client.io.archives import Members
from foldmint_client.io.suffixes import is_archive, is_structure

_TAR = ".tar"
_BLOCK = 512  # of a tar
_MAGIC = slice(257, 262)  # of its headers


class Tars:
    """Plain tars: a unit is a range of bytes with whole members, which is read without unpacking to disk."""

    name: ClassVar[str] = "tar"

    def claims(self, path: str, beside: Container[str]) -> bool:  # noqa: ARG002 (as `InputKind` has it)
        """Whether its suffix is .tar."""
        return path.lower().endswith(_TAR)

    def plan(self, paths: Sequence[str], unit_structures: int, options: InputOptions) -> Iterator[Unit]:  # noqa: ARG002
        """Ranges of each tar; its headers are read, and nothing between them if it is a local file."""
        for path in paths:
            try:
                ranges = _ranges(path, unit_structures)
            except UnreadableInput:
                ranges = [_Range(0, 0, None)]
            for part in ranges:
                yield Unit(self.name, (path,), part.start, part.stop, part.structures)

    def read(self, unit: Unit, options: InputOptions) -> Iterator[RawStructure]:  # noqa: ARG002
        """The members whose headers are in the range."""
        (path,) = unit.paths
        if unit.stop == 0:
            yield from _members(path, Members(path, opened=lambda: open_input(path)))
            return
        with open_input(path) as stream:
            size = stream.seek(0, io.SEEK_END)
        part = unit.stop < size
        if unit.stop > size:
            raise UnreadableInput(f"{path}: it has {size} bytes, {unit.stop} when the job was planned")
        yield from _members(
            path,
            Members(path, opened=lambda: cast("IO[bytes]", _Slice(open_input(path), unit.start, unit.stop)), part=part),
        )


class Archives:
    """Compressed tars and zips: a unit is an archive, which is read from its beginning."""

    name: ClassVar[str] = "archive"

    def claims(self, path: str, beside: Container[str]) -> bool:  # noqa: ARG002 (as `InputKind` has it)
        """Whether its suffix is one of an archive."""
        return is_archive(path)

    def plan(self, paths: Sequence[str], unit_structures: int, options: InputOptions) -> Iterator[Unit]:  # noqa: ARG002
        """A unit for each."""
        for path in paths:
            yield Unit(self.name, (path,))

    def read(self, unit: Unit, options: InputOptions) -> Iterator[RawStructure]:  # noqa: ARG002
        """Its members."""
        (path,) = unit.paths
        yield from _members(path, Members(path, opened=lambda: open_input(path)))


def _members(path: str, members: Members) -> Iterator[RawStructure]:
    try:
        for name, content in members.read():
            found = Unreadable(str(content)) if isinstance(content, client_errors.InvalidStructure) else content
            yield RawStructure(printable(f"{path}!{name}"), found, file_name=PurePosixPath(name).name)
    except client_errors.UnreadableInput as error:
        raise UnreadableInput(str(error)) from error


@dataclass(frozen=True)
class _Range:
    """Bytes of a tar, from the header of a member up to that of another one. structures: None if not known."""

    start: int
    stop: int
    structures: int | None


def _ranges(path: str, unit_structures: int) -> list[_Range]:
    """The ranges of a tar of so many structures each; the last one goes to its end. Raises UnreadableInput."""
    ranges, start, count = list[_Range](), 0, 0
    with open_input(path) as stream:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        if stream.read(_BLOCK)[_MAGIC] != b"ustar":  # compressed, in spite of its name, or of another time
            return [_Range(0, 0, None)]
        stream.seek(0)
        try:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                while True:
                    end = archive.offset
                    if (member := archive.next()) is None:
                        break
                    archive.members = []  # type: ignore[attr-defined]  # they would add up
                    if not (member.isfile() and is_structure(member.name)):
                        continue
                    if count == unit_structures:
                        ranges.append(_Range(start, end, count))
                        start, count = end, 0
                    count += 1
        except (tarfile.TarError, OSError, EOFError) as error:
            if not ranges and not count:
                raise UnreadableInput(f"{path}: {reason_of(error)}") from error
            # What can be read before is planned; reading the last range reports the error.
            count = 0
    return [*ranges, _Range(start, size, count or None)]


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
