"""BinaryCIF files and columns for tests, encoded by hand."""

from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer import Limits
from foldmint_tokenizer.structure.formats.binary_cif import read_binary_cif
from foldmint_tokenizer.structure.formats.cif_block import CifBlock


def byte_array(values: NDArray[Any], kind: int) -> dict[str, Any]:
    """Data of one ByteArray."""
    return {"data": values.tobytes(), "encoding": [{"kind": "ByteArray", "type": kind}]}


def integers(*values: int) -> dict[str, Any]:
    """Data of 32-bit integers."""
    return byte_array(np.array(values, "<i4"), 3)


def floats(*values: float) -> dict[str, Any]:
    """Data of 64-bit floats."""
    return byte_array(np.array(values, "<f8"), 33)


def encoded(data: dict[str, Any], **encoding: object) -> dict[str, Any]:
    """Data with one more encoding."""
    return {**data, "encoding": [encoding, *data["encoding"]]}


def texts(strings: str, offsets: list[int], *places: int) -> dict[str, Any]:
    """Data of a StringArray."""
    inner, outer = integers(*offsets), integers(*places)
    encoding = {
        "kind": "StringArray",
        "dataEncoding": outer["encoding"],
        "stringData": strings,
        "offsetEncoding": inner["encoding"],
        "offsets": inner["data"],
    }
    return {"data": outer["data"], "encoding": [encoding]}


def file(rows: int, mask: Any = None, **columns: Any) -> bytes:
    """A file with one category of these columns."""
    listed = [{"name": name, "data": data, "mask": mask} for name, data in columns.items()]
    category = {"name": "_atom_site", "rowCount": rows, "columns": listed}
    blocks = [{"header": "x", "categories": [category]}]
    packed: bytes = msgpack.packb({"version": "0.3.0", "encoder": "test", "dataBlocks": blocks})
    return packed


def read(rows: int, data: Any, mask: Any = None) -> CifBlock:
    """The data block of a file with one column, `c`."""
    (block,) = read_binary_cif(file(rows, mask, c=data), Limits())
    return block


def column(rows: int, data: Any, mask: Any = None) -> list[float]:
    """The values of that column as floats."""
    found = read(rows, data, mask).floats("atom_site", "c")
    assert found is not None
    return [float(value) for value in found]
