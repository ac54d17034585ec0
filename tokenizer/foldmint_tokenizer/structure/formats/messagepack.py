"""MessagePack by msgpack's own classes, also in a process where another package has replaced `msgpack.Unpacker`.

`msgpack_numpy.patch()` does, and ESM calls it when its `ProteinChain` is imported: arrays then get another form, which
a child process without the patch does not read, and `pickle` reads part of what a file contains.
"""

from typing import Any

from msgpack import ExtType, OutOfData

try:
    from msgpack._cmsgpack import Packer, Unpacker, unpackb
except ImportError:  # no compiled part for this Python
    from msgpack.fallback import Packer, Unpacker, unpackb

__all__ = ["ExtType", "OutOfData", "Packer", "Unpacker", "packb", "unpackb"]


def packb(message: object, **options: Any) -> bytes:  # noqa: ANN401 (msgpack's own)
    """A message as bytes. options: of `msgpack.Packer`."""
    content: bytes = Packer(**options).pack(message)
    return content
