"""The encoder's layers, each compiled as a whole with its products: without the interpreter from end to end."""

import numpy as np
from numpy.typing import NDArray

from foldmint_tokenizer.kernels.compilation import compiled
from foldmint_tokenizer.kernels.encoder import Floats, Integers, add_and_norm, attend, gate
from foldmint_tokenizer.kernels.products import multiply


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
    multiply(sgemm, flat, 0, width, slots, keys_weight, keys, 0, 0)
    multiply(sgemm, flat, 0, step * width, slots // step, queries_weight, queries, 0, 0)
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
    as many slots at a time as fit, (slots, 2 * hidden), flat.
    """
    slots, width = x.shape
    attend(
        keys, key_rows, key_bias, queries, query_rows, query_bias, scale, rotation, origin, exists,
        slots // len(exists), seen, scratch,
    )  # fmt: skip
    flat, flat_normed = x.reshape(-1), normed.reshape(-1)
    multiply(sgemm, seen, 0, len(out), slots, out, flat, 0, 1)
    add_and_norm(x, out_bias, epsilon, normed)
    columns = len(up_bias)
    most = len(hidden) // columns
    for first in range(0, slots, most):
        count = min(most, slots - first)
        multiply(sgemm, flat_normed, first * width, width, count, up, hidden, 0, 0)
        gate(hidden[: count * columns], up_bias)
        multiply(sgemm, hidden, 0, columns, count, down, flat, first * width, 1)
