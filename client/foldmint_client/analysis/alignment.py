"""Global alignment of two sequences of tokens, by Needleman and Wunsch's algorithm.

S. B. Needleman, C. D. Wunsch: A general method applicable to the search for similarities in the amino acid sequence of
two proteins. J. Mol. Biol. 48 (1970) 443-453; here with a cost g for each position of a gap:

H(i, 0) = -g i,   H(0, j) = -g j,   H(i, j) = max(H(i-1, j-1) + s(i, j), H(i-1, j) - g, H(i, j-1) - g)
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from foldmint_client.errors import InvalidOptions

MOST_CELLS = 10**8  # pairs of positions, which take some bytes each

_DIAGONAL, _UP, _LEFT = 0, 1, 2


class Alignment(NamedTuple):
    """Columns of an alignment. first, second: (columns,), int64, positions in the two sequences, -1 for a gap."""

    score: int
    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]


def align(scores: npt.NDArray[np.integer], gap: int = 1) -> Alignment:
    """The alignment of highest score; of several, the one that has its gaps as far to the front as can be.

    scores: (n, m), whole numbers, of each pair of positions. gap: cost of a position that is left alone, 0 or more.
    Raises InvalidOptions above MOST_CELLS pairs.
    """
    rows, columns = scores.shape
    if gap < 0:
        raise InvalidOptions(f"a gap costs 0 or more, not {gap}")
    check_size(rows, columns)
    slope = gap * np.arange(columns + 1, dtype=np.int64)
    above = -slope
    steps = np.full((rows + 1, columns + 1), _LEFT, np.uint8)
    steps[1:, 0] = _UP
    best = np.empty(columns + 1, np.int64)
    for row in range(rows):
        diagonal, up = above[:-1] + scores[row], above - gap
        best[0] = up[0]
        np.maximum(diagonal, up[1:], out=best[1:])
        # Gaps within the row: max over k of best(k) - g (j - k), for all j at once. Whole numbers: nothing is rounded.
        reached = np.maximum.accumulate(best + slope) - slope
        step = np.where(diagonal == reached[1:], _DIAGONAL, np.where(up[1:] == reached[1:], _UP, _LEFT))
        steps[row + 1, 1:] = step
        above = reached
    return Alignment(int(above[-1]), *_path(steps))


def check_size(rows: int, columns: int) -> None:
    """Raise InvalidOptions for sequences that are too long to be aligned."""
    if rows * columns > MOST_CELLS:
        raise InvalidOptions(f"{rows} and {columns} residues are too many to be aligned")


def _path(steps: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    row, column = steps.shape[0] - 1, steps.shape[1] - 1
    first: list[int] = []
    second: list[int] = []
    while row or column:
        step = steps[row, column]
        row -= step != _LEFT
        column -= step != _UP
        first.append(-1 if step == _LEFT else row)
        second.append(-1 if step == _UP else column)
    return np.array(first[::-1], np.int64), np.array(second[::-1], np.int64)
