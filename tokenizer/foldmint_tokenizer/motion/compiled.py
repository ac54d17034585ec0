"""The loops along a chain that assignment runs, compiled.

A separate module, imported late: most callers do not need it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.kernels.compilation import compiled

Floats = NDArray[Any]
Flags = NDArray[np.bool_]

# Sums may be reordered and minima assume numbers, which is what lets the compiler use vector registers.
_FAST = {"contract", "reassoc", "nsz", "nnan"}


@compiled(fastmath=_FAST)
def _search(
    wanted: Floats,
    cost: float,
    weight: float,
    hypothesis: int,
    leaves: Floats,
    low: Floats,
    high: Floats,
    members: NDArray[np.int64],
    bound: Floats,
    distance: Floats,
    costs: Floats,
    parents: NDArray[np.int64],
    codes: NDArray[np.int64],
) -> None:
    """Insert into the sorted candidates (costs, parents, codes) what extends a hypothesis at less cost.

    wanted (dims,): the vector to be coded. Extending costs `weight` times the squared distance, Å². leaves, low, high,
    members: a `CodeTable`; a leaf is read only if its box is near enough. bound (leaves,), distance (size,): scratch.
    """
    last = len(costs) - 1
    for leaf in range(len(bound)):
        bound[leaf] = 0.0
    for i in range(len(wanted)):
        value, lower, upper = wanted[i], low[i], high[i]
        for leaf in range(len(bound)):
            apart = max(max(lower[leaf] - value, value - upper[leaf]), np.float32(0.0))
            bound[leaf] += apart * apart
    first = 0
    for leaf in range(len(bound)):
        if bound[leaf] < bound[first]:
            first = leaf
    # The nearest box first: what it holds excludes nearly all of the others.
    for turn in range(-1, len(bound)):
        leaf = first if turn < 0 else turn
        limit = np.float32((costs[last] - cost) / weight)
        if turn == first or bound[leaf] >= limit:
            continue
        for k in range(len(distance)):
            distance[k] = 0.0
        for i in range(0, len(wanted), 4):
            w, x, y, z = wanted[i], wanted[i + 1], wanted[i + 2], wanted[i + 3]
            first_row, second, third, fourth = (
                leaves[leaf, i],
                leaves[leaf, i + 1],
                leaves[leaf, i + 2],
                leaves[leaf, i + 3],
            )
            for k in range(len(distance)):
                a, b, c, d = w - first_row[k], x - second[k], y - third[k], z - fourth[k]
                distance[k] += (a * a + b * b) + (c * c + d * d)
        for k in range(len(distance)):
            if distance[k] < limit:
                total = cost + weight * distance[k]
                place = last
                if total >= costs[place]:
                    continue
                while place > 0 and costs[place - 1] > total:
                    costs[place], parents[place], codes[place] = costs[place - 1], parents[place - 1], codes[place - 1]
                    place -= 1
                costs[place], parents[place], codes[place] = total, hypothesis, members[leaf, k]


@compiled(fastmath=_FAST)
def beam_search(
    turn: Floats,
    move: Floats,
    begins: Flags,
    goes_on: Flags,
    environment: Floats,
    leaves: Floats,
    low: Floats,
    high: Floats,
    members: NDArray[np.int64],
    rotation: Floats,
    translation: Floats,
    lever: float,
    width: int,
    last_weight: float,
    codes: NDArray[np.int64],
) -> None:
    """Overwrite codes (residues,) where goes_on (residues,), with those whose composition follows the chain best.

    turn (residues, 3, 3), move (residues, 3): the true motion to the next residue, Å. begins: (residues,), where it is
    measured from the true frame; there a stretch begins. environment: (residues, out - 12). leaves to lever: a
    `CodeTable`. Of each stretch, `width` hypotheses are kept: those with the least sum of squared errors, Å², of the
    frames that they reach; the last error of a stretch that another one continues counts `last_weight` times.
    """
    count, dims = len(codes), leaves.shape[1]
    # The true frame of the present residue, seen from the one that each hypothesis has reached.
    at, place = np.zeros((width, 3, 3)), np.zeros((width, 3))
    to, by = np.zeros((width, 3, 3)), np.zeros((width, 3))
    costs, last_costs = np.zeros(width), np.zeros(width)
    parents, chosen = np.zeros((count, width), np.int64), np.zeros((count, width), np.int64)
    wanted = np.zeros(dims, np.float32)
    bound, distance = np.zeros(len(leaves), np.float32), np.zeros(leaves.shape[2], np.float32)
    live = start = 0
    for j in range(count + 1):
        if live and (j == count or begins[j] or not goes_on[j]):
            best = 0  # candidates are sorted
            for step in range(j - 1, start - 1, -1):
                codes[step] = chosen[step, best]
                best = parents[step, best]
            live = 0
        if j == count or not goes_on[j]:
            continue
        if not live:
            live, start = 1, j
            costs[0] = 0.0
            for i in range(3):
                place[0, i] = 0.0
                for k in range(3):
                    at[0, i, k] = 1.0 if i == k else 0.0
        weight = last_weight if j + 1 < count and begins[j + 1] and goes_on[j + 1] else 1.0
        last_costs[:] = costs
        costs[:] = np.inf
        for h in range(live):
            # From the frame that was reached to the true one of the next residue.
            for i in range(3):
                by[h, i] = place[h, i]
                for k in range(3):
                    by[h, i] += at[h, i, k] * move[j, k]
                    to[h, i, k] = (
                        at[h, i, 0] * turn[j, 0, k] + at[h, i, 1] * turn[j, 1, k] + at[h, i, 2] * turn[j, 2, k]
                    )
                    wanted[3 * i + k] = to[h, i, k] * lever
                wanted[9 + i] = by[h, i]
            for i in range(environment.shape[1]):
                wanted[12 + i] = environment[j, i]
            candidates = costs, parents[j], chosen[j]
            _search(wanted, last_costs[h], weight, h, leaves, low, high, members, bound, distance, *candidates)
        live = 0
        while live < width and costs[live] < np.inf:
            h, code = parents[j, live], chosen[j, live]
            for i in range(3):
                place[live, i] = 0.0
                for k in range(3):
                    place[live, i] += rotation[code, k, i] * (by[h, k] - translation[code, k])
                    at[live, i, k] = (
                        rotation[code, 0, i] * to[h, 0, k]
                        + rotation[code, 1, i] * to[h, 1, k]
                        + rotation[code, 2, i] * to[h, 2, k]
                    )
            live += 1


@compiled()
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
