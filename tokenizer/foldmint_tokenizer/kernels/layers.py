"""The encoder's layers, each compiled as a whole with its products: without the interpreter from end to end."""

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.kernels.compilation import compiled
from foldmint_tokenizer.kernels.encoder import Floats, Integers, add_and_norm, attend, gate, gate_panel
from foldmint_tokenizer.kernels.products import multiply
from foldmint_tokenizer.kernels.tiles import BLOCK, COLUMNS, multiply_panel, multiply_tiles


@compiled(error_model="numpy", inline="always")
def _multiply(
    sgemm: int, left: Floats, start: int, stride: int, rows: int, weight: Floats, product: Floats, keep: int
) -> None:
    """Write left @ weight to `product`, or add it to what is there if `keep` is 1, not 0; weight: packed, or not."""
    if weight.ndim == 2:  # decided when it is compiled
        multiply(sgemm, left, start, stride, rows, weight, product, 0, keep)
    else:
        multiply_tiles(left, start, stride, rows, weight, len(product) // rows, product, 0, keep)


@compiled(error_model="numpy")
def project(
    sgemm: int,
    x: Floats,
    bias: Floats,
    epsilon: float,
    normed: Floats,
    keys_weight: Floats,
    keys: Floats,
    queries_weight: Floats,
    queries: Floats,
    step: int,
    x_of_queries: Floats,
) -> None:
    """Add bias to x (slots, width), and write the projections of its norm to `keys` and `queries`, flat.

    step: queries are of each step-th slot; if it is not 1, their x is copied to `x_of_queries` (slots / step, width).
    normed: scratch memory like x.
    """
    slots, width = x.shape
    add_and_norm(x, bias, epsilon, normed)
    flat = normed.reshape(-1)
    _multiply(sgemm, flat, 0, width, slots, keys_weight, keys, 0)
    _multiply(sgemm, flat, 0, step * width, slots // step, queries_weight, queries, 0)
    if step > 1:
        for row in range(slots // step):
            for i in range(width):
                x_of_queries[row, i] = x[step * row, i]


@compiled(error_model="numpy")
def attend_and_feed(
    sgemm: int,
    x: Floats,
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
    seen: Floats,
    scratch: Floats,
    out: Floats,
    out_bias: Floats,
    epsilon: float,
    normed: Floats,
    up: Floats,
    up_bias: Floats,
    down: Floats,
    hidden: Floats,
) -> None:
    """Add to x (slots, width) the attention of its slots, as in `attend`, and the feed-forward, without its last bias.

    out: (3 * heads, width). up: (width, 2 * hidden). down: (hidden, width). normed: scratch memory like x. hidden: for
    as many slots at a time as fit, (slots, 2 * hidden), flat; for packed weights, `BLOCK` times hidden + 32.
    """
    slots, width = x.shape
    attend(
        keys, key_rows, key_bias, queries, query_rows, query_bias, scale, rotation, origin, exists,
        slots // len(exists), seen, scratch,
    )  # fmt: skip
    flat, flat_normed = x.reshape(-1), normed.reshape(-1)
    _multiply(sgemm, seen, 0, len(seen) // slots, slots, out, flat, 1)
    add_and_norm(x, out_bias, epsilon, normed)
    if up.ndim == 2:
        _feed(sgemm, flat, flat_normed, width, slots, up, up_bias, down, hidden)
    else:
        _feed_by_tiles(flat, flat_normed, width, slots, up, up_bias, down, hidden)


@compiled(error_model="numpy")
def finish(x: Floats, bias: Floats, weight: Floats, out_bias: Floats, z: Floats) -> None:
    """Add bias to x (rows, width), and write its product with a packed weight to z (rows, columns), with out_bias."""
    rows, width = x.shape
    for row in range(rows):
        for i in range(width):
            x[row, i] += bias[i]
    columns = len(out_bias)
    multiply_tiles(x.reshape(-1), 0, width, rows, weight, columns, z.reshape(-1), 0, 0)
    for row in range(rows):
        for i in range(columns):
            z[row, i] += out_bias[i]


@compiled(error_model="numpy", inline="always")
def _feed(
    sgemm: int,
    x: Floats,
    normed: Floats,
    width: int,
    slots: int,
    up: Floats,
    up_bias: Floats,
    down: Floats,
    hidden: Floats,
) -> None:
    columns = len(up_bias)
    most = len(hidden) // columns
    for first in range(0, slots, most):
        count = min(most, slots - first)
        multiply(sgemm, normed, first * width, width, count, up, hidden, 0, 0)
        gate(hidden[: count * columns], up_bias)
        multiply(sgemm, hidden, 0, columns, count, down, x, first * width, 1)


@compiled(error_model="numpy", inline="always")
def _feed_by_tiles(
    x: Floats,
    normed: Floats,
    width: int,
    slots: int,
    up: Floats,
    up_bias: Floats,
    down: Floats,
    scratch: Floats,
) -> None:
    columns = len(up_bias) // 2
    hidden, both = scratch[: BLOCK * columns], scratch[BLOCK * columns :]
    for first in range(0, slots, BLOCK):
        count = min(BLOCK, slots - first)
        for panel in range(len(up)):
            multiply_panel(normed, first * width, width, count, up, panel, False, both, 0, COLUMNS, 0)
            gate_panel(both, count, up_bias, panel, hidden)
        for panel in range(len(down)):
            column = panel * COLUMNS
            multiply_panel(
                hidden, 0, columns, count, down, panel, width - column < COLUMNS, x, first * width + column, width, 1
            )
