"""What a process and the child that reads structures for it exchange over a socket.

A message is a header, as msgpack, and arrays, as bytes, preceded by the lengths of both. The header lists the arrays'
types and shapes.
"""

import math
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.errors import InvalidStructure, ParserKilled
from foldmint_tokenizer.frames import Frames
from foldmint_tokenizer.neighborhoods import Geometry
from foldmint_tokenizer.structure.backbone import Backbone
from foldmint_tokenizer.structure.formats import messagepack
from foldmint_tokenizer.structure.left_out import LeftOut, LeftOutKind, StructureContent
from foldmint_tokenizer.structure.options import Limits, ReadOptions

_LENGTHS = struct.Struct("<QQ")
_JOINED = 2**20  # bytes of a message up to which it is sent at once: each time, the other side wakes up


class Parsed(NamedTuple):
    """A structure, and the encoder's input for it."""

    content: StructureContent
    geometry: Geometry


class Request(NamedTuple):
    """What is to be read. structure: a file, or backbones. name: of the file. complex: whether its chains are one."""

    structure: bytes | Sequence[Backbone]
    options: ReadOptions = ReadOptions()
    name: str = ""
    complex: bool = False


class Message(NamedTuple):
    """A message. fields: of what msgpack holds. arrays: of numbers; received ones are views of one buffer."""

    fields: Mapping[str, Any]
    arrays: Sequence[NDArray[Any]] = ()


READY = Message({"ready": True})
"""A child's first message."""


def send(connection: socket.socket, message: Message) -> None:
    """Send a message. Raises OSError if the other side is gone, or takes nothing for the socket's timeout."""
    arrays = [np.ascontiguousarray(array) for array in message.arrays]
    header = messagepack.packb([message.fields, [[array.dtype.str, array.shape] for array in arrays]])
    size = sum(array.nbytes for array in arrays)
    contents = (array.data.cast("B") for array in arrays if array.nbytes)
    parts: list[bytes | memoryview] = [_LENGTHS.pack(len(header), size), header, *contents]
    for part in [b"".join(parts)] if size <= _JOINED else parts:
        connection.sendall(part)


def receive(connection: socket.socket) -> Message:
    """The next message.

    Raises EOFError if the other side has closed the connection, OSError if it is gone, or sends nothing for the
    socket's timeout.
    """
    header_bytes, array_bytes = _LENGTHS.unpack(_exactly(connection, _LENGTHS.size))
    content = _exactly(connection, header_bytes + array_bytes)
    fields, described = messagepack.unpackb(content[:header_bytes])
    body, start = content[header_bytes:], 0
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


def request_message(request: Request) -> Message:
    """A request."""
    own = request.options
    options = {**vars(own), "chains": list(own.chains), "limits": vars(own.limits)}
    fields = {"options": options, "name": request.name, "complex": request.complex}
    if isinstance(request.structure, bytes):
        return Message(fields, [np.frombuffer(request.structure, np.uint8)])
    return Message({**fields, "chains": _names(request.structure)}, _arrays(request.structure))


def requested(message: Message) -> Request:
    """The request of a message. Raises InvalidStructure for backbones that are invalid."""
    fields, arrays = message
    options = {**fields["options"]}
    options["limits"] = Limits(**options["limits"])
    structure = _backbones(fields["chains"], arrays) if "chains" in fields else arrays[0].tobytes()
    return Request(structure, ReadOptions(**options), fields["name"], fields["complex"])


def parsed_message(parsed: Parsed) -> Message:
    """The answer with a structure."""
    content, geometry = parsed
    fields = {
        "chains": _names(content.chains),
        "left_out": [[one.kind.value, one.chain, one.residues, one.names] for one in content.left_out],
        "warnings": content.warnings,
    }
    return Message(fields, [*_arrays(content.chains), *geometry.frames, *geometry[1:]])


def _names(chains: Sequence[Backbone]) -> list[list[str]]:
    return [[one.chain, one.sequence, one.insertion_codes] for one in chains]


def _arrays(chains: Sequence[Backbone]) -> list[NDArray[Any]]:
    return [array for one in chains for array in (one.residue_index, one.coordinates)]


def _backbones(names: Sequence[Sequence[str]], arrays: Sequence[NDArray[Any]]) -> list[Backbone]:
    """The chains of `_names` and `_arrays`, which may be followed by other arrays."""
    return [
        Backbone(name, sequence, arrays[2 * place], arrays[2 * place + 1], insertion_codes)
        for place, (name, sequence, insertion_codes) in enumerate(names)
    ]


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
    chains = _backbones(fields["chains"], arrays)
    rotation, origin, exists, *others = arrays[2 * len(chains) :]
    left_out = [
        LeftOut(LeftOutKind(kind), chain, count, tuple(names)) for kind, chain, count, names in fields["left_out"]
    ]
    content = StructureContent(chains, tuple(left_out), tuple(fields["warnings"]))
    return Parsed(content, Geometry(Frames(rotation, origin, exists), *others))
