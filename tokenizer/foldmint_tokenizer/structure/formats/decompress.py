"""Decompresses gzip, zstd, xz and bzip2, with limits on bytes, memory and members."""

import bz2
import lzma
import re
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from foldmint_tokenizer.errors import InvalidStructure

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_ZEROS = re.compile(rb"\0+")
# Files written in blocks, as by bgzip, have one member for at most 64 KiB.
_MEMBERS = 10_000
# Compressed bytes passed to the library at a time: it copies what follows a member's end.
_FIRST, _MOST = 2**10, 2**20
_XZ_MEMORY = 72 * 2**20  # bytes; `xz -9` needs 65 MiB
_ZSTD_WINDOW = 27  # as a power of two, in bytes: the default of the command `zstd`


class _TooLarge(InvalidStructure):
    """A file with more bytes than allowed."""


class _Decompressor(Protocol):
    """The common interface of the four libraries."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


@dataclass(frozen=True)
class _Compression:
    """A compression format. magic: a file's first bytes. member: the format's name for the parts that may follow each
    other.
    """

    name: str
    magic: re.Pattern[bytes]
    member: str
    open: Callable[[], _Decompressor]


_COMPRESSIONS = (
    _Compression("gzip", re.compile(rb"\x1f\x8b"), "members", lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)),
    _Compression(
        "zstd",
        re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),  # the second begins a skippable frame
        "frames",
        lambda: zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW}),
    ),
    _Compression(
        "xz",
        re.compile(rb"\xfd7zXZ\0"),
        "streams",
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY),
    ),
    _Compression("bzip2", re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), "streams", bz2.BZ2Decompressor),
)
COMPRESSED_SUFFIXES = (".gz", ".zst", ".xz", ".bz2")
"""Suffixes of compressed files' names; the format is detected by content."""


def compression(content: bytes) -> str | None:
    """The name of a file's compression format, by its first bytes; None if it is not compressed."""
    found = _found(content)
    return None if found is None else found.name


def unpacked(content: bytes, limit: int) -> bytes:
    """A file's bytes, decompressed if it is gzip, zstd, xz or bzip2.

    Raises InvalidStructure if the file is empty, if there are more than `limit` bytes or 10,000 members, if the data is
    damaged, truncated, followed by other data or compressed twice, or if it needs more memory than with the usual
    settings of `xz` and `zstd`.
    """
    if not content or content.isspace():
        raise InvalidStructure("content", "the file is empty")
    found = _found(content)
    if found is None:
        if len(content) > limit:
            raise InvalidStructure("content", f"{len(content)} bytes; at most {limit} are accepted")
        return content
    plain = _members(found, content, limit)
    if (inner := _found(plain)) is not None:
        raise InvalidStructure("content", f"the file is compressed twice: {inner.name} within {found.name}")
    return plain


def is_larger(content: bytes, size: int) -> bool:
    """Whether a file has more than `size` bytes, decompressed: no more than that many are decompressed to find out.

    If the data is damaged before, it is not larger.
    """
    found = _found(content)
    if found is None or len(content) > size:
        return len(content) > size
    try:
        _members(found, content, size)
    except _TooLarge:
        return True
    except InvalidStructure:
        return False
    return False


def _found(content: bytes) -> _Compression | None:
    return next((one for one in _COMPRESSIONS if one.magic.match(content)), None)


def _members(kind: _Compression, content: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    left, start = limit, 0
    for _ in range(_MEMBERS):
        start, left = _member(kind, content, start, left, limit, parts)
        filled = _ZEROS.match(content, start)  # zero padding to whole blocks, as on a tape
        start = start if filled is None else filled.end()
        if start == len(content):
            return b"".join(parts)
        if not kind.magic.match(content, start):
            raise InvalidStructure("content", f"the {kind.name} data is followed by other data")
    reason = f"the {kind.name} data has more than {_MEMBERS} {kind.member}, the maximum accepted"
    raise InvalidStructure("content", reason)


def _member(
    kind: _Compression, content: bytes, start: int, left: int, limit: int, parts: list[bytes]
) -> tuple[int, int]:
    """Decompress one member into `parts`. Returns where it ends, and how many more bytes are allowed."""
    unpacker, size = kind.open(), _FIRST if start else _MOST  # most files have one member
    while not unpacker.eof:
        packed = content[start : start + size]
        if not packed:
            raise InvalidStructure("content", f"the {kind.name} data is truncated")
        try:
            part = unpacker.decompress(packed, left + 1)
        except (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, ValueError) as error:
            greedy = "memory" in str(error).lower()  # the libraries report nothing else
            what = "needs more memory than is allowed" if greedy else "is damaged"
            raise InvalidStructure("content", f"the {kind.name} data {what}: {error}") from error
        left -= len(part)
        if left < 0:
            raise _TooLarge("content", f"the {kind.name} data unpacks to more than {limit} bytes")
        parts.append(part)
        start += len(packed) - len(unpacker.unused_data)
        size = min(2 * size, _MOST)
    return start, left
