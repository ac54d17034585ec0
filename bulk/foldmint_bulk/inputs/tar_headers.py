"""The headers of a plain tar, read fast: an archive may have millions of members."""

import io
import tarfile
from collections.abc import Iterator
from typing import IO, NamedTuple

BLOCK = 512
_CHECKSUM = slice(148, 156)
_MAGIC = slice(257, 262)
_FILES, _FOLDER, _OTHERS = (b"0", b"\0", b"7"), b"5", (b"1", b"2", b"3", b"4", b"6")
_LONG_NAME, _LONG_LINK, _PAX = b"L", b"K", (b"x", b"X")
_PLAIN_KEYS = {"path", "size", "mtime", "atime", "ctime", "linkpath", "uname", "gname", "uid", "gid"}
_LONGEST = 2**20  # of a name or of pax records


class Member(NamedTuple):
    """A member. start: where its headers begin, among them those of a long name. end: where those of the next do."""

    start: int
    end: int
    name: str
    file: bool
    folder: bool


class _Unusual(Exception):
    """A header that Python's own module has to read."""


def is_plain_tar(stream: IO[bytes]) -> bool:
    """Whether a file begins as a tar does that is not compressed; it is then at its beginning."""
    begins = stream.read(BLOCK)
    stream.seek(0)
    return begins[_MAGIC] == b"ustar"


def scan(stream: IO[bytes]) -> Iterator[Member]:
    """The members of a plain tar, in order; what is between their headers is not read.

    Raises tarfile.ReadError where the archive is damaged or ends within a header.
    """
    at = 0
    try:
        for member in _members(stream):
            at = member.end
            yield member
    except _Unusual:
        stream.seek(at)
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            # It reads the first one at once.
            while (found := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # they would add up
                yield Member(at, archive.offset, found.name, found.isfile(), found.isdir())
                at = archive.offset


def _members(stream: IO[bytes]) -> Iterator[Member]:
    read, seek = stream.read, stream.seek
    at = start = 0
    name: str | None = None
    size: int | None = None
    while header := read(BLOCK):
        if len(header) < BLOCK:
            raise tarfile.ReadError("it ends within a header")
        if not header.strip(b"\0"):
            return
        if _number(header[_CHECKSUM]) != sum(header) - sum(header[_CHECKSUM]) + 8 * 32:
            raise tarfile.ReadError("a header is damaged")
        kind, own = header[156:157], _number(header[124:136])
        data = at + BLOCK
        if kind in (_LONG_NAME, _LONG_LINK) or kind in _PAX:
            if own > _LONGEST:
                raise _Unusual
            content = read(own)
            if len(content) < own:
                raise tarfile.ReadError("it ends within a header")
            if kind == _LONG_NAME:
                name = _text(content.partition(b"\0")[0])
            elif kind in _PAX:
                records = _records(content)
                name = records.get("path", name)
                size = int(records["size"]) if "size" in records else size
            at = _after(data, own)
            seek(at)
            continue
        if name is None:
            name = _name(header)
        folder = kind == _FOLDER or (kind == b"\0" and name.endswith("/"))
        if kind in _FILES:
            at = _after(data, own if size is None else size)
        elif folder or kind in _OTHERS:
            at = data
        else:
            raise _Unusual
        yield Member(start, at, name, kind in _FILES and not folder, folder)
        start, name, size = at, None, None
        seek(at)


def _after(data: int, size: int) -> int:
    return data + -(-size // BLOCK) * BLOCK


def _number(field: bytes) -> int:
    """A number in octal digits. Raises _Unusual for those of other forms."""
    try:
        return int(field.strip(b"\0 ") or b"0", 8)
    except ValueError as error:
        raise _Unusual from error


def _name(header: bytes) -> str:
    name, prefix = header[:100].partition(b"\0")[0], header[345:500].partition(b"\0")[0]
    return _text(prefix + b"/" + name if prefix else name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _records(content: bytes) -> dict[str, str]:
    """Records of the pax format. Raises _Unusual for those that change how a member is read, and are rare."""
    records, stream = dict[str, str](), io.BytesIO(content)
    while digits := stream.read(1):
        if digits == b"\0":
            break
        while len(digits) < 10 and not digits.endswith(b" "):
            digits += stream.read(1)
        try:
            key, equals, value = stream.read(int(digits) - len(digits))[:-1].decode().partition("=")
        except ValueError as error:
            raise _Unusual from error
        if not equals or (key not in _PLAIN_KEYS and not key.startswith(("SCHILY.", "LIBARCHIVE."))):
            raise _Unusual
        records[key] = value
    return records
