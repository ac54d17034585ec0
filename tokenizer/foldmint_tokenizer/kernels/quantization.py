"""The nearest of a codebook's vectors, found tile by tile, in registers: no array of distances is written.

With z' = (z, 1) and e' = (-2e, |e|²), the product z'·e' is |z - e|² less |z|², which all codes have in common. In
float32 most of its digits cancel where codes are near. Of every LANES-th code the least is kept; those of them that it
cannot tell apart are compared by their differences from z, in float64.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array
from numpy.typing import NDArray

from foldmint_tokenizer.kernels.compilation import compiled
from foldmint_tokenizer.kernels.tiles import BLOCK, COLUMNS, ROWS, index, panels, tile_sums
from foldmint_tokenizer.kernels.vectors import LANES, load_at, number_at, store_at

Floats = NDArray[np.float32]
Places = NDArray[np.int32]

_VECTORS = COLUMNS // LANES
# Of |z|², by which z'·e' of two codes must differ to be told apart: several times what float32 rounds off.
_MARGIN = np.float32(2.0**-17)
_PLACES = ir.VectorType(ir.IntType(32), LANES)
_ALIGNED = 4  # bytes
# numba's decorator makes a function of a signature and a generator of instructions; it has no type for the result.
_operation: Callable[[Callable[..., Any]], Any] = intrinsic


def packed_codes(embeddings: Floats) -> Floats:
    """e' of codes (codes, out), as `panels` packs them; of codes that do not exist, the square is infinite."""
    codes, out = embeddings.shape
    whole = np.zeros((out + 1, -(-codes // COLUMNS) * COLUMNS), np.float32)
    whole[:out, :codes] = -2 * embeddings.T
    whole[out] = np.inf
    whole[out, :codes] = np.square(embeddings).sum(1)
    return panels(whole)


def _tile(rows: int) -> Any:  # noqa: ANN401 (numba's own)
    """The function that compares so many vectors with a panel's codes."""

    # fmt: off
    @_operation
    def compare(
        _: Any, left: Any, start: Any, stride: Any, packed: Any, panel: Any, least: Any, places: Any, at: Any,  # noqa: ANN401, ARG001
    ) -> Any:  # noqa: ANN401
        # fmt: on
        """Where a code is nearer than those before, write its value to `least`, and which it is to `places`.

        left, least, places: flat. The vectors begin at `start`, each `stride` after the one before. Each has LANES
        numbers in `least` and in `places`, from `at` on, one for every LANES-th code.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
            left, start, stride, packed, panel, least, places, at = arguments
            left_type, _, _, packed_type, _, least_type, places_type, _ = signature.args
            weight = make_array(packed_type)(context, builder, packed)  # type: ignore[no-untyped-call]
            inner = builder.extract_value(weight.shape, 1)
            first = number_at(context, builder, left_type, left, start)
            numbers = builder.gep(weight.data, [builder.mul(panel, builder.mul(inner, index(COLUMNS)))])
            sums = tile_sums(builder, first, stride, numbers, inner, rows, _VECTORS)
            here = builder.trunc(builder.mul(panel, index(_VECTORS)), ir.IntType(32))
            values = number_at(context, builder, least_type, least, at)
            kept = number_at(context, builder, places_type, places, at)
            for row, of_row in enumerate(sums):
                where, which = (builder.gep(one, [index(row * LANES)]) for one in (values, kept))
                which = builder.bitcast(which, _PLACES.as_pointer())
                best, place = load_at(builder, where), builder.load(which)
                place.align = _ALIGNED
                for vector, value in enumerate(of_row):
                    own = builder.add(here, ir.Constant(ir.IntType(32), vector))
                    nearer = builder.fcmp_ordered("<", value, best)
                    best = builder.select(nearer, value, best)
                    place = builder.select(nearer, _everywhere(builder, own), place)
                store_at(builder, best, where)
                builder.store(place, which).align = _ALIGNED
            return context.get_dummy_value()

        size = types.intp
        return types.void(left, size, size, packed, size, least, places, size), generate

    return compare


def _everywhere(builder: Any, number: Any) -> Any:  # noqa: ANN401 (LLVM's)
    """A vector of LANES times the same integer."""
    nothing = ir.Constant(_PLACES, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(_PLACES, [0] * LANES))


_many, _one = _tile(ROWS), _tile(1)


@compiled(error_model="numpy")
def nearest_codes(z: Floats, embeddings: Floats, packed: Floats, codes: NDArray[np.int64], distances: Floats) -> None:
    """Write each vector's nearest code, of several the first, and the Euclidean distance to it.

    z: (rows, out). embeddings: (codes, out). packed: of `packed_codes`. codes, distances: (rows,). The distance of a
    vector that is not finite is not finite either.
    """
    rows, out = z.shape
    inner = out + 1
    given = np.empty(BLOCK * inner, np.float32)
    # Of every LANES-th code: the smallest value so far, and which of them has it.
    least = np.empty(BLOCK * LANES, np.float32)
    places = np.empty(BLOCK * LANES, np.int32)
    for first in range(0, rows, BLOCK):
        count = min(BLOCK, rows - first)
        for row in range(count):
            for i in range(out):
                given[row * inner + i] = z[first + row, i]
            given[row * inner + out] = 1
        least[:] = np.inf
        places[:] = 0
        whole = count - count % ROWS
        for panel in range(len(packed)):
            for row in range(0, whole, ROWS):
                _many(given, row * inner, inner, packed, panel, least, places, row * LANES)
            for row in range(whole, count):
                _one(given, row * inner, inner, packed, panel, least, places, row * LANES)
        for row in range(count):
            own = row * LANES
            best = least[own]
            square = np.float32(0)
            for lane in range(1, LANES):
                best = min(best, least[own + lane])
            for i in range(out):
                square += z[first + row, i] * z[first + row, i]
            limit = best + _MARGIN * square
            code, nearest = np.int64(-1), np.inf
            for lane in range(LANES):
                other = np.int64(places[own + lane]) * LANES + lane
                if least[own + lane] > limit or other >= len(embeddings):
                    continue
                apart = 0.0
                for i in range(out):
                    step = np.float64(z[first + row, i]) - embeddings[other, i]
                    apart += step * step
                if code < 0 or apart < nearest or (apart == nearest and other < code):
                    code, nearest = other, apart
            codes[first + row] = code
            distances[first + row] = np.sqrt(nearest)
