"""Parses columns of decimal numbers, many at a time."""

import numpy as np
from numpy.typing import NDArray

_DECIMALS = 3
_MOST_DIGITS = 15  # that a float64 represents exactly
# Other forms that NumPy and Python accept, such as underscores, are not numbers in any structure file format.
_NUMERIC = np.zeros(256, bool)
_NUMERIC[np.frombuffer(b" +-.0123456789eE", np.uint8)] = True


def parse_floats(text: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Numbers in fields of fixed width, padded with spaces. text: (numbers, width), characters.

    Returns values, (numbers,), NaN for blank fields and for `nan`, and whether each is a number or blank, (numbers,).
    Right-aligned numbers with three decimals, as in most files, take a fast path; either way each value is the float
    nearest to the decimal number.
    """
    count, width = text.shape
    values, valid = np.full(count, np.nan), np.zeros(count, bool)
    point = width - _DECIMALS - 1
    if point > 0 and width <= _MOST_DIGITS:
        columns = np.ascontiguousarray(text.T)
        digits = columns - np.uint8(ord("0"))  # wraps around below 0
        numbers, negative = np.zeros(count, np.int64), np.zeros(count, bool)
        # Spaces, then an optional minus, then digits.
        valid = columns[point] == ord(".")
        begun = np.zeros(count, bool)
        for place in (*range(point), *range(point + 1, width)):
            digit = digits[place] <= 9
            if place < point:
                minus = columns[place] == ord("-")
                valid &= digit | (columns[place] == ord(" ")) & ~begun | minus & ~begun
                negative |= minus
                begun |= minus | digit
            else:
                valid &= digit
            numbers = np.where(digit, numbers * 10 + digits[place], numbers)
        valid &= digits[point - 1] <= 9
        values = np.where(negative, -numbers, numbers) / 10**_DECIMALS
    for place in np.flatnonzero(~valid):
        values[place], valid[place] = _parse_float(text[place])
    return values, valid


def _parse_float(text: NDArray[np.uint8]) -> tuple[float, bool]:
    word = text.tobytes().strip()
    if not word or word.lower() == b"nan":
        return np.nan, True
    try:
        return (float(word), True) if _NUMERIC[text].all() else (np.nan, False)
    except ValueError:
        return np.nan, False


def parse_integers(text: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Integers in fields of fixed width, padded with spaces on either side. text: (numbers, width), characters.

    Returns values, (numbers,), 0 where a field is not an integer, and whether each is one, (numbers,).
    """
    count, width = text.shape
    columns = np.ascontiguousarray(text.T)
    values, negative = np.zeros(count, np.int64), np.zeros(count, bool)
    begun, ended, digit_seen = np.zeros(count, bool), np.zeros(count, bool), np.zeros(count, bool)
    valid = np.full(count, width <= _MOST_DIGITS)
    for place in range(width if width <= _MOST_DIGITS else 0):
        character = columns[place]
        digit = (character - np.uint8(ord("0"))) <= 9
        space, sign = character == ord(" "), (character == ord("-")) | (character == ord("+"))
        valid &= (digit & ~ended) | space | (sign & ~begun)
        ended |= begun & space
        begun |= digit | sign
        digit_seen |= digit
        negative |= character == ord("-")
        values = np.where(digit, values * 10 + (character & np.uint8(15)), values)
    valid &= digit_seen
    return np.where(valid, np.where(negative, -values, values), 0), valid
