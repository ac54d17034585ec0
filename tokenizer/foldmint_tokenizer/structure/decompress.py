"""Unpacking of gzip, within bounds of bytes and of members."""

import re
import zlib

from foldmint_tokenizer.errors import InvalidStructure

_MAGIC = b"\x1f\x8b"
_ZEROS = re.compile(rb"\0+")
# Files written in blocks, as bgzip does, have one for at most 64 KiB.
_MEMBERS = 10_000
# Of what is packed, given to zlib at a time: what follows a member's end is copied.
_FIRST, _MOST = 1024, 2**20


def unpacked(content: bytes, limit: int) -> bytes:
    """A file's bytes, gzip or plain.

    Raises InvalidStructure if there is nothing, if there are more than `limit` bytes or 10,000 members, or if the gzip
    data is damaged, cut off or followed by something else.
    """
    if not content.strip():
        raise InvalidStructure("content", "the file is empty")
    if not content.startswith(_MAGIC):
        if len(content) > limit:
            raise InvalidStructure("content", f"{len(content)} bytes; at most {limit} are taken")
        return content
    parts: list[bytes] = []
    left, start = limit, 0
    for _ in range(_MEMBERS):
        start, left = _member(content, start, left, limit, parts)
        filled = _ZEROS.match(content, start)  # up to whole blocks, as on a tape
        start = start if filled is None else filled.end()
        if start == len(content):
            return b"".join(parts)
        if not content.startswith(_MAGIC, start):
            raise InvalidStructure("content", "the gzip data is followed by something else")
    raise InvalidStructure("content", f"the gzip data has more than {_MEMBERS} members; at most as many are taken")


def _member(content: bytes, start: int, left: int, limit: int, parts: list[bytes]) -> tuple[int, int]:
    """Unpack one member into `parts`; where it ends, and how many bytes may still come."""
    unpacker, size = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), _FIRST
    while not unpacker.eof:
        packed = content[start : start + size]
        if not packed:
            raise InvalidStructure("content", "the gzip data is truncated")
        try:
            part = unpacker.decompress(packed, left + 1)
        except zlib.error as error:
            raise InvalidStructure("content", f"the gzip data is damaged: {error}") from error
        left -= len(part)
        if left < 0:
            raise InvalidStructure("content", f"the gzip data unpacks to more than {limit} bytes")
        parts.append(part)
        start += len(packed) - len(unpacker.unused_data)
        size = min(2 * size, _MOST)
    return start, left
