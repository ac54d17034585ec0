"""The interface of a CIF data block, whether it is written as mmCIF text or BinaryCIF."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.errors import InvalidStructure


class InvalidCell(InvalidStructure):
    """A value that does not fit its column. row: its index among all rows of the category."""

    def __init__(self, reason: str, row: int) -> None:
        super().__init__("content", reason)
        self.row = row


Rows = NDArray[np.int64] | None
"""Indices of rows; None for all of them."""


class CifBlock(Protocol):
    """A data block as columns. Categories and items are named without underscore or dot, such as `atom_site`."""

    @property
    def name(self) -> str:
        """The block's name, without `data_`."""
        ...

    def rows(self, category: str) -> int:
        """Number of rows of a category; 0 if the block has none."""
        ...

    def text(self, category: str, item: str, rows: Rows = None) -> NDArray[np.bytes_] | None:
        """A column as UTF-8, (rows,), unquoted, empty where unknown or inapplicable; None if there is no such item.

        Raises InvalidStructure for a value of more than 100 bytes.
        """
        ...

    def integers(self, category: str, item: str, rows: Rows = None) -> NDArray[np.int64] | None:
        """A column as integers, (rows,), MISSING where unknown or inapplicable; None if there is no such item.

        Raises InvalidStructure for a value that is not an integer.
        """
        ...

    def floats(self, category: str, item: str, rows: Rows = None) -> NDArray[np.float64] | None:
        """A column as floats, (rows,), NaN where unknown or inapplicable; None if there is no such item.

        A standard uncertainty in parentheses is ignored. Raises InvalidStructure for a value that is not a number.
        """
        ...
