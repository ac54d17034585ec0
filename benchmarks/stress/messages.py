"""Randomly generated and mutated messages: requests with values at their limits, and corrupted encodings.

The same number gives the same message.
"""

import random
from collections.abc import Callable

import numpy as np

from benchmarks.stress.files import (
    MOST_BYTES,
    chance_of,
    delete,
    file,
    file_seeds,
    flip,
    insert,
    place_in,
    repeat,
    truncate,
)
from foldmint.v1 import tokenizer_pb2 as pb

_SIZES = (0, 1, 2, 35, 36, 127, 128, 16_383, 2**21, 2**31 - 1, 2**31, 2**32, 2**63, 2**64 - 1)
_NAMES = ("A", "", "B" * 99, "C" * 101, "D" * 50_000, "ä", "\x00", "\x1b[2J", "\u202eA", "\U0001f9ec", "a b", "\n")
_LETTERS = (65, 0x7F, 0x300, 0xD7FF, 0xE000, 0x10FFFF)
_VERSIONS = ("", "", "", "", "", "", "", "ACTIVE", "000001", "000009")
_FAR = (np.nan, np.inf, -np.inf, 1e6, 1.1e6, -1e6, 3e38, 1e-45, 0)


def message(number: int, seed: int = 0) -> tuple[str, bytes]:
    """The message of this number: name of the method, and what is sent for its request."""
    chance = chance_of("message", number, seed)
    method = chance.choice(("Tokenize", "Tokenize", "TokenizeStream", "Detokenize"))
    if method == "Detokenize":
        content = _detokenize(chance).SerializeToString()
    elif method == "Tokenize":
        content = _tokenize(chance, number, seed).SerializeToString()
    else:
        one = pb.TokenizeStreamRequest(id=chance.choice(_SIZES[:-1]), request=_tokenize(chance, number, seed))
        content = one.SerializeToString()
    if chance.random() < 0.35:
        for _ in range(chance.choice((1, 1, 2, 4, 8))):
            content = chance.choice(_WIRE_CHANGES)(content, chance)[:MOST_BYTES]
    return method, content


def _text(chance: random.Random) -> str:
    """A name, as strangers give them."""
    if chance.random() < 0.8:
        return "A"
    return chance.choice(_NAMES) if chance.random() < 0.7 else chr(chance.choice(_LETTERS))


def _coordinates(chance: random.Random) -> bytes:
    residues = chance.choice((0, 1, 2, 3, 8, 8, 17, 17, 40))
    made = np.random.default_rng(chance.randrange(2**32))
    x = made.normal(size=(residues, 3, 3), scale=chance.choice((1e-40, 1e-3, 1, 10, 1e3, 1e5))).astype("<f4")
    x += (np.arange(residues) * chance.choice((0.0, 3.8))).astype("<f4")[:, None, None]
    flat = x.reshape(-1)
    for _ in range(chance.choice((0, 0, 0, 1, 5))):
        if len(flat):
            flat[chance.randrange(len(flat))] = chance.choice(_FAR)
    content = x.tobytes()
    return content[: place_in(content, chance)] if chance.random() < 0.1 else content


def _integers(count: int, chance: random.Random) -> list[int]:
    limits = (0, 1, -1, 2**31 - 1, -(2**31), 9999, -999)
    first, wild = chance.choice(limits[:3]), chance.random() < 0.3
    return [chance.choice(limits) if wild and chance.random() < 0.2 else first + place for place in range(count)]


def _tokenize(chance: random.Random, number: int, seed: int) -> pb.TokenizeRequest:
    request = pb.TokenizeRequest(codebook_version=chance.choice((*_VERSIONS, _text(chance)[:200])))
    options = request.options
    options.complex, options.special_tokens, options.distances = (chance.random() < 0.3 for _ in range(3))
    if chance.random() < 0.4:
        content = file(number, seed) if chance.random() < 0.8 else chance.choice(file_seeds())
        request.file.content = content
        request.file.format = chance.choice((0, 0, 0, 1, 2, 3, -1, 2**31 - 1))  # type: ignore[assignment]  # any number
        request.file.model_number = chance.choice((0, 0, 0, 1, 2, -1, 2**31 - 1))
        request.file.chains.extend(_text(chance) for _ in range(chance.choice((0, 0, 0, 1, 3))))
        return request
    for _ in range(chance.choice((0, 1, 1, 1, 1, 1, 2, 2, 5, 101))):
        coordinates = _coordinates(chance)
        residues = len(coordinates) // 36 + (chance.random() < 0.05)
        request.backbones.chains.add(
            chain=_text(chance),
            coordinates=coordinates,
            residue_index=_integers(residues, chance) if chance.random() < 0.5 else [],
            sequence=chance.choice(("X", "A", "\x00", "ä")) * residues if chance.random() < 0.3 else "",
        )
    return request


def _detokenize(chance: random.Random) -> pb.DetokenizeRequest:
    special = (4095, 4096, 4097, 4098, 4099, 4100, 4101, 2**32 - 1)
    sizes = [chance.choice((0, 1, 2, 5, 5, 20, 20)) for _ in range(chance.choice((0, 1, 1, 1, 1, 2, 3)))]
    tokens: list[int] = []
    for place, size in enumerate(sizes):
        tokens += [4100] if place else []
        tokens += [chance.choice(special) if chance.random() < 0.01 else chance.randrange(4096) for _ in range(size)]
    request = pb.DetokenizeRequest(tokens=tokens, model=chance.choice(("", "", "foldmint", _text(chance))))
    for size in sizes if chance.random() < 0.5 else []:
        request.chains.add(
            chain=_text(chance),
            sequence="A" * size if chance.random() < 0.8 else _text(chance),
            residue_index=_integers(size, chance) if chance.random() < 0.5 else [],
            insertion_codes=chance.choice((" ", "A", "\x00", "ä")) * size if chance.random() < 0.3 else "",
        )
    request.options.format = chance.choice((0, 1, 2, 3))  # type: ignore[assignment]
    request.options.pae, request.options.omit_coordinates = chance.random() < 0.3, chance.random() < 0.3
    return request


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _wire_field(content: bytes, chance: random.Random) -> bytes:
    """A field put in anywhere: any number and wire type, lengths that lie, groups without end."""
    tag = _varint(chance.choice((0, 1, 2, 3, 4, 5, 15, 16, 2**29 - 1)) << 3 | chance.randrange(8))
    body = chance.choice(
        (_varint(chance.choice(_SIZES)), b"\xff" * 11, chance.randbytes(8), b"", b"\x80" * 9 + b"\x01")
    )
    place = place_in(content, chance)
    return content[:place] + tag * chance.choice((1, 1, 1, 200)) + body + content[place:]


def _wire_nested(content: bytes, chance: random.Random) -> bytes:
    """The whole as a field of a field of a field."""
    for _ in range(chance.choice((1, 3, 120))):
        content = _varint(chance.choice((1, 2, 3)) << 3 | 2) + _varint(len(content)) + content
    return content


_WIRE_CHANGES: list[Callable[[bytes, random.Random], bytes]] = [
    *(flip, flip, flip, delete, truncate, repeat, insert, _wire_field, _wire_field, _wire_nested)
]
