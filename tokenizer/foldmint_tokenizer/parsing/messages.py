"""What a process and the child that reads structures for it exchange over a socket.

A message is a header, as msgpack, and arrays, as bytes, preceded by the lengths of both. The header lists the arrays'
types and shapes.
"""

import math
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import msgpack
import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.errors import InvalidStructure, ParserKilled
from foldmint_tokenizer.frames import Frames
from foldmint_tokenizer.neighborhoods import Geometry
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.structure.left_out import LeftOut, LeftOutKind, StructureContent
from foldmint_tokenizer.structure.options import Limits, ReadOptions

_LENGTHS = struct.Struct("<QQ")


class Parsed(NamedTuple):
    """A structure, and the encoder's input for it."""

    content: StructureContent
    geometry: Geometry


class Message(NamedTuple):
    """A message. fields: of what msgpack holds. arrays: of numbers; received ones are views of one buffer."""

    fields: Mapping[str, Any]
    arrays: Sequence[NDArray[Any]] = ()


def send(connection: socket.socket, message: Message) -> None:
    """Send a message. Raises OSError if the other side is gone, or takes nothing for the socket's timeout."""
    arrays = [np.ascontiguousarray(array) for array in message.arrays]
    header = msgpack.packb([message.fields, [[array.dtype.str, array.shape] for array in arrays]])
    connection.sendall(_LENGTHS.pack(len(header), sum(array.nbytes for array in arrays)) + header)
    for array in arrays:
        if array.nbytes:
            connection.sendall(array.data.cast("B"))


def receive(connection: socket.socket) -> Message:
    """The next message.

    Raises EOFError if the other side has closed the connection, OSError if it is gone, or sends nothing for the
    socket's timeout.
    """
    header_bytes, array_bytes = _LENGTHS.unpack(_exactly(connection, _LENGTHS.size))
    fields, described = msgpack.unpackb(_exactly(connection, header_bytes))
    body, start = _exactly(connection, array_bytes), 0
    arrays = []
    for dtype, shape in described:
        array = np.frombuffer(body, dtype, math.prod(shape), start).reshape(shape)
        start += array.nbytes
        arrays.append(array)
    return Message(fields, arrays)


def _exactly(connection: socket.socket, size: int) -> memoryview:
    data = memoryview(bytearray(size))
    filled = 0
    while filled < size:
        count = connection.recv_into(data[filled:])
        if count == 0:
            raise EOFError("the connection was closed")
        filled += count
    return data


def request_message(content: bytes, options: ReadOptions, *, complex_: bool) -> Message:
    """The request to read a file."""
    fields = {"options": {**asdict(options), "chains": list(options.chains)}, "complex": complex_}
    return Message(fields, [np.frombuffer(content, np.uint8)])


def requested(message: Message) -> tuple[bytes, ReadOptions, bool]:
    """The file of a request, the options to read it with, and whether its chains are one complex."""
    options = {**message.fields["options"]}
    options["limits"] = Limits(**options["limits"])
    return message.arrays[0].tobytes(), ReadOptions(**options), message.fields["complex"]


def parsed_message(parsed: Parsed) -> Message:
    """The answer with a structure."""
    content, geometry = parsed
    fields = {
        "chains": [[one.chain, one.sequence, one.insertion_codes] for one in content.chains],
        "left_out": [[one.kind.value, one.chain, one.residues, one.names] for one in content.left_out],
        "warnings": content.warnings,
    }
    arrays = [array for one in content.chains for array in (one.residue_index, one.coordinates)]
    return Message(fields, [*arrays, *geometry.frames, *geometry[1:]])


def error_message(error: Exception) -> Message:
    """The answer with an error: one in the structure, or any other."""
    if isinstance(error, InvalidStructure):
        return Message({"invalid": [error.field, error.reason, error.chain, error.residue]})
    if isinstance(error, MemoryError):
        return Message({"memory": True})
    return Message({"error": f"{type(error).__name__}: {error}"})


def parsed_of(message: Message) -> Parsed:
    """The structure of an answer.

    Raises the answer's error: InvalidStructure, ParserKilled for too little memory, RuntimeError for an unexpected one.
    """
    fields, arrays = message
    if "invalid" in fields:
        field, reason, chain, residue = fields["invalid"]
        raise InvalidStructure(field, reason, chain=chain, residue=residue)
    if "memory" in fields:
        raise ParserKilled("reading it needs more memory than is allowed", limit=True)
    if "error" in fields:
        raise RuntimeError(fields["error"])
    chains = [
        Backbone(name, sequence, arrays[2 * place], arrays[2 * place + 1], insertion_codes)
        for place, (name, sequence, insertion_codes) in enumerate(fields["chains"])
    ]
    rotation, origin, exists, *others = arrays[2 * len(chains) :]
    left_out = [
        LeftOut(LeftOutKind(kind), chain, count, tuple(names)) for kind, chain, count, names in fields["left_out"]
    ]
    content = StructureContent(chains, tuple(left_out), tuple(fields["warnings"]))
    return Parsed(content, Geometry(Frames(rotation, origin, exists), *others))
