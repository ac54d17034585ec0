"""Decodes BinaryCIF columns: each encoding of the specification, on whole arrays."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Encoded = Mapping[bytes, Any]
"""An encoding, or data with its encodings, as read from MessagePack: keys are bytes."""

Values = NDArray[np.integer[Any]] | NDArray[np.floating[Any]]

LONGEST = 100
"""Maximum bytes of a text. Of longer ones, one more byte is kept, so that they can be detected."""

_ENCODINGS = 16  # successive encodings
_TYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("u1"),
    5: np.dtype("<u2"),
    6: np.dtype("<u4"),
    32: np.dtype("<f4"),
    33: np.dtype("<f8"),
}
_INT32 = np.iinfo(np.int32)
_UINT32 = np.iinfo(np.uint32)


class Damaged(ValueError):
    """Data that cannot be decoded, with the reason."""


class Text(NamedTuple):
    """A column of texts.

    strings: (strings + 1,), UTF-8, the last one empty. places: (rows,), indices into strings; -1 is the empty one.
    """

    strings: NDArray[np.bytes_]
    places: NDArray[np.int64]


class Bounds(NamedTuple):
    """Limits of a column. values: length of any array in its decoding; size: bytes of its strings, as an array."""

    values: int
    size: int


def decoded(data: Encoded, bounds: Bounds) -> Values | Text:
    """The values of a column or mask. data: with keys `data` and `encoding`. Raises Damaged."""
    encodings = _encodings(data, b"encoding")
    if encodings and encodings[-1].get(b"kind") == b"StringArray":
        if len(encodings) > 1:
            raise Damaged("StringArray and another encoding")
        return _texts(data.get(b"data"), encodings[0], bounds)
    return _values(data.get(b"data"), encodings, bounds)


def _encodings(data: Encoded, key: bytes) -> Sequence[Encoded]:
    encodings = data.get(key)
    if not isinstance(encodings, list) or not all(isinstance(encoding, dict) for encoding in encodings):
        raise Damaged(f"{key.decode()} is not a list of encodings")
    if len(encodings) > _ENCODINGS:
        raise Damaged(f"{len(encodings)} encodings; at most {_ENCODINGS} are accepted")
    return encodings


def _values(data: object, encodings: Sequence[Encoded], bounds: Bounds) -> Values:
    if not isinstance(data, bytes):
        raise Damaged("the data is not binary")
    if not encodings or encodings[-1].get(b"kind") != b"ByteArray":
        raise Damaged("the last encoding is not ByteArray")
    values = _byte_array(data, encodings[-1])
    for encoding in reversed(encodings[:-1]):
        kind = encoding.get(b"kind")
        decode = _DECODE.get(kind) if isinstance(kind, bytes) else None
        if decode is None:
            name = kind[:40].decode("utf-8", "replace") if isinstance(kind, bytes) else kind
            raise Damaged(f"unknown encoding {str(name)[:40]}")
        values = decode(values, encoding, bounds)
    return values


def _byte_array(data: bytes, encoding: Encoded) -> Values:
    dtype = _TYPES.get(_integer(encoding, b"type"))
    if dtype is None:
        raise Damaged(f"unknown type {encoding[b'type']} of ByteArray")
    if len(data) % dtype.itemsize:
        raise Damaged(f"{len(data)} bytes are not a whole number of values")
    values: Values = np.frombuffer(data, dtype)
    return values


def _fixed_point(values: Values, encoding: Encoded, bounds: Bounds) -> Values:  # noqa: ARG001
    factor = _number(encoding, b"factor")
    if factor == 0:
        raise Damaged("the factor of FixedPoint is 0")
    return _integers(values) / factor


def _interval_quantization(values: Values, encoding: Encoded, bounds: Bounds) -> Values:  # noqa: ARG001
    first, last, steps = _number(encoding, b"min"), _number(encoding, b"max"), _integer(encoding, b"numSteps")
    if steps < 2:
        raise Damaged("IntervalQuantization has fewer than two steps")
    return first + _integers(values) * ((last - first) / (steps - 1))


def _run_length(values: Values, encoding: Encoded, bounds: Bounds) -> Values:
    values, size = _integers(values), _size(encoding, bounds)
    if len(values) % 2:
        raise Damaged("RunLength has a value without a count")
    runs, counts = values[::2], values[1::2].astype(np.int64)
    if len(counts) and counts.min() < 0:
        raise Damaged("RunLength has a negative count")
    if int(counts.sum()) != size:
        raise Damaged(f"the counts of RunLength add up to {counts.sum()}, not {size}")
    return np.repeat(runs, counts)


def _delta(values: Values, encoding: Encoded, bounds: Bounds) -> Values:  # noqa: ARG001
    origin = _integer(encoding, b"origin")
    if not _INT32.min <= origin <= _INT32.max:
        raise Damaged("the origin of Delta is beyond 32 bits")
    return _within_32_bits(origin + np.cumsum(_integers(values), dtype=np.int64))


def _integer_packing(values: Values, encoding: Encoded, bounds: Bounds) -> Values:
    values, size = _integers(values), _size(encoding, bounds)
    width, unsigned = _integer(encoding, b"byteCount"), bool(encoding.get(b"isUnsigned"))
    if values.dtype != np.dtype(f"<{'u' if unsigned else 'i'}{width}" if width in (1, 2) else "V1"):
        raise Damaged(f"IntegerPacking of {width} bytes, {'un' if unsigned else ''}signed, over {values.dtype}")
    extremes = np.iinfo(values.dtype)
    goes_on = values == extremes.max
    if not unsigned:
        goes_on |= values == extremes.min
    if len(values) and goes_on[-1]:
        raise Damaged("IntegerPacking ends within a value")
    if np.count_nonzero(goes_on) + size != len(values):
        raise Damaged(f"IntegerPacking has {len(values) - np.count_nonzero(goes_on)} values, not {size}")
    if size == len(values):
        return values
    starts = np.concatenate([[0], np.flatnonzero(~goes_on)[:-1] + 1])
    return _within_32_bits(np.add.reduceat(values, starts, dtype=np.int64))


_DECODE: dict[bytes, Callable[[Values, Encoded, Bounds], Values]] = {
    b"FixedPoint": _fixed_point,
    b"IntervalQuantization": _interval_quantization,
    b"RunLength": _run_length,
    b"Delta": _delta,
    b"IntegerPacking": _integer_packing,
}


def _texts(data: object, encoding: Encoded, bounds: Bounds) -> Text:
    """A column of StringArray: indices into concatenated strings."""
    places = _integers(_values(data, _encodings(encoding, b"dataEncoding"), bounds)).astype(np.int64)
    offsets = _integers(_values(encoding.get(b"offsets"), _encodings(encoding, b"offsetEncoding"), bounds))
    stored = encoding.get(b"stringData")
    if not isinstance(stored, bytes):
        raise Damaged("stringData is not text")
    try:
        stored.decode()
    except UnicodeDecodeError as error:
        raise Damaged(f"stringData is not UTF-8: {error}") from error
    strings = _strings(stored, offsets.astype(np.int64), bounds)
    if len(places) and (places.min() < -1 or places.max() >= len(strings) - 1):
        raise Damaged("an index of StringArray is out of range")
    return Text(strings, places)


def _strings(stored: bytes, offsets: NDArray[np.int64], bounds: Bounds) -> NDArray[np.bytes_]:
    """The strings between offsets, and an empty one."""
    units = _unit_offsets(stored)
    length = len(stored) if units is None else len(units) - 1
    if len(offsets) and (offsets[0] < 0 or offsets[-1] > length or (np.diff(offsets) < 0).any()):
        raise Damaged("an offset of StringArray is out of range")
    if units is not None:
        offsets = units[offsets]
    if len(offsets) < 2:
        return np.zeros(1, "S1")
    lengths = np.append(np.diff(offsets), 0)
    width = min(max(int(lengths.max()), 1), LONGEST + 1)
    if len(lengths) * width > bounds.size:
        raise Damaged(f"{len(lengths) - 1} strings of up to {width} bytes; at most {bounds.size} bytes are accepted")
    letters = np.zeros((len(lengths), width), np.uint8)
    joined = np.frombuffer(stored, np.uint8)[offsets[0] : offsets[-1]]
    if (lengths > width).any():
        joined = joined[_leading_bytes(offsets - offsets[0], width)]
    letters[np.arange(width) < lengths[:, None]] = joined
    return letters.view(f"S{width}")[:, 0]


def _leading_bytes(offsets: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """Which bytes of concatenated strings, (bytes,), are among the first `width` of their string."""
    long = np.diff(offsets) > width
    changes = np.zeros(offsets[-1] + 1, np.int8)
    changes[0] = 1
    changes[offsets[:-1][long] + width] -= 1
    changes[offsets[1:][long]] += 1
    return np.cumsum(changes[:-1], dtype=np.int8).astype(np.bool_)


def _unit_offsets(stored: bytes) -> NDArray[np.int64] | None:
    """Where each UTF-16 unit, which offsets count, begins in UTF-8, and the end; None if all are single bytes."""
    if stored.isascii():
        return None
    data = np.frombuffer(stored, np.uint8)
    begins = np.flatnonzero((data & 0xC0) != 0x80)
    units = np.repeat(begins, np.where(data[begins] >= 0xF0, 2, 1))
    return np.append(units, len(stored))


def _integers(values: Values) -> NDArray[np.integer[Any]]:
    if not np.issubdtype(values.dtype, np.integer):
        raise Damaged("an encoding of integers is applied to floats")
    return values  # type: ignore[return-value]  # mypy does not follow issubdtype


def _within_32_bits(values: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(values) and (values.min() < _INT32.min or values.max() > _UINT32.max):
        raise Damaged("a value is beyond 32 bits")
    return values


def _size(encoding: Encoded, bounds: Bounds) -> int:
    size = _integer(encoding, b"srcSize")
    if not 0 <= size <= bounds.values:
        raise Damaged(f"srcSize is {size}; at most {bounds.values} values are accepted")
    return size


def _integer(encoding: Encoded, key: bytes) -> int:
    value = _number(encoding, key)
    if value != int(value):
        raise Damaged(f"{key.decode()} is not an integer")
    return int(value)


def _number(encoding: Encoded, key: bytes) -> float:
    value = encoding.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(float(value)):
        raise Damaged(f"{key.decode()} is not a number")
    return value
