"""Members of tar and zip archives, one after another; nothing is unpacked to disk, and never two are in memory."""

import bz2
import gzip
import io
import lzma
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from foldmint_client.errors import InvalidStructure, UnreadableInput
from foldmint_client.io.suffixes import ZIP, is_archive, is_structure, kind

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_MEMBER_BYTES = 256 * 2**20
"""Of a member; longer than what a request may hold."""

NESTED = "an archive within an archive is not read; extract it first"
"""The error of archives within archives."""

_HEADERS = 16 * 2**20  # bytes between two members of a tar: long names and the like
_RATIO = 200  # of what is unpacked to what was packed, from a GiB on; structures have 20 at most
_UNTIL_RATIO = 2**30
_CHUNK = 2**16
_BLOCK = 512  # of tar

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError, zstd.ZstdError)

Wanted = Callable[[str], bool]
"""Whether a member, of this name, is to be read."""

Member = tuple[str, bytes | InvalidStructure]
"""A member's name, and its content or the error it has."""


class Members:
    """The structures in an archive, in its order, as pairs of a name and its content or the error it has.

    path: a .tar, compressed or not, or a .zip. opened: opens it for reading, by default as a local file. part: whether
    it is a part of a tar, which has no mark of its end. nested: whether archives within are returned, with an error,
    instead of being counted. Directories, links, devices, hidden files and files with other
    suffixes than those of structures are not returned; `skipped` counts them by kind as the archive is read. Raises
    UnreadableInput where an archive is damaged or cut off, after the members that can be read before.
    """

    def __init__(
        self,
        path: Path | str,
        limit: int = MAX_MEMBER_BYTES,
        *,
        opened: Callable[[], IO[bytes]] | None = None,
        part: bool = False,
        nested: bool = False,
    ) -> None:
        self._path, self._limit, self._part, self._nested = path, limit, part, nested
        self._open: Callable[[], IO[bytes]] = opened or self._local
        self.skipped: Counter[str] = Counter()

    def read(self, wanted: Wanted = lambda _: True) -> Iterator[Member]:
        """The members; of those that are not wanted nothing is read."""
        members = self._zip if str(self._path).lower().endswith(ZIP) else self._tar
        try:
            yield from members(wanted)
        except _DAMAGE as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            what = "cannot be read" if isinstance(error, OSError) and error.errno else "is damaged or cut off"
            raise UnreadableInput(f"{self._path}: the archive {what}: {reason}") from error

    def _local(self) -> IO[bytes]:
        return Path(self._path).open("rb")

    def _tar(self, wanted: Wanted) -> Iterator[Member]:
        with ExitStack() as opened:
            raw = opened.enter_context(self._open())
            stream = _Metered(raw, opened)
            stream.allow(_HEADERS)
            archive = opened.enter_context(tarfile.open(fileobj=stream, mode="r|", bufsize=_CHUNK))
            while (member := archive.next()) is not None:
                archive.members = []  # type: ignore[attr-defined]  # they would add up
                stream.allow(member.size + _HEADERS)
                if self._nested and member.isfile() and is_archive(member.name):
                    yield member.name, InvalidStructure(NESTED)
                    continue
                if not self._counts(member.name, member.isfile(), member.isdir()) or not wanted(member.name):
                    continue
                if member.size > self._limit:
                    yield member.name, self._too_long(member.size)
                    continue
                content = archive.extractfile(member)
                yield member.name, b"" if content is None else content.read()
            if not self._part:
                stream.check_end(archive.offset)

    def _zip(self, wanted: Wanted) -> Iterator[Member]:
        with self._open() as raw, zipfile.ZipFile(raw) as archive:
            for member in archive.infolist():
                link = (member.external_attr >> 16) & 0o170000 == 0o120000
                if self._nested and not link and is_archive(member.filename):
                    yield member.filename, InvalidStructure(NESTED)
                    continue
                if not self._counts(member.filename, not link, member.is_dir()) or not wanted(member.filename):
                    continue
                if member.file_size > self._limit:
                    yield member.filename, self._too_long(member.file_size)
                    continue
                try:
                    yield member.filename, archive.read(member)
                except (*_DAMAGE, RuntimeError, NotImplementedError) as error:  # encrypted, or packed in another way
                    yield member.filename, InvalidStructure(f"the member of the archive cannot be read: {error}")

    def _counts(self, name: str, file: bool, folder: bool) -> bool:
        """Whether a member is a structure; counts it if it is not."""
        other = other_kind(name, file=file, folder=folder)
        if other:
            self.skipped[other] += 1
        return other is None

    def _too_long(self, size: int) -> InvalidStructure:
        return InvalidStructure(f"the member of the archive has {size} bytes; at most {self._limit} are taken")


def other_kind(name: str, *, file: bool, folder: bool) -> str | None:
    """The kind under which a member that is not a structure is counted; empty for a folder, None for a structure."""
    if folder:
        return ""
    if not file:
        return "links and devices"
    if any(part.startswith(".") and part.strip(".") for part in name.split("/")):
        return "hidden"
    return None if is_structure(name) else kind(name)


def _decompressed(raw: IO[bytes]) -> "IO[bytes] | io.BufferedIOBase":
    """A file as it is, or what it is packed from, detected by its first bytes."""
    begins = raw.read(8)
    raw.seek(0)
    if begins.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=raw)
    if begins.startswith(b"\x28\xb5\x2f\xfd"):
        return zstd.ZstdFile(raw)
    if begins.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMAFile(raw)
    if begins.startswith(b"BZh"):
        return bz2.BZ2File(raw)
    return raw


class _Metered(io.RawIOBase):
    """What a tar archive holds, decompressed, read forward and within bounds."""

    def __init__(self, raw: IO[bytes], opened: ExitStack) -> None:
        self._raw = raw
        self._plain = _decompressed(raw)
        opened.enter_context(self._plain)
        self._read = 0
        self._allowed = 0
        self._last = b""  # what was read last, by which the end is checked

    def readable(self) -> bool:
        return True

    def allow(self, size: int) -> None:
        """Allow so many bytes more to be read."""
        self._allowed = self._read + size + 2 * _CHUNK

    def read(self, size: int = -1) -> bytes:
        """The next bytes. Raises tarfile.ReadError beyond what is allowed."""
        part = self._plain.read(_CHUNK if size < 0 else size)
        self._read += len(part)
        if self._read > self._allowed:
            raise tarfile.ReadError("headers of more than 16 MiB")
        if self._read > _UNTIL_RATIO and self._read > _RATIO * max(self._raw.tell(), 1):
            raise tarfile.ReadError(f"it unpacks to more than {_RATIO} times its size")
        self._last = (self._last + part)[-2 * _CHUNK :]
        return part

    def check_end(self, offset: int) -> None:
        """Check what follows the last member, from offset on: zeros alone, one block at least."""
        rest = self._last[max(len(self._last) - (self._read - offset), 0) :] if self._read > offset else b""
        if len(rest) < _BLOCK:
            raise tarfile.ReadError("it ends without the mark of its end")
        while rest:
            if rest.strip(b"\0"):
                raise tarfile.ReadError("something else follows its end, or a header is damaged")
            self.allow(_CHUNK)
            rest = self.read(_CHUNK)
