"""The loops along a chain that assignment runs, compiled by numba on first use.

A separate module, imported late: numba takes a second to import, and most callers do not need it.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[Any]
Flags = NDArray[np.bool_]

_Loop = TypeVar("_Loop", bound=Callable[..., Any])


def _compiled(**options: Any) -> Callable[[_Loop], _Loop]:  # noqa: ANN401 (numba's own)
    """Compile on first use; cache on disk for later processes if a cache folder is writable."""

    def decorate(function: _Loop) -> _Loop:
        try:
            made = njit(nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no writable cache folder
            made = njit(nogil=True, **options)(function)
        return cast(_Loop, made)

    return decorate


# Sums may be reordered, which is what lets the compiler use vector registers.
@_compiled(fastmath={"contract", "reassoc", "nsz"})
def track(
    turn: Floats,
    move: Floats,
    begins: Flags,
    goes_on: Flags,
    environment: Floats,
    columns: Floats,
    half: Floats,
    rotation: Floats,
    translation: Floats,
    lever: float,
    codes: NDArray[np.int64],
) -> None:
    """Overwrite codes (residues,) where goes_on (residues,) with those nearest to the motion that the chain needs.

    turn (residues, 3, 3), move (residues, 3): the true motion to the next residue, Å. begins: (residues,), where
    tracking restarts from the true frame. environment: (residues, out - 12). columns, half, rotation, translation,
    lever: as in `CodeTable`.
    """
    # The true frame, relative to the one that composition has reached.
    at, place = np.eye(3), np.zeros(3)
    to, by = np.empty((3, 3)), np.empty(3)
    wanted = np.empty(columns.shape[0], np.float32)
    score = np.empty(len(half), np.float32)
    for j in range(len(codes)):
        if begins[j]:
            for i in range(3):
                place[i] = 0.0
                for k in range(3):
                    at[i, k] = 1.0 if i == k else 0.0
        if not goes_on[j]:
            continue
        # From the frame reached to the next residue's true frame.
        for i in range(3):
            by[i] = place[i]
            for k in range(3):
                by[i] += at[i, k] * move[j, k]
                to[i, k] = at[i, 0] * turn[j, 0, k] + at[i, 1] * turn[j, 1, k] + at[i, 2] * turn[j, 2, k]
                wanted[3 * i + k] = to[i, k] * lever
            wanted[9 + i] = by[i]
        for i in range(environment.shape[1]):
            wanted[12 + i] = environment[j, i]
        for k in range(len(score)):
            score[k] = half[k]
        for i in range(columns.shape[0]):
            value = wanted[i]
            for k in range(len(score)):
                score[k] -= value * columns[i, k]
        best = 0
        least = score[0]
        for k in range(1, len(score)):
            if score[k] < least:
                best, least = k, score[k]
        codes[j] = best
        for i in range(3):
            place[i] = 0.0
            for k in range(3):
                place[i] += rotation[best, k, i] * (by[k] - translation[best, k])
                at[i, k] = (
                    rotation[best, 0, i] * to[0, k] + rotation[best, 1, i] * to[1, k] + rotation[best, 2, i] * to[2, k]
                )


@_compiled()
def compose(rotation: Floats, translation: Floats, codes: NDArray[np.int64], begins: Flags) -> tuple[Floats, Floats]:
    """Frames (residues,) composed from a chain's codes (residues,), each segment from the origin."""
    turned = np.zeros((len(codes), 3, 3))
    moved = np.zeros((len(codes), 3))
    for j in range(len(codes)):
        if begins[j]:
            for i in range(3):
                turned[j, i, i] = 1.0
            continue
        last = codes[j - 1]
        for i in range(3):
            moved[j, i] = moved[j - 1, i]
            for k in range(3):
                moved[j, i] += turned[j - 1, i, k] * translation[last, k]
                for m in range(3):
                    turned[j, i, k] += turned[j - 1, i, m] * rotation[last, m, k]
    return turned, moved
