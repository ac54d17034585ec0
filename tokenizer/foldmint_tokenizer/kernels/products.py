"""Products of float32 matrices inside compiled functions, by torch's own BLAS.

`torch.mm` calls the same function, from Python: many small products would each wait for the interpreter's lock.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

_LIBRARIES = ("libtorch_cpu.so", "libtorch_cpu.dylib")

_FLOAT, _INT, _BYTE = ir.FloatType(), ir.IntType(32), ir.IntType(8)
_NUMBERS, _INTS, _BYTES = _FLOAT.as_pointer(), _INT.as_pointer(), _BYTE.as_pointer()
# sgemm(transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) of the reference BLAS, all by reference.
_SGEMM = ir.FunctionType(
    ir.VoidType(),
    [_BYTES, _BYTES, _INTS, _INTS, _INTS, _NUMBERS, _NUMBERS, _INTS, _NUMBERS, _INTS, _NUMBERS, _NUMBERS, _INTS],
)

# numba's decorator makes a function of a signature and a generator of instructions; it has no type for the result.
_operation: Callable[[Callable[..., Any]], Any] = intrinsic


@cache
def sgemm_address() -> int | None:
    """Where torch's `sgemm` is in this process; None if torch's library does not export it."""
    for name in _LIBRARIES:
        path = Path(torch.__file__).parent / "lib" / name
        if path.exists():
            function = getattr(ctypes.CDLL(str(path)), "sgemm_", None)
            return ctypes.cast(function, ctypes.c_void_p).value if function is not None else None
    return None


# fmt: off
@_operation
def multiply(
    _: Any, sgemm: Any, left: Any, start: Any, stride: Any, rows: Any,  # noqa: ANN401, ARG001
    weight: Any, product: Any, to: Any, keep: Any,  # noqa: ANN401, ARG001
) -> Any:  # noqa: ANN401
    # fmt: on
    """Write left @ weight to `product`, or add it to what is there if `keep` is 1, not 0.

    sgemm: its address. left, product: flat, float32. rows of left begin at `start`, each `stride` after the one before.
    weight: (inner, columns), contiguous. Rows of the product begin at `to`, each right after the one before.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
        sgemm, left, start, stride, rows, weight, product, to, keep = arguments
        _, left_type, *_, weight_type, product_type, _, _ = signature.args

        def data(kind: Any, array: Any) -> Any:  # noqa: ANN401
            return make_array(kind)(context, builder, array)  # type: ignore[no-untyped-call]

        def passed(value: Any) -> Any:  # noqa: ANN401
            return cgutils.alloca_once_value(builder, value)  # type: ignore[no-untyped-call]

        def integer(value: Any) -> Any:  # noqa: ANN401
            return passed(builder.trunc(value, _INT))

        matrix = data(weight_type, weight)
        inner, columns = cgutils.unpack_tuple(builder, matrix.shape, 2)  # type: ignore[no-untyped-call]
        normal = passed(ir.Constant(_BYTE, ord("N")))
        # Row by row here is column by column there, with the factors exchanged.
        builder.call(
            builder.inttoptr(sgemm, _SGEMM.as_pointer()),
            [
                normal,
                normal,
                integer(columns),
                integer(rows),
                integer(inner),
                passed(ir.Constant(_FLOAT, 1.0)),
                builder.bitcast(matrix.data, _NUMBERS),
                integer(columns),
                builder.gep(builder.bitcast(data(left_type, left).data, _NUMBERS), [start]),
                integer(stride),
                passed(builder.sitofp(keep, _FLOAT)),
                builder.gep(builder.bitcast(data(product_type, product).data, _NUMBERS), [to]),
                integer(columns),
            ],
        )
        return context.get_dummy_value()

    size = types.intp
    return types.void(size, left, size, size, size, weight, product, size, size), generate
