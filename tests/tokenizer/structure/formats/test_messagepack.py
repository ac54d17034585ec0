"""In a process where msgpack_numpy has replaced msgpack's functions, as on import of ESM's `ProteinChain`."""

import os
import pickle
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgpack
import numpy as np
import pytest

from foldmint_bulk.processes import packed, unpacked
from foldmint_tokenizer import InvalidStructure, Limits
from foldmint_tokenizer.structure.formats.binary_cif import read_binary_cif
from helpers.files.binary_cif_data import file, integers
from helpers.reference import reference_packages

MESSAGE = {"atoms": np.arange(4), "start": 0}
PACKED = packed(MESSAGE)


@pytest.fixture
def patched() -> Iterator[None]:
    with reference_packages():
        import msgpack_numpy

        msgpack_numpy.patch()
        yield


class Folder:
    """What makes a folder once it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self._path,)


@pytest.mark.usefixtures("patched")
def test_nothing_in_a_file_is_unpickled(tmp_path: Path) -> None:
    made = tmp_path / "made"
    pickled = {"nd": True, "kind": b"O", "type": "O", "shape": [1], "data": pickle.dumps(Folder(made))}
    data = integers(1)
    content = file(1, c={**data, "encoding": [pickled, *data["encoding"]]})
    with suppress(AttributeError):  # no array
        msgpack.unpackb(content, raw=True)
    made.rmdir()  # so the replaced functions do unpickle

    with pytest.raises(InvalidStructure, match="unknown encoding O"):
        read_binary_cif(content, Limits())[0].integers("atom_site", "c")
    assert not made.exists()


@pytest.mark.usefixtures("patched")
def test_messages_to_processes_are_the_same() -> None:
    assert msgpack.packb(MESSAGE) != PACKED  # the replaced function takes arrays
    assert packed(MESSAGE) == PACKED
    np.testing.assert_array_equal(unpacked(PACKED)["atoms"], MESSAGE["atoms"])


def test_tests_leave_msgpack_as_it_was() -> None:
    with reference_packages():
        from esm.utils.structure.protein_chain import ProteinChain

        assert ProteinChain.__name__ == "ProteinChain"
    with pytest.raises(TypeError, match="can not serialize"):
        msgpack.packb(MESSAGE)
