"""Vectors of 16 float32 numbers in compiled functions: one AVX-512 register, or several smaller ones.

For functions whose inner loops are too short for the compiler to vectorize. Operations become LLVM's vector operations,
which it translates for any CPU; NaN propagates through all of them.

numba's cached functions do not notice a change of this module, nor of functions of other modules that they call:
remove `__pycache__` after one.
"""

import operator
from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable
from numba.np.arrayobj import make_array

LANES = 16

FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(32), LANES)
_ALIGNED = 4  # bytes; of any float32

# exp(x) = 2^n exp(r) with n = round(x / ln 2). Adding 1.5 * 2^23 rounds to an integer, and leaves it in the lowest
# bits; the bias of the exponent, 127, is added with it. ln 2 in two parts; the polynomial is Cephes' expf.
_LEAST, _MOST = -87.0, 88.0
_ROUND = 1.5 * 2.0**23 + 127
_PER_LN2, _LN2_HIGH, _LN2_LOW = 1.44269504088896341, 0.693359375, -2.12194440e-4
_POLYNOMIAL = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)


class _Float32x16(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float32x16")


float32x16 = _Float32x16()

# numba's decorator makes a function of a signature and a generator of instructions; it has no type for the result.
_operation: Callable[[Callable[..., Any]], Any] = intrinsic


@register_model(_Float32x16)
class _Float32x16Model(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:  # noqa: ANN401 (numba's own)
        super().__init__(dmm, fe_type, FLOATS)  # type: ignore[no-untyped-call]


def constant(value: float) -> ir.Constant:
    """A vector of 16 times the same number, for LLVM."""
    return ir.Constant(FLOATS, [value] * LANES)


def splat(builder: Any, number: Any) -> Any:  # noqa: ANN401 (LLVM's)
    """Instructions that make a vector of 16 times the same number."""
    first = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(_INTEGERS, [0] * LANES)
    return builder.shuffle_vector(first, ir.Constant(FLOATS, ir.Undefined), zeros)


def load_at(builder: Any, place: Any) -> Any:  # noqa: ANN401
    """Instructions that read the vector at a pointer to its first number."""
    value = builder.load(builder.bitcast(place, FLOATS.as_pointer()))
    value.align = _ALIGNED
    return value


def store_at(builder: Any, vector: Any, place: Any) -> None:  # noqa: ANN401
    """Instructions that write a vector to a pointer to its first number."""
    written = builder.store(vector, builder.bitcast(place, FLOATS.as_pointer()))
    written.align = _ALIGNED


def number_at(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:  # noqa: ANN401
    """A pointer to a number of a contiguous array, for LLVM."""
    return builder.gep(make_array(array_type)(context, builder, array).data, [index])  # type: ignore[no-untyped-call]


def call(builder: Any, name: str, *arguments: Any) -> Any:  # noqa: ANN401
    """Instructions that call one of LLVM's functions on vectors."""
    kind = ir.FunctionType(FLOATS, [FLOATS] * len(arguments))
    function = builder.module.globals.get(f"{name}.v{LANES}f32") or ir.Function(
        builder.module, kind, f"{name}.v{LANES}f32"
    )
    return builder.call(function, arguments)


@_operation
def load(_: Any, array: Any, index: Any) -> Any:  # noqa: ANN401, ARG001
    """The numbers array[index : index + 16] of a contiguous array (numbers,), float32."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
        return load_at(builder, number_at(context, builder, signature.args[0], *arguments))

    return float32x16(array, types.intp), generate


@_operation
def store(_: Any, array: Any, index: Any, vector: Any) -> Any:  # noqa: ANN401, ARG001
    """Write a vector to array[index : index + 16]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
        store_at(builder, arguments[2], number_at(context, builder, signature.args[0], *arguments[:2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@_operation
def broadcast(_: Any, number: Any) -> Any:  # noqa: ANN401, ARG001
    """A vector of 16 times the same number."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
        return splat(builder, arguments[0])

    return float32x16(types.float32), generate


def _operator(function: Callable[..., Any], instruction: str) -> None:
    """Let an operator of Python work on two vectors."""

    @type_callable(function)
    def _typer(_: Any) -> Any:  # noqa: ANN401
        def result(left: Any, right: Any) -> Any:  # noqa: ANN401
            return float32x16 if left == float32x16 and right == float32x16 else None

        return result

    @lower_builtin(function, float32x16, float32x16)  # type: ignore[no-untyped-call, untyped-decorator]
    def _generate(_context: Any, builder: Any, _signature: Any, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
        return getattr(builder, instruction)(*arguments)


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_function, _instruction)


@_operation
def multiply_add(_: Any, left: Any, right: Any, addend: Any) -> Any:  # noqa: ANN401
    """left * right + addend, with one rounding where the CPU can."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
        return call(builder, "llvm.fmuladd", *arguments)

    return float32x16(left, right, addend), generate


@_operation
def square_root(_: Any, vector: Any) -> Any:  # noqa: ANN401
    """The square root of each number."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
        return call(builder, "llvm.sqrt", *arguments)

    return float32x16(vector), generate


@_operation
def maximum(_: Any, left: Any, right: Any) -> Any:  # noqa: ANN401
    """The greater number of each pair; the left one if either is NaN."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
        return builder.select(builder.fcmp_ordered("<", *arguments), arguments[1], arguments[0])

    return float32x16(left, right), generate


@_operation
def total(_: Any, vector: Any) -> Any:  # noqa: ANN401
    """The sum of the numbers: of pairs that are 8, then 4, 2 and 1 apart."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
        found, apart = arguments[0], LANES // 2
        while apart:
            places = ir.Constant(_INTEGERS, [(lane + apart) % LANES for lane in range(LANES)])
            found = builder.fadd(found, builder.shuffle_vector(found, ir.Constant(FLOATS, ir.Undefined), places))
            apart //= 2
        return builder.extract_element(found, ir.Constant(ir.IntType(32), 0))

    return types.float32(vector), generate


@_operation
def exponential(_: Any, vector: Any) -> Any:  # noqa: ANN401
    """e to the power of each number, to 2 units in the last place; numbers are limited to -87 to 88 first."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Sequence[Any]) -> Any:  # noqa: ANN401
        x = arguments[0]
        for limit, side in ((_LEAST, "<"), (_MOST, ">")):
            x = builder.select(builder.fcmp_ordered(side, x, constant(limit)), constant(limit), x)
        shifted = call(builder, "llvm.fmuladd", x, constant(_PER_LN2), constant(_ROUND))
        exponent = builder.shl(builder.bitcast(shifted, _INTEGERS), ir.Constant(_INTEGERS, [23] * LANES))
        n = builder.fsub(shifted, constant(_ROUND))
        r = call(builder, "llvm.fmuladd", n, constant(-_LN2_HIGH), x)
        r = call(builder, "llvm.fmuladd", n, constant(-_LN2_LOW), r)
        power = constant(_POLYNOMIAL[0])
        for coefficient in _POLYNOMIAL[1:]:
            power = call(builder, "llvm.fmuladd", power, r, constant(coefficient))
        power = call(builder, "llvm.fmuladd", power, builder.fmul(r, r), builder.fadd(r, constant(1.0)))
        return builder.fmul(power, builder.bitcast(exponent, FLOATS))

    return float32x16(vector), generate
