"""Each encoding of BinaryCIF, and what is wrong with a column."""

from typing import Any

import numpy as np
import pytest

from foldmint_tokenizer import InvalidStructure
from foldmint_tokenizer.structure.atom_table import MISSING
from helpers.files.binary_cif_data import byte_array, column, encoded, floats, integers, read, texts


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
