"""Files that are compressed: gzip, zstd, xz and bzip2, whole, in several parts, damaged, and made to do harm."""

import bz2
import gzip
import lzma
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from foldmint_tokenizer import InvalidStructure
from foldmint_tokenizer.structure.formats.decompress import compression, is_larger, unpacked

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    # With a checksum, as the command `zstd` writes it.
    "zstd": lambda plain: zstd.compress(plain, options={zstd.CompressionParameter.checksum_flag: 1}),
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
PLAIN = b"".join(b"ATOM  %5d  CA  ALA A%4d\n" % (row, row) for row in range(2_000))
LIMIT = 1_000_000

each = pytest.mark.parametrize("name", COMPRESS)


def refusal(content: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(InvalidStructure) as caught:
        unpacked(content, limit)
    assert caught.value.field == "content"
    return caught.value.reason


@each
def test_whether_a_file_is_larger(name: str) -> None:
    """Without decompressing more than that; damaged ones are not, and `unpacked` says what is wrong with them."""
    packed = COMPRESS[name](PLAIN)
    assert not is_larger(packed, len(PLAIN))
    assert is_larger(packed, len(PLAIN) - 1)
    assert is_larger(packed + packed, len(PLAIN))
    assert not is_larger(packed[: len(packed) // 2], len(PLAIN))
    assert not is_larger(PLAIN, len(PLAIN))
    assert is_larger(PLAIN, len(PLAIN) - 1)
    bomb = COMPRESS[name](bytes(50_000_000))
    tracemalloc.start()
    assert is_larger(bomb, LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 25_000_000  # xz has a dictionary of 8 MiB


@each
def test_one_or_several_members_and_zeros_between(name: str) -> None:
    compress = COMPRESS[name]
    assert compression(compress(PLAIN)) == name
    assert unpacked(compress(PLAIN), LIMIT) == PLAIN
    parts = [compress(PLAIN[:5_000]), compress(b""), b"\0" * 512, compress(PLAIN[5_000:]), b"\0" * 100]
    assert unpacked(b"".join(parts), LIMIT) == PLAIN


@each
def test_the_limit_counts_unpacked_bytes(name: str) -> None:
    packed = COMPRESS[name](PLAIN)
    assert unpacked(packed, len(PLAIN)) == PLAIN
    assert refusal(packed, len(PLAIN) - 1) == f"the {name} data unpacks to more than {len(PLAIN) - 1} bytes"
    assert "unpacks to more" in refusal(packed + packed, 2 * len(PLAIN) - 1)


@each
def test_what_is_wrong_is_named(name: str) -> None:
    packed = COMPRESS[name](PLAIN)
    for cut in (20, len(packed) // 2, len(packed) - 1):
        assert refusal(packed[:cut]) == f"the {name} data is truncated"
    assert refusal(packed + b"junk") == f"the {name} data is followed by other data"
    assert refusal(COMPRESS[name](packed)) == f"the file is compressed twice: {name} within {name}"
    assert "gzip within" in refusal(COMPRESS[name](gzip.compress(PLAIN)))
    damaged = bytearray(packed)
    damaged[len(packed) // 2 : len(packed) // 2 + 8] = b"\xff" * 8
    assert f"the {name} data" in refusal(bytes(damaged))


@each
def test_bombs_take_no_more_memory_than_is_allowed(name: str) -> None:
    bomb = COMPRESS[name](b"\0" * 25_000_000)
    tracemalloc.start()
    try:
        assert "unpacks to more" in refusal(bomb)
        assert tracemalloc.get_traced_memory()[1] < 20 * LIMIT
    finally:
        tracemalloc.stop()
    assert "more than 10000" in refusal(COMPRESS[name](b"") * 10_001)


def test_windows_and_dictionaries_beyond_the_usual_are_refused() -> None:
    parameters: dict[int, int] = {zstd.CompressionParameter.window_log: 28}
    compressor = zstd.ZstdCompressor(options=parameters)
    assert "zstd data needs more memory" in refusal(compressor.compress(PLAIN) + compressor.flush())
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 2**27}]
    assert "xz data needs more memory" in refusal(lzma.compress(PLAIN, filters=filters))
    assert unpacked(lzma.compress(PLAIN, preset=9), LIMIT) == PLAIN
    assert unpacked(zstd.compress(PLAIN, 22), LIMIT) == PLAIN


def test_frames_to_skip() -> None:
    skipped = struct.pack("<II", 0x184D2A50, 4) + b"meta"
    assert unpacked(skipped + zstd.compress(PLAIN) + skipped, LIMIT) == PLAIN


def test_plain_files_stay_as_they_are() -> None:
    assert compression(PLAIN) is None
    assert unpacked(PLAIN, len(PLAIN)) is PLAIN
    assert refusal(PLAIN, len(PLAIN) - 1) == f"{len(PLAIN)} bytes; at most {len(PLAIN) - 1} are accepted"
    assert unpacked(b"BZh9 is how a title may begin", LIMIT).startswith(b"BZh9")  # not bzip2


@given(st.sampled_from(sorted(COMPRESS)), st.data())
def test_any_damage_is_refused_or_leaves_as_many_bytes_as_allowed(name: str, data: st.DataObject) -> None:
    content = bytearray(COMPRESS[name](PLAIN[: data.draw(st.integers(0, 3_000))]))
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InvalidStructure):
        assert len(unpacked(bytes(content), 10_000)) <= 10_000
