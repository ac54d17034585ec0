"""What the encoder computes between its products with weights, compiled; one residue's neighborhood at a time."""

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.kernels.compilation import compiled
from foldmint_tokenizer.kernels.vectors import (
    LANES,
    broadcast,
    exponential,
    load,
    maximum,
    multiply_add,
    square_root,
    store,
    total,
)

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

NEIGHBORS = 16
KEYS, QUERIES = 3, 2
SCRATCH = (3 * KEYS + 1) * NEIGHBORS * LANES
"""Numbers of scratch memory that `attend` needs."""

_SIDE = NEIGHBORS * LANES


@compiled(error_model="numpy")
def attend(
    keys: Floats,
    key_rows: Integers,
    key_bias: Floats,
    queries: Floats,
    query_rows: Integers,
    query_bias: Floats,
    scale: Floats,
    rotation: Floats,
    origin: Floats,
    exists: NDArray[np.bool_],
    asked: int,
    seen: Floats,
    scratch: Floats,
) -> None:
    """Write to `seen` the means of values, by geometric attention of the first `asked` slots of each neighborhood.

    heads is a multiple of 16; arrays of numbers are flat. keys: (any, 3, 3, heads), for each slot the row key_rows
    (rows * 16,): keys of rotation, values, keys of distance, each in components. queries: (any, 2, 3, heads), for each
    asked slot the row query_rows (rows * asked,). key_bias, query_bias: added to them. scale: (heads,), of the origins.
    rotation: (rows, 16, 3, 3). origin: (rows, 16, 3). exists: (rows, 16); empty slots get no weight, and zeros. seen:
    (rows, asked, 3, heads), in the slot's own frame. scratch: (SCRATCH,).
    """
    heads = len(scale)
    logits = 3 * KEYS * _SIDE
    present = np.empty(NEIGHBORS, np.int64)
    zero = broadcast(np.float32(0.0))
    for row in range(len(exists)):
        count = 0
        for slot in range(NEIGHBORS):
            if exists[row, slot]:
                present[count] = slot
                count += 1
        for first in range(0, heads, LANES):
            scaled = load(scale, first)
            # All keys and values in the common frame.
            for place in range(count):
                at = row * NEIGHBORS + present[place]
                turn = 9 * at
                for kind in range(KEYS):
                    bias = 3 * kind * heads + first
                    start = 3 * KEYS * heads * key_rows[at] + bias
                    x = load(keys, start) + load(key_bias, bias)
                    y = load(keys, start + heads) + load(key_bias, bias + heads)
                    z = load(keys, start + 2 * heads) + load(key_bias, bias + 2 * heads)
                    for i in range(3):
                        turned = broadcast(rotation[turn + 3 * i]) * x
                        turned = multiply_add(broadcast(rotation[turn + 3 * i + 1]), y, turned)
                        turned = multiply_add(broadcast(rotation[turn + 3 * i + 2]), z, turned)
                        if kind == KEYS - 1:
                            turned = multiply_add(broadcast(origin[3 * at + i]), scaled, turned)
                        store(scratch, (3 * kind + i) * _SIDE + place * LANES, turned)
            for slot in range(asked):
                to = 3 * heads * (row * asked + slot) + first
                if not exists[row, slot]:
                    for i in range(3):
                        store(seen, to + i * heads, zero)
                    continue
                at = row * NEIGHBORS + slot
                turn = 9 * at
                r00, r01, r02 = (
                    broadcast(rotation[turn]),
                    broadcast(rotation[turn + 1]),
                    broadcast(rotation[turn + 2]),
                )
                r10, r11, r12 = (
                    broadcast(rotation[turn + 3]),
                    broadcast(rotation[turn + 4]),
                    broadcast(rotation[turn + 5]),
                )
                r20, r21, r22 = (
                    broadcast(rotation[turn + 6]),
                    broadcast(rotation[turn + 7]),
                    broadcast(rotation[turn + 8]),
                )
                start = 3 * QUERIES * heads * query_rows[row * asked + slot] + first
                x = load(queries, start) + load(query_bias, first)
                y = load(queries, start + heads) + load(query_bias, first + heads)
                z = load(queries, start + 2 * heads) + load(query_bias, first + 2 * heads)
                qx = multiply_add(r02, z, multiply_add(r01, y, r00 * x))
                qy = multiply_add(r12, z, multiply_add(r11, y, r10 * x))
                qz = multiply_add(r22, z, multiply_add(r21, y, r20 * x))
                x = load(queries, start + 3 * heads) + load(query_bias, first + 3 * heads)
                y = load(queries, start + 4 * heads) + load(query_bias, first + 4 * heads)
                z = load(queries, start + 5 * heads) + load(query_bias, first + 5 * heads)
                px = multiply_add(r02, z, multiply_add(r01, y, r00 * x))
                py = multiply_add(r12, z, multiply_add(r11, y, r10 * x))
                pz = multiply_add(r22, z, multiply_add(r21, y, r20 * x))
                px = multiply_add(broadcast(origin[3 * at]), scaled, px)
                py = multiply_add(broadcast(origin[3 * at + 1]), scaled, py)
                pz = multiply_add(broadcast(origin[3 * at + 2]), scaled, pz)
                most = broadcast(np.float32(-np.inf))
                for place in range(count):
                    key = place * LANES
                    # The distance term, |p - o|, from the differences: expanding the square would cancel.
                    dx = load(scratch, 6 * _SIDE + key) - px
                    dy = load(scratch, 7 * _SIDE + key) - py
                    dz = load(scratch, 8 * _SIDE + key) - pz
                    distance = square_root(multiply_add(dz, dz, multiply_add(dy, dy, dx * dx)))
                    dot = load(scratch, key) * qx
                    dot = multiply_add(load(scratch, _SIDE + key), qy, dot)
                    dot = multiply_add(load(scratch, 2 * _SIDE + key), qz, dot)
                    logit = dot - distance
                    store(scratch, logits + key, logit)
                    most = maximum(most, logit)
                total, sx, sy, sz = zero, zero, zero, zero
                for place in range(count):
                    key = place * LANES
                    weight = exponential(load(scratch, logits + key) - most)
                    total = total + weight
                    sx = multiply_add(load(scratch, 3 * _SIDE + key), weight, sx)
                    sy = multiply_add(load(scratch, 4 * _SIDE + key), weight, sy)
                    sz = multiply_add(load(scratch, 5 * _SIDE + key), weight, sz)
                share = broadcast(np.float32(1.0)) / total
                sx, sy, sz = sx * share, sy * share, sz * share
                # The transpose of a rotation is its inverse.
                store(seen, to, multiply_add(r20, sz, multiply_add(r10, sy, r00 * sx)))
                store(seen, to + heads, multiply_add(r21, sz, multiply_add(r11, sy, r01 * sx)))
                store(seen, to + 2 * heads, multiply_add(r22, sz, multiply_add(r12, sy, r02 * sx)))


@compiled(error_model="numpy")
def add_and_norm(x: Floats, bias: Floats, epsilon: float, normed: Floats) -> None:
    """Add bias (width,) to each row of x (rows, width), and write to `normed` x with mean 0 and standard deviation 1.

    epsilon: added to the variance. The order of the sums is fixed, so that results do not depend on what is compiled
    around it.
    """
    rows, width = x.shape
    flat, to = x.reshape(-1), normed.reshape(-1)
    whole = width - width % LANES
    zero = broadcast(np.float32(0.0))
    for row in range(rows):
        start = row * width
        sums = zero
        for i in range(0, whole, LANES):
            added = load(flat, start + i) + load(bias, i)
            store(flat, start + i, added)
            sums = sums + added
        mean = total(sums)
        for i in range(whole, width):
            flat[start + i] += bias[i]
            mean += flat[start + i]
        mean /= np.float32(width)
        means, sums = broadcast(mean), zero
        for i in range(0, whole, LANES):
            apart = load(flat, start + i) - means
            sums = multiply_add(apart, apart, sums)
        square = total(sums)
        for i in range(whole, width):
            square += (flat[start + i] - mean) * (flat[start + i] - mean)
        scale = np.float32(1.0) / np.sqrt(square / np.float32(width) + np.float32(epsilon))
        scales = broadcast(scale)
        for i in range(0, whole, LANES):
            store(to, start + i, (load(flat, start + i) - means) * scales)
        for i in range(whole, width):
            to[start + i] = (flat[start + i] - mean) * scale


@compiled(error_model="numpy")
def gate(up: Floats, bias: Floats) -> None:
    """Write SiLU(gate) * value over the gates. up: (rows, 2, hidden), gates and values; bias: (2, hidden), added first.

    Arrays are flat; hidden is a multiple of 16.
    """
    hidden = len(bias) // 2
    one, zero = broadcast(np.float32(1.0)), broadcast(np.float32(0.0))
    for start in range(0, len(up), 2 * hidden):
        for i in range(0, hidden, LANES):
            x = load(up, start + i) + load(bias, i)
            value = load(up, start + hidden + i) + load(bias, hidden + i)
            store(up, start + i, x / (one + exponential(zero - x)) * value)


@compiled(error_model="numpy")
def gate_panel(both: Floats, rows: int, bias: Floats, panel: int, to: Floats) -> None:
    """Write SiLU(gate) * value of 16 columns to their place in `to` (rows, hidden).

    both: (rows, 2, 16), gates and values; the bias of (2, hidden) is added first. Arrays are flat. panel: the place of
    these columns, in sixteens.
    """
    hidden = len(bias) // 2
    one, zero = broadcast(np.float32(1.0)), broadcast(np.float32(0.0))
    column = panel * LANES
    gate_bias, value_bias = load(bias, column), load(bias, hidden + column)
    for row in range(rows):
        x = load(both, 2 * row * LANES) + gate_bias
        value = load(both, (2 * row + 1) * LANES) + value_bias
        store(to, row * hidden + column, x / (one + exponential(zero - x)) * value)
