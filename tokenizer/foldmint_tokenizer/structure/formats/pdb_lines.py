"""The lines of a PDB file, and access to their columns."""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from foldmint_tokenizer.errors import InvalidStructure
from foldmint_tokenizer.structure.options import Limits

SHORTEST_ATOM = 54  # up to the end of z
SPACE = np.uint8(ord(" "))
_FEWEST_LINES = 1_000_000
_LINE_BYTES = 40  # on average, or more: 81 in files of the PDB
_WIDEST = 80


@dataclass(frozen=True, eq=False)
class Lines:
    """Lines of a file, and access to their columns.

    starts, lengths: (lines,), without line ends. grid: (lines, length + 1), the characters, if all lines are equally
    long, as in files of the PDB.
    """

    data: NDArray[np.uint8]  # padded with the width of a line in spaces
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    grid: NDArray[np.uint8] | None

    def columns(self, first: int, last: int, lines: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
        """Characters of lines, (lines, last - first), C-contiguous, from column `first`, counted from 0.

        Spaces beyond the end of a line.
        """
        if self.grid is not None:
            found = self.grid[:, first : min(last, self.grid.shape[1] - 1)][lines]
            missing = last - first - found.shape[1]
            found = np.ascontiguousarray(found)
            return found if missing <= 0 else np.pad(found, ((0, 0), (0, missing)), constant_values=SPACE)
        found = sliding_window_view(self.data, last - first)[self.starts[lines] + first]
        lengths = self.lengths[lines]
        if len(lengths) and lengths.min() < last:
            found = np.where(np.arange(first, last) < lengths[:, None], found, SPACE)
        return np.asarray(found, np.uint8)

    def text(self, line: int, first: int = 0, last: int = _WIDEST) -> str:
        """A range of columns of a line."""
        start, end = self.starts[line] + first, self.starts[line] + min(last, self.lengths[line])
        return self.data[start : max(start, end)].tobytes().decode("latin-1").rstrip()


def split_lines(text: bytes, limits: Limits) -> Lines:
    """The lines of a file; raises InvalidStructure with field `content` if they are too many."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    most = max(_FEWEST_LINES, limits.unpacked_bytes // _LINE_BYTES)
    data = np.frombuffer(text, np.uint8)
    width = text.find(b"\n") + 1
    if width > SHORTEST_ATOM and len(text) % width == 0:
        grid = data.reshape(-1, width)
        breaks = grid == ord("\n")
        if breaks[:, -1].all() and np.count_nonzero(breaks) == len(grid) <= most:
            return Lines(data, np.arange(len(grid)) * width, np.full(len(grid), width - 1), grid)
    data = np.concatenate([data, np.full(_WIDEST, SPACE)])
    ends = np.append(np.flatnonzero(data == ord("\n")), len(text))
    if len(ends) > most:
        raise InvalidStructure("content", f"{len(ends)} lines; at most {most} are accepted")
    starts = np.concatenate([[0], ends[:-1] + 1])
    return Lines(data, starts, ends - starts, None)
