"""Frames, nearest neighbors and neighborhoods, compiled."""

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.kernels.compilation import compiled

_BLOCK = 64  # residues whose distances are compared at once
_Doubles = NDArray[np.float64]


@compiled(error_model="numpy")
def frames(
    backbone: _Doubles,
    epsilon: float,
    shortest: float,
    rotation: _Doubles,
    origin: _Doubles,
    exists: NDArray[np.bool_],
) -> None:
    """Write the frames of a backbone (residues, 3, 3), as `backbone_frames` defines them.

    epsilon: added to squared norms. shortest: Å, minimum length of the axes before they are normalized.
    """
    x, y, beside = np.empty(3), np.empty(3), np.empty(3)
    for residue in range(len(backbone)):
        finite = True
        for atom in range(3):
            for i in range(3):
                finite = finite and np.isfinite(backbone[residue, atom, i])
        length = width = 0.0
        if finite:
            square = 0.0
            for i in range(3):
                x[i] = backbone[residue, 1, i] - backbone[residue, 2, i]
                square += x[i] * x[i]
            length = np.sqrt(square + epsilon)
            along = 0.0
            for i in range(3):
                x[i] /= length
                beside[i] = backbone[residue, 0, i] - backbone[residue, 1, i]
                along += x[i] * beside[i]
            square = 0.0
            for i in range(3):
                beside[i] -= x[i] * along
                square += beside[i] * beside[i]
            width = np.sqrt(square + epsilon)
            for i in range(3):
                y[i] = beside[i] / width
        exists[residue] = finite and length > shortest and width > shortest
        for i in range(3):
            j, k = (i + 1) % 3, (i + 2) % 3
            if exists[residue]:
                rotation[residue, i, 0] = x[i]
                rotation[residue, i, 1] = y[i]
                rotation[residue, i, 2] = x[j] * y[k] - x[k] * y[j]
                origin[residue, i] = backbone[residue, 1, i]
            else:
                for axis in range(3):
                    rotation[residue, i, axis] = 1.0 if i == axis else 0.0
                origin[residue, i] = 0.0


# Minima assume numbers, and sums of squares may not be reordered: distances are those of any other exact search.
@compiled(error_model="numpy", fastmath={"nnan", "nsz"})
def nearest(ca: _Doubles, found: NDArray[np.int32]) -> None:
    """Write to found (points, wanted) the points nearest to each of ca (points, 3), which has no NaN.

    A point itself comes first, the others by distance and, at the same distance, by number. Compares all with all.
    wanted is at most the number of points.
    """
    count, wanted = found.shape
    others = wanted - 1
    x, y, z = ca[:, 0].copy(), ca[:, 1].copy(), ca[:, 2].copy()
    square, best = np.empty(_BLOCK), np.empty(max(others, 1))
    last = (count - 1) // _BLOCK
    for own in range(count):
        found[own, 0] = own
        if others == 0:
            continue
        held = 0
        px, py, pz = x[own], y[own], z[own]
        middle = own // _BLOCK
        # The own block and those on its sides first: most neighbors are there, and the limit is low soon.
        for step in range(2 * max(middle, last - middle) + 1):
            block = middle + ((step + 1) // 2 if step % 2 else -(step // 2))
            if block < 0 or block > last:
                continue
            start = block * _BLOCK
            size = min(_BLOCK, count - start)
            least = np.inf
            for i in range(size):
                dx, dy, dz = x[start + i] - px, y[start + i] - py, z[start + i] - pz
                square[i] = dx * dx + dy * dy + dz * dz
                least = min(least, square[i])
            if held == others and least > best[others - 1]:
                continue
            for i in range(size):
                other = start + i
                if other == own:
                    continue
                apart = square[i]
                if held == others:
                    if apart > best[held - 1] or (apart == best[held - 1] and other > found[own, held]):
                        continue
                else:
                    held += 1
                place = held - 1
                while place > 0 and (
                    best[place - 1] > apart or (best[place - 1] == apart and found[own, place] > other)
                ):
                    best[place] = best[place - 1]
                    found[own, place + 1] = found[own, place]
                    place -= 1
                best[place] = apart
                found[own, place + 1] = other


@compiled(error_model="numpy")
def neighborhoods(
    rotation: _Doubles,
    origin: _Doubles,
    residue_index: NDArray[np.int64],
    queries: NDArray[np.int64],
    nearest: NDArray[np.int32],
    limit: int,
    turned: NDArray[np.float32],
    moved: NDArray[np.float32],
    offset: NDArray[np.int64],
    exists: NDArray[np.bool_],
) -> None:
    """Write the neighborhoods of residues: rotation to limit as in `Geometry`, turned to exists as in `Neighborhoods`.

    queries: (rows,), nearest: (rows, 16), their neighbors; -1 where there are no more, which is filled with the query.
    limit: of the difference in residue_index, in both directions.
    """
    rows, slots = nearest.shape
    for row in range(rows):
        query = queries[row]
        for slot in range(slots):
            exists[row, slot] = nearest[row, slot] >= 0
            other = np.int64(nearest[row, slot]) if exists[row, slot] else query
            for i in range(3):
                for j in range(3):
                    turned[row, slot, i, j] = (
                        rotation[query, 0, i] * rotation[other, 0, j]
                        + rotation[query, 1, i] * rotation[other, 1, j]
                        + rotation[query, 2, i] * rotation[other, 2, j]
                    )
                moved[row, slot, i] = (
                    rotation[query, 0, i] * (origin[other, 0] - origin[query, 0])
                    + rotation[query, 1, i] * (origin[other, 1] - origin[query, 1])
                    + rotation[query, 2, i] * (origin[other, 2] - origin[query, 2])
                )
            difference = residue_index[other] - residue_index[query]
            offset[row, slot] = min(max(difference, -limit), limit) + limit + 1


@compiled(error_model="numpy")
def follows(
    exists: NDArray[np.bool_],
    residue_index: NDArray[np.int64],
    backbone: _Doubles,
    longest: float,
    goes_on: NDArray[np.bool_],
) -> None:
    """Write to goes_on (residues,) whether each residue is continued by the next one, as `motion.motions.follows` does.

    exists: (residues,), which have a frame. backbone: (residues, 3, 3). longest: Å, of a bond.
    """
    for residue in range(len(exists)):
        goes_on[residue] = False
        after = residue + 1
        if after == len(exists) or not (exists[residue] and exists[after]):
            continue
        step = residue_index[after] - residue_index[residue]
        if step == 0 or step == 1:
            square = 0.0
            for i in range(3):
                gap = backbone[after, 0, i] - backbone[residue, 2, i]
                square += gap * gap
            goes_on[residue] = square < longest * longest


@compiled(error_model="numpy")
def segments(
    exists: NDArray[np.bool_],
    goes_on: NDArray[np.bool_],
    rotation: _Doubles,
    origin: _Doubles,
    starts: NDArray[np.int64],
    frames: NDArray[np.float32],
) -> int:
    """Write where segments begin and their first frames, as `motion.motions.segments_of` does, and return how many.

    exists, goes_on: (residues,). rotation: (residues, 3, 3). origin: (residues, 3). starts: (residues,) and frames:
    (residues, 12), of which as many are written as there are segments.
    """
    count = 0
    for residue in range(len(exists)):
        # A stretch without frames is one segment.
        if residue > 0 and (goes_on[residue - 1] or not (exists[residue] or exists[residue - 1])):
            continue
        starts[count] = residue
        for i in range(12):
            frames[count, i] = np.nan
        if exists[residue]:
            for i in range(3):
                for j in range(3):
                    frames[count, 3 * i + j] = rotation[residue, i, j]
                frames[count, 9 + i] = origin[residue, i]
        count += 1
    return count
