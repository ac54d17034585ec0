"""BinaryCIF: the columns of real files as biotite writes them, and malicious files."""

import gzip
import io
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gemmi
import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foldmint_tokenizer import InvalidStructure, Limits
from foldmint_tokenizer.structure.atom_table import MISSING
from foldmint_tokenizer.structure.formats.binary_cif import read_binary_cif
from foldmint_tokenizer.structure.reader import read_structure
from helpers.files.binary_cif_data import byte_array, encoded, file, integers, texts
from helpers.reference import reference_packages

FILES = ["1a8o.cif", "1gbt.cif.gz", "1lcd.cif.gz", "2beg.cif.gz", "4cup.cif.gz"]


@pytest.fixture(scope="module")
def pdbx() -> Any:
    """Biotite's own reader and writer of CIF, from the reference's folder."""
    with reference_packages():
        from biotite.structure.io import pdbx
    return pdbx


def as_binary(pdbx: Any, content: bytes) -> bytes:
    """An mmCIF file as BinaryCIF, each column by the encodings that biotite finds best."""

    def column(source: Any) -> Any:
        array, mask = source.data.array, None if source.mask is None else source.mask.array
        for kind, empty in ((int, "0"), (float, "0"), (str, "")):
            with suppress(ValueError):
                values = (array if mask is None else np.where(mask == 0, array, empty)).astype(kind)
                break
        data = pdbx.BinaryCIFData(values)
        return pdbx.BinaryCIFColumn(data, None if mask is None else pdbx.BinaryCIFData(mask))

    file = pdbx.BinaryCIFFile()
    for name, block in pdbx.CIFFile.read(io.StringIO(content.decode())).items():
        file[name] = pdbx.BinaryCIFBlock(
            {
                category: pdbx.BinaryCIFCategory({item: column(source) for item, source in items.items()})
                for category, items in block.items()
            }
        )
    stream = io.BytesIO()
    pdbx.compress(file).write(stream)
    return stream.getvalue()


@pytest.mark.parametrize("name", FILES)
def test_every_column_of_real_files(pdbx: Any, data: Path, name: str) -> None:
    content = (data / name).read_bytes()
    content = gzip.decompress(content) if name.endswith(".gz") else content
    (block,) = read_binary_cif(as_binary(pdbx, content), Limits())
    expected = gemmi.cif.read_string(content)[0]
    assert block.name == expected.name
    compared = 0
    for category in expected.get_mmcif_category_names():
        table, name = expected.find_mmcif_category(category), category.strip("_.")
        assert block.rows(name) == len(table)
        for place, tag in enumerate(table.tags):
            short = np.array([len(gemmi.cif.as_string(raw).encode()) <= 100 for raw in table.column(place)])
            found = block.text(name, tag.partition(".")[2], np.flatnonzero(short))
            assert found is not None
            for text, raw in zip(found.tolist(), np.array(list(table.column(place)))[short].tolist(), strict=True):
                wanted = gemmi.cif.as_string(raw)
                assert text.decode() == wanted or float(text) == float(wanted)
                compared += 1
    assert compared > 10_000
    for item in ("Cartn_x", "B_iso_or_equiv"):
        wanted_floats = [gemmi.cif.as_number(raw) for raw in expected.find_values(f"_atom_site.{item}")]
        np.testing.assert_array_equal(block.floats("atom_site", item), wanted_floats)
    raw_numbers = list(expected.find_values("_atom_site.label_seq_id"))
    wanted_integers = [MISSING if gemmi.cif.is_null(raw) else gemmi.cif.as_int(raw) for raw in raw_numbers]
    np.testing.assert_array_equal(block.integers("ATOM_SITE", "Label_Seq_ID"), wanted_integers)
    assert block.text("atom_site", "no_such") is None
    assert block.floats("none", "x") is None
    assert block.integers("none", "x") is None
    assert block.rows("none") == 0


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_backbones_equal_those_of_mmcif(pdbx: Any, data: Path, name: str, compress: Callable[[bytes], bytes]) -> None:
    content = (data / name).read_bytes()
    content = gzip.decompress(content) if name.endswith(".gz") else content
    found, expected = read_structure(compress(as_binary(pdbx, content))), read_structure(content)
    assert found.left_out == expected.left_out
    for one, other in zip(found.chains, expected.chains, strict=True):
        assert (one.chain, one.sequence, one.insertion_codes) == (other.chain, other.sequence, other.insertion_codes)
        np.testing.assert_array_equal(one.residue_index, other.residue_index)
        np.testing.assert_array_equal(one.coordinates, other.coordinates)


LIMITS = Limits(unpacked_bytes=4 * 2**20)
BOMBS: dict[str, bytes] = {
    "rows without end": file(2**40, c=integers()),
    "runs": file(10**6, c=encoded(integers(1, 10**6), kind="RunLength", srcSize=10**6)),
    "a mask in runs": file(1, c=integers(1), mask=encoded(integers(0, 2**31 - 1), kind="RunLength", srcSize=2**31 - 1)),
    "one long string and many short": file(
        100_000, c=texts("A" * 10_000, [0, *range(1, 1001), 10_000], *([0] * 100_000))
    ),
    "many short strings and a long one": file(1, c=texts("A" * 100_000, [*range(90_000), 100_000], 0)),
    "nested lists": file(1, c=integers(1))[:-1] + b"\x91" * 1_000_000,
    "nested deep in a column": b"".join(
        [
            b"\x81\xaadataBlocks\x91\x82\xa6header\xa1x\xaacategories\x91\x83\xa4name\xaa_atom_site\xa8rowCount\x01",
            b"\xa7columns\x91\x82\xa4name\xa1c\xa4data" + b"\x91" * 900 + b"\x90",
        ]
    ),
    "a million maps in a column": file(1, c=[[[[[{}] * 16] * 16] * 16] * 16] * 4),
    "a list that says it is long": b"\x81\xaadataBlocks\xdd\xff\xff\xff\xff",
    "a map that says it is long": b"\xdf\xff\xff\xff\xff",
    "a million categories": msgpack.packb({"dataBlocks": [{"header": "x", "categories": [{}] * 10**6}]}),
    "a million columns": msgpack.packb(
        {
            "dataBlocks": [
                {"header": "x", "categories": [{"name": "_atom_site", "rowCount": 1, "columns": [{}] * 10**6}]}
            ]
        }
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_time_and_memory(name: str) -> None:
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(InvalidStructure):
            read_binary_cif(BOMBS[name], LIMITS)[0].text("atom_site", "c")
        assert tracemalloc.get_traced_memory()[1] < 8 * LIMITS.unpacked_bytes
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 5


def test_files_that_are_none() -> None:
    for content, reason in (
        (b"\x80", "no data block"),
        (file(1, c=integers(1)) + b"x", "followed by other data"),
        (file(1, c=integers(1))[:-3], "truncated"),
        (b"\xc1", "damaged"),
        (b"data_x", "damaged"),
        (b"", "truncated"),
    ):
        with pytest.raises(InvalidStructure, match=reason):
            read_binary_cif(content, Limits())
    twice = {"name": "_a", "rowCount": 0, "columns": []}
    with pytest.raises(InvalidStructure, match="category a occurs twice"):
        read_binary_cif(msgpack.packb({"dataBlocks": [{"header": "x", "categories": [twice, twice]}]}), Limits())


EXAMPLE = file(
    4,
    mask=byte_array(np.zeros(4, "u1"), 4),
    text=texts("CANβ", [0, 2, 3, 4], 0, 1, 2, 0),
    runs=encoded(encoded(integers(1, 4), kind="RunLength", srcSize=4), kind="Delta", origin=1),
    fixed=encoded(integers(1, 2, 3, 4), kind="FixedPoint", factor=10),
    packed=encoded(
        byte_array(np.array([127, 1, 2, 3, 4], "i1"), 1),
        kind="IntegerPacking",
        byteCount=1,
        isUnsigned=False,
        srcSize=4,
    ),
)


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=500)
@given(st.data())
def test_any_damage_is_refused_or_read(data: st.DataObject) -> None:
    content = bytearray(EXAMPLE)
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InvalidStructure):
        blocks = read_binary_cif(bytes(content), LIMITS)
        for block in blocks:
            for name in ("text", "runs", "fixed", "packed"):
                for method in (block.text, block.floats, block.integers):
                    with suppress(InvalidStructure):
                        found = method("atom_site", name)
                        assert found is None or found.shape == (block.rows("atom_site"),)


def test_columns_are_read_in_linear_time() -> None:
    """Two million rows: runs, strings and packed numbers; each as fast as NumPy is."""
    rows = 2_000_000
    packed = byte_array(np.tile(np.array([127, 5, 3], "i1"), rows // 2), 1)
    content = file(
        rows,
        runs=encoded(integers(7, rows), kind="RunLength", srcSize=rows),
        packed=encoded(packed, kind="IntegerPacking", byteCount=1, isUnsigned=False, srcSize=rows),
        text=texts("ALAGLY", [0, 3, 6], *([0, 1] * (rows // 2))),
    )
    start = time.process_time()
    (block,) = read_binary_cif(content, Limits())
    assert block.integers("atom_site", "runs") is not None
    found = block.integers("atom_site", "packed")
    names = block.text("atom_site", "text")
    assert time.process_time() - start < 5
    assert found is not None
    assert found[:4].tolist() == [132, 3, 132, 3]
    assert names is not None
    assert names[:2].tolist() == [b"ALA", b"GLY"]
