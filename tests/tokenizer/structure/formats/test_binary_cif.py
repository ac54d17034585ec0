"""BinaryCIF: the columns of real files as biotite writes them, every encoding, and files made to do harm."""

import gzip
import io
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import gemmi
import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from foldmint_tokenizer import InvalidStructure, Limits
from foldmint_tokenizer.structure.atom_table import MISSING
from foldmint_tokenizer.structure.formats.binary_cif import read_binary_cif
from foldmint_tokenizer.structure.formats.cif_block import CifBlock
from foldmint_tokenizer.structure.reader import read_structure
from helpers.support import ROOT, missing

FILES = ["1a8o.cif", "1gbt.cif.gz", "1lcd.cif.gz", "2beg.cif.gz", "4cup.cif.gz"]


@pytest.fixture(scope="module")
def pdbx() -> Iterator[Any]:
    """Biotite's own reader and writer of CIF, from the reference's folder."""
    folder = ROOT / ".reference"
    if not (folder / "biotite").is_dir():
        missing("biotite, of the reference,", "`make reference` installs it")
    sys.path.append(str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from biotite.structure.io import pdbx

        yield pdbx
    sys.path.remove(str(folder))


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


# By hand: what a writer may write and biotite's does not.


def byte_array(values: NDArray[Any], kind: int) -> dict[str, Any]:
    return {"data": values.tobytes(), "encoding": [{"kind": "ByteArray", "type": kind}]}


def integers(*values: int) -> dict[str, Any]:
    return byte_array(np.array(values, "<i4"), 3)


def floats(*values: float) -> dict[str, Any]:
    return byte_array(np.array(values, "<f8"), 33)


def encoded(data: dict[str, Any], **encoding: object) -> dict[str, Any]:
    return {**data, "encoding": [encoding, *data["encoding"]]}


def texts(strings: str, offsets: list[int], *places: int) -> dict[str, Any]:
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
    listed = [{"name": name, "data": data, "mask": mask} for name, data in columns.items()]
    category = {"name": "_atom_site", "rowCount": rows, "columns": listed}
    blocks = [{"header": "x", "categories": [category]}]
    packed: bytes = msgpack.packb({"version": "0.3.0", "encoder": "test", "dataBlocks": blocks})
    return packed


def read(rows: int, data: Any, mask: Any = None) -> CifBlock:
    (block,) = read_binary_cif(file(rows, mask, c=data), Limits())
    return block


def column(rows: int, data: Any, mask: Any = None) -> list[float]:
    found = read(rows, data, mask).floats("atom_site", "c")
    assert found is not None
    return [float(value) for value in found]


@pytest.mark.parametrize(
    ("kind", "dtype"), [(1, "i1"), (2, "<i2"), (3, "<i4"), (4, "u1"), (5, "<u2"), (6, "<u4"), (32, "<f4"), (33, "<f8")]
)
def test_arrays_of_each_type(kind: int, dtype: str) -> None:
    assert column(3, byte_array(np.array([0, 1, 100], dtype), kind)) == [0, 1, 100]


def test_each_encoding() -> None:
    assert column(2, encoded(integers(1234, -5), kind="FixedPoint", factor=1000, srcType=33)) == [1.234, -0.005]
    quantized = encoded(integers(0, 1, 4), kind="IntervalQuantization", min=-1, max=1, numSteps=5, srcType=33)
    assert column(3, quantized) == [-1, -0.5, 1]
    assert column(4, encoded(integers(7, 3, 8, 1), kind="RunLength", srcType=3, srcSize=4)) == [7, 7, 7, 8]
    assert column(0, encoded(integers(), kind="RunLength", srcType=3, srcSize=0)) == []
    assert column(3, encoded(integers(0, 2, -3), kind="Delta", origin=10, srcType=3)) == [10, 12, 9]
    signed = byte_array(np.array([127, 127, 3, -128, 0, -1], "i1"), 1)
    packing = {"kind": "IntegerPacking", "byteCount": 1, "isUnsigned": False}
    assert column(3, encoded(signed, **packing, srcSize=3)) == [257, -128, -1]
    unsigned = byte_array(np.array([65535, 0, 0, 9], "<u2"), 5)
    assert column(3, encoded(unsigned, kind="IntegerPacking", byteCount=2, isUnsigned=True, srcSize=3)) == [65535, 0, 9]
    chained = encoded(integers(1, 3), kind="RunLength", srcType=3, srcSize=3)
    assert column(3, encoded(chained, kind="Delta", origin=0, srcType=3)) == [1, 2, 3]


def test_strings_offsets_of_which_count_units_of_utf16() -> None:
    block = read(5, texts("Aβ𝛼é", [0, 1, 2, 4, 5, 5], 3, 1, 2, -1, 0))
    found = block.text("atom_site", "c")
    assert found is not None
    assert [text.decode() for text in found] == ["é", "β", "𝛼", "", "A"]


def test_texts_that_are_long_are_refused_if_they_are_asked_for() -> None:
    block = read(4, texts("A" * 100 + "B" * 500 + "CD", [0, 100, 600, 602], 0, 2, 1, 0))
    np.testing.assert_array_equal(block.text("atom_site", "c", np.array([1, 3, 0])), [b"CD", b"A" * 100, b"A" * 100])
    with pytest.raises(InvalidStructure, match="column c: a value has more than 100 bytes"):
        block.text("atom_site", "c")


def test_some_rows_of_numbers() -> None:
    mask = byte_array(np.array([0, 1, 2, 0], "u1"), 4)
    block = read(4, integers(5, 6, 7, 8), mask)
    rows = np.array([3, 1])
    np.testing.assert_array_equal(block.integers("atom_site", "c", rows), [8, MISSING])
    np.testing.assert_array_equal(block.floats("atom_site", "c", rows), [8, np.nan])
    words = read(4, texts("1two3", [0, 1, 4, 5], 0, 1, 2, 0))
    np.testing.assert_array_equal(words.integers("atom_site", "c", np.array([2, 3])), [3, 1])


def test_masks() -> None:
    mask = byte_array(np.array([0, 1, 2], "u1"), 4)
    block = read(3, integers(5, 6, 7), mask)
    assert block.integers("atom_site", "c") is not None
    np.testing.assert_array_equal(block.integers("atom_site", "c"), [5, MISSING, MISSING])
    np.testing.assert_array_equal(block.floats("atom_site", "c"), [5, np.nan, np.nan])
    np.testing.assert_array_equal(block.text("atom_site", "c"), [b"5", b"", b""])


def test_numbers_as_text_and_floats_as_integers() -> None:
    block = read(4, texts("12-3?1.50(4)", [0, 2, 4, 5, 12], 0, 1, 2, 0))
    np.testing.assert_array_equal(block.integers("atom_site", "c"), [12, -3, MISSING, 12])
    with_deviation = read(2, texts("12-3?1.50(4)", [0, 2, 4, 5, 12], 3, 2))
    np.testing.assert_array_equal(with_deviation.floats("atom_site", "c"), [1.5, np.nan])
    np.testing.assert_array_equal(read(2, floats(3.0, -1.0)).integers("atom_site", "c"), [3, -1])


def damage(**changes: Any) -> dict[str, Any]:
    return {**encoded(integers(1, 3), kind="RunLength", srcSize=3), **changes}


STRINGS = texts("AB", [0, 1, 2], 0, 1, 1)
REFUSED: dict[str, tuple[Any, str]] = {
    "too few values": (integers(1, 2), "2 values in 3 rows"),
    "no data": (None, "it has no data"),
    "not a map": (5, "not data with encodings"),
    "no encoding": (damage(encoding=[]), "not ByteArray"),
    "encoding of numbers": (damage(encoding=5), "not a list"),
    "seventeen encodings": (damage(encoding=[{"kind": "Delta"}] * 17), "exceeds max_array_len"),
    "unknown encoding": (encoded(integers(1, 2, 3), kind="Zip"), "unknown encoding Zip"),
    "unknown type": (damage(encoding=[{"kind": "ByteArray", "type": 7}]), "unknown type 7"),
    "half a value": (damage(data=b"12345"), "not a whole number of values"),
    "text for data": (damage(data=[1]), "not binary"),
    "counts that do not add up": (encoded(integers(1, 2), kind="RunLength", srcSize=3), "add up to 2, not 3"),
    "negative count": (encoded(integers(1, 4, 2, -1), kind="RunLength", srcSize=3), "negative count"),
    "count without end": (encoded(integers(1, 3, 5), kind="RunLength", srcSize=3), "without a count"),
    "a billion rows": (encoded(integers(1, 10**9), kind="RunLength", srcSize=10**9), "srcSize is 1000000000"),
    "size that is infinite": (encoded(integers(1, 3), kind="RunLength", srcSize=float("inf")), "is not a number"),
    "no size": (encoded(integers(1, 3), kind="RunLength"), "srcSize is not a number"),
    "floats delta-coded": (encoded(floats(1, 2, 3), kind="Delta", origin=0), "integers is applied to floats"),
    "overflow": (encoded(integers(2**31 - 1, 2**31 - 1, 2**31 - 1), kind="Delta", origin=0), "beyond 32 bits"),
    "origin beyond": (encoded(integers(1, 2, 3), kind="Delta", origin=2**40), "beyond 32 bits"),
    "factor zero": (encoded(integers(1, 2, 3), kind="FixedPoint", factor=0), "factor of FixedPoint is 0"),
    "one step": (encoded(integers(1, 2, 3), kind="IntervalQuantization", min=0, max=1, numSteps=1), "two steps"),
    "packing of another type": (
        encoded(integers(1, 2, 3), kind="IntegerPacking", byteCount=1, isUnsigned=True, srcSize=3),
        "over int32",
    ),
    "packing that goes on": (
        encoded(
            byte_array(np.array([1, 2, 127], "i1"), 1),
            kind="IntegerPacking",
            byteCount=1,
            isUnsigned=False,
            srcSize=3,
        ),
        "ends within a value",
    ),
    "offset beyond": (texts("AB", [0, 1, 3], 0, 1, 1), "an offset of StringArray is out of range"),
    "offset before": (texts("AB", [-1, 1, 2], 0, 1, 1), "an offset of StringArray is out of range"),
    "offsets backward": (texts("AB", [0, 2, 1], 0, 1, 1), "an offset of StringArray is out of range"),
    "place beyond": (texts("AB", [0, 1, 2], 0, 1, 2), "an index of StringArray is out of range"),
    "place before": (texts("AB", [0, 1, 2], 0, 1, -2), "an index of StringArray is out of range"),
    "text for a number": (STRINGS, "a value is not a number"),
    "number with underscore": (texts("1_0", [0, 3], 0, 0, 0), "a value is not a number"),
    "infinite number": (texts("inf", [0, 3], 0, 0, 0), "a value is not a number"),
    "strings that are not UTF-8": (
        {**STRINGS, "encoding": [{**STRINGS["encoding"][0], "stringData": b"A\xff"}]},
        "not UTF-8",
    ),
    "strings within strings": ({**STRINGS, "encoding": STRINGS["encoding"] * 2}, "StringArray and another"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_names_category_and_column(name: str) -> None:
    data, reason = REFUSED[name]
    block = read(3, data)
    with pytest.raises(InvalidStructure) as caught:
        block.floats("atom_site", "c")
    assert caught.value.field == "content"
    assert "category atom_site, column c" in caught.value.reason
    assert reason in caught.value.reason


def test_a_value_that_is_no_integer() -> None:
    for data in (floats(1, 2.5, 3), floats(1, float("nan"), 3), texts("1.5", [0, 3], 0, 0, 0), STRINGS):
        with pytest.raises(InvalidStructure, match="column c: a value is not an integer"):
            read(3, data).integers("atom_site", "c")


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
