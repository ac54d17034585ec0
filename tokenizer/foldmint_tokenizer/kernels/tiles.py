"""Products of float32 matrices with packed weights, a tile of 12 rows and 32 columns at a time, in registers.

For AMD's CPUs with AVX-512, which MKL, torch's own BLAS, does not use there. As packed by `panels`, a weight is
(panels, inner, 32): of each 32 columns, or what is left of them, the numbers of one row after another, with zeros for
columns that do not exist.

A row's products are summed in the order of `inner`, whatever the other rows are: results do not depend on what else is
computed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding
import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

from foldmint_tokenizer.kernels.compilation import compiled
from foldmint_tokenizer.kernels.vectors import FLOATS, LANES, call, constant, load_at, number_at, splat, store_at

Floats = NDArray[np.float32]

COLUMNS = 2 * LANES
ROWS = 12
"""Of a tile: 24 of a core's 32 vector registers hold its sums."""
BLOCK = 4 * ROWS
"""Rows for which a panel stays in a core's first cache."""

_INDEX = ir.IntType(64)
# numba's decorator makes a function of a signature and a generator of instructions; it has no type for the result.
_operation: Callable[[Callable[..., Any]], Any] = intrinsic


def suits_this_cpu() -> bool:
    """Whether products by tiles are faster here than those of torch's BLAS."""
    config: Any = numba.config
    name = config.CPU_NAME or llvmlite.binding.get_host_cpu_name()
    if not str(name).startswith("znver"):
        return False
    if config.CPU_FEATURES is None:
        return bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
    return "+avx512f" in str(config.CPU_FEATURES).split(",")


def panels(weight: Floats) -> Floats:
    """A weight (inner, columns), packed."""
    inner, columns = weight.shape
    count = -(-columns // COLUMNS)
    whole = np.zeros((inner, count * COLUMNS), np.float32)
    whole[:, :columns] = weight
    return np.ascontiguousarray(whole.reshape(inner, count, COLUMNS).transpose(1, 0, 2))


def _tile(rows: int, vectors: int) -> Any:  # noqa: ANN401 (numba's own)
    """The function that computes tiles of so many rows, and so many vectors of columns."""

    # fmt: off
    @_operation
    def tile(
        _: Any, left: Any, start: Any, stride: Any, packed: Any, panel: Any,  # noqa: ANN401, ARG001
        to: Any, at: Any, apart: Any, keep: Any,  # noqa: ANN401, ARG001
    ) -> Any:  # noqa: ANN401
        # fmt: on
        """Write the product of rows of left with a panel to `to`, or add it to what is there if `keep` is 1, not 0.

        left, to: flat. The rows begin at `start` and `at`, each `stride` and `apart` after the one before.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
            left, start, stride, packed, panel, to, at, apart, keep = arguments
            left_type, _, _, packed_type, _, to_type, *_ = signature.args
            weight = make_array(packed_type)(context, builder, packed)  # type: ignore[no-untyped-call]
            inner = builder.extract_value(weight.shape, 1)
            first = number_at(context, builder, left_type, left, start)
            numbers = builder.gep(weight.data, [builder.mul(panel, builder.mul(inner, index(COLUMNS)))])
            sums = tile_sums(builder, first, stride, numbers, inner, rows, vectors)
            place = number_at(context, builder, to_type, to, at)
            added = builder.icmp_signed("!=", keep, index(0))
            for row in range(rows):
                of_row = builder.gep(place, [builder.mul(apart, index(row))])
                for vector in range(vectors):
                    where = builder.gep(of_row, [index(vector * LANES)])
                    before = builder.select(added, load_at(builder, where), constant(0.0))
                    store_at(builder, builder.fadd(before, sums[row][vector]), where)
            return context.get_dummy_value()

        size = types.intp
        return types.void(left, size, size, packed, size, to, size, size, size), generate

    return tile


def index(number: int) -> ir.Constant:
    """A number, as LLVM has indices."""
    return ir.Constant(_INDEX, number)


# fmt: off
def tile_sums(
    builder: Any, left: Any, stride: Any, numbers: Any, inner: Any, rows: int, vectors: int,  # noqa: ANN401
) -> list[list[Any]]:
    # fmt: on
    """Instructions that sum products of rows of left with a panel's numbers: vectors, row by row."""
    before, step, after = builder.block, builder.append_basic_block("step"), builder.append_basic_block("after")
    starts = [builder.gep(left, [builder.mul(stride, index(row))]) for row in range(rows)]
    builder.branch(step)
    builder.position_at_end(step)
    place = builder.phi(_INDEX)
    sums = [[builder.phi(FLOATS) for _ in range(vectors)] for _ in range(rows)]
    at = builder.gep(numbers, [builder.mul(place, index(COLUMNS))])
    weights = [load_at(builder, builder.gep(at, [index(vector * LANES)])) for vector in range(vectors)]
    following = builder.add(place, index(1))
    place.add_incoming(index(0), before)
    place.add_incoming(following, step)
    for start, of_row in zip(starts, sums, strict=True):
        factor = splat(builder, builder.load(builder.gep(start, [place])))
        for vector, held in enumerate(of_row):
            held.add_incoming(constant(0.0), before)
            held.add_incoming(call(builder, "llvm.fmuladd", factor, weights[vector], held), step)
    end = builder.cbranch(builder.icmp_signed("<", following, inner), step, after)
    # Two steps in one would need more registers than there are. LLVM asks for a node that names itself first.
    module = builder.module
    rolled = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    own = module.add_metadata([rolled, ir.MetaDataString(module, builder.function.name), index(len(module.metadata))])
    own.operands = (own, rolled)
    end.set_metadata("llvm.loop", own)
    builder.position_at_end(after)
    return [[held.incomings[1][0] for held in of_row] for of_row in sums]


_many, _one, _many_of_half, _one_of_half = (_tile(rows, vectors) for vectors in (2, 1) for rows in (ROWS, 1))


@compiled(error_model="numpy")
def multiply_panel(
    left: Floats,
    start: int,
    stride: int,
    rows: int,
    packed: Floats,
    panel: int,
    half: bool,
    to: Floats,
    at: int,
    apart: int,
    keep: int,
) -> None:
    """As a tile, for any number of rows. half: the panel has 16 columns only."""
    whole = rows - rows % ROWS
    for row in range(0, whole, ROWS):
        place, to_place = start + row * stride, at + row * apart
        if half:
            _many_of_half(left, place, stride, packed, panel, to, to_place, apart, keep)
        else:
            _many(left, place, stride, packed, panel, to, to_place, apart, keep)
    for row in range(whole, rows):
        place, to_place = start + row * stride, at + row * apart
        if half:
            _one_of_half(left, place, stride, packed, panel, to, to_place, apart, keep)
        else:
            _one(left, place, stride, packed, panel, to, to_place, apart, keep)


@compiled(error_model="numpy")
def multiply_tiles(
    left: Floats,
    start: int,
    stride: int,
    rows: int,
    packed: Floats,
    columns: int,
    to: Floats,
    at: int,
    keep: int,
) -> None:
    """Write left @ weight to `to`, or add it to what is there if `keep` is 1, not 0.

    left, to: flat. The rows of left begin at `start`, each `stride` after the one before; those of the product at `at`,
    each right after the one before. columns: of the weight, a multiple of 16.
    """
    for first in range(0, rows, BLOCK):
        count = min(BLOCK, rows - first)
        for panel in range(len(packed)):
            column = panel * COLUMNS
            multiply_panel(
                left, start + first * stride, stride, count, packed, panel, columns - column < COLUMNS,
                to, at + first * columns + column, columns, keep,
            )  # fmt: skip
