# SPDX-License-Identifier: BSD-3-Clause
"""Sixteen lanes as one Numba value: the vector that every kernel in this folder is written in.

A loop left to the compiler may or may not become vector code; these values always do, on AVX2 as two registers and on
AVX-512 as one. Nothing is contracted or reassociated: `fma` is one rounding, everything else rounds as written, so bits
do not depend on the processor.
"""

from __future__ import annotations

import operator

from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

WIDTH = 16


class Lanes(types.Type):
    """The Numba type of sixteen numbers of one dtype (float32, float64, uint32 or boolean)."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"Lanes({dtype})")


FLOAT32, FLOAT64, UINT32, MASK = (Lanes(t) for t in (types.float32, types.float64, types.uint32, types.boolean))
SCALAR = {
    types.float32: ir.FloatType(),
    types.float64: ir.DoubleType(),
    types.uint32: ir.IntType(32),
    types.boolean: ir.IntType(1),
}
_SUFFIX = {types.float32: "v16f32", types.float64: "v16f64"}
INT32 = ir.IntType(32)


def vector_of(lanes):
    return ir.VectorType(SCALAR[lanes.dtype], WIDTH)


@register_model(Lanes)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, lanes):
        super().__init__(manager, lanes, vector_of(lanes))


def _is_float(kind):
    return isinstance(kind, Lanes) and kind.dtype in _SUFFIX


def _is_word(kind):
    return isinstance(kind, Lanes) and kind.dtype == types.uint32


def spread_of(builder, scalar, count=WIDTH):
    vector = ir.VectorType(scalar.type, count)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(INT32, 0))
    return builder.shuffle_vector(
        one, ir.Constant(vector, ir.Undefined), ir.Constant(ir.VectorType(INT32, count), [0] * count)
    )


def constant(lanes, number):
    return ir.Constant(vector_of(lanes), [number] * WIDTH)


def _call(builder, name, lanes, args):
    vector = vector_of(lanes)
    kind = ir.FunctionType(vector, [vector] * len(args))
    module = builder.module
    full = f"llvm.{name}.{_SUFFIX[lanes.dtype]}"
    function = module.globals.get(full) or ir.Function(module, kind, name=full)
    return builder.call(function, args)


def _operator(symbol, float_op, word_op):
    class Typing(AbstractTemplate):
        def generic(self, args, kws):
            left, right = args
            if not isinstance(left, Lanes) or (float_op if left.dtype in _SUFFIX else word_op) is None:
                return None
            if left == right or isinstance(right, types.Number):
                return signature(left, left, right if isinstance(right, Lanes) else left.dtype)
            return None

    infer_global(symbol)(Typing)

    def lower(context, builder, sig, args):
        left, right = args
        if not isinstance(sig.args[1], Lanes):
            right = spread_of(builder, right)
        return getattr(builder, float_op if sig.args[0].dtype in _SUFFIX else word_op)(left, right)

    lower_builtin(symbol, Lanes, Lanes)(lower)
    lower_builtin(symbol, Lanes, types.Number)(lower)


for _symbol, _float, _word in (
    (operator.add, "fadd", "add"),
    (operator.sub, "fsub", "sub"),
    (operator.mul, "fmul", None),
    (operator.truediv, "fdiv", None),
    (operator.and_, None, "and_"),
    (operator.or_, None, "or_"),
    (operator.xor, None, "xor"),
    (operator.lshift, None, "shl"),
    (operator.rshift, None, "lshr"),
):
    _operator(_symbol, _float, _word)


@intrinsic
def spread(typingctx, scalar):
    """Sixteen copies of a float32, float64 or uint32."""
    if scalar not in SCALAR:
        return None
    return Lanes(scalar)(scalar), lambda context, builder, sig, args: spread_of(builder, args[0])


@intrinsic
def count_from(typingctx, start):
    """uint32 start, start + 1, ... start + 15 (modulo 2^32)."""

    def codegen(context, builder, sig, args):
        return builder.add(spread_of(builder, args[0]), ir.Constant(vector_of(UINT32), list(range(WIDTH))))

    return UINT32(types.uint32), codegen


@intrinsic
def fma(typingctx, a, b, c):
    """a * b + c with one rounding."""
    if not _is_float(a) or a != b or a != c:
        return None
    return a(a, a, a), lambda context, builder, sig, args: _call(builder, "fma", a, args)


def _unary(name, text):
    @intrinsic
    def function(typingctx, a):
        if not _is_float(a):
            return None
        return a(a), lambda context, builder, sig, args: _call(builder, name, a, args)

    function.__doc__ = text
    return function


sqrt = _unary("sqrt", "Square root of each lane.")
rint = _unary("rint", "Each lane to the nearest integer, halves to even.")
absolute = _unary("fabs", "Magnitude of each lane.")


def each(scalar):
    """A function of float64 lanes: a scalar function of `math`, lane by lane."""

    @intrinsic
    def function(typingctx, a):
        if a != FLOAT64:
            return None
        kind = typingctx.resolve_value_type(scalar)
        inner = kind.get_call_type(typingctx, (types.float64,), {})

        def codegen(context, builder, sig, args):
            call = context.get_function(kind, inner)
            out = ir.Constant(vector_of(a), ir.Undefined)
            for lane in range(WIDTH):
                at = ir.Constant(INT32, lane)
                out = builder.insert_element(out, call(builder, [builder.extract_element(args[0], at)]), at)
            return out

        return a(a), codegen

    return function


def _choice(comparison, text):
    @intrinsic
    def function(typingctx, a, b):
        if not _is_float(a) or a != b:
            return None

        def codegen(context, builder, sig, args):
            return builder.select(builder.fcmp_ordered(comparison, *args), *args)

        return a(a, a), codegen

    function.__doc__ = text
    return function


larger = _choice(">", "a where a > b, else b (b where either is nan).")
smaller = _choice("<", "a where a < b, else b (b where either is nan).")


def _comparison(comparison, signed, text):
    @intrinsic
    def function(typingctx, a, b):
        if not isinstance(a, Lanes) or a != b:
            return None

        def codegen(context, builder, sig, args):
            return (builder.fcmp_ordered if _is_float(a) else builder.icmp_unsigned)(comparison, *args)

        return MASK(a, a), codegen

    function.__doc__ = text
    return function


less = _comparison("<", False, "Mask of a < b (words unsigned).")
greater = _comparison(">", False, "Mask of a > b (words unsigned).")


@intrinsic
def where(typingctx, mask, a, b):
    """a where the mask is set, else b."""
    if mask != MASK or a != b:
        return None
    return a(mask, a, a), lambda context, builder, sig, args: builder.select(*args)


@intrinsic
def as_words(typingctx, a):
    """The bits of float32 lanes."""
    return UINT32(FLOAT32), lambda context, builder, sig, args: builder.bitcast(args[0], vector_of(UINT32))


@intrinsic
def as_floats(typingctx, a):
    """Words read as float32 bits."""
    return FLOAT32(UINT32), lambda context, builder, sig, args: builder.bitcast(args[0], vector_of(FLOAT32))


@intrinsic
def from_signed(typingctx, words):
    """Words as int32, converted to float32."""
    return FLOAT32(UINT32), lambda context, builder, sig, args: builder.sitofp(args[0], vector_of(FLOAT32))


@intrinsic
def to_signed(typingctx, a):
    """float32 lanes in the range of int32, converted to int32 (as words)."""
    return UINT32(FLOAT32), lambda context, builder, sig, args: builder.fptosi(args[0], vector_of(UINT32))


@intrinsic
def shift_signed(typingctx, words, places):
    """Words as int32, shifted right with their sign."""
    if not isinstance(places, types.Integer):
        return None

    def codegen(context, builder, sig, args):
        return builder.ashr(args[0], spread_of(builder, args[1]))

    return UINT32(UINT32, types.uint32), codegen


@intrinsic
def widen(typingctx, a):
    """Lanes as float64."""
    if a == FLOAT64:
        return FLOAT64(FLOAT64), lambda context, builder, sig, args: args[0]
    return FLOAT64(FLOAT32), lambda context, builder, sig, args: builder.fpext(args[0], vector_of(FLOAT64))


@intrinsic
def to_format(typingctx, a, fraction, lowest, largest, beyond):
    """Lanes as a number format holds them, to nearest, ties to even: see csrc/kernels/round-inl.hpp, the same bits.

    Args:
        fraction, lowest: int64, bits behind the leading one and log2 of the smallest normal number.  largest, beyond:
            float64, the largest magnitude and what lies beyond it.
    """
    if not _is_float(a):
        return None

    def codegen(context, builder, sig, args):
        x, fraction, lowest = args[:3]
        width, total, bias = (32, 23, 127) if a.dtype == types.float32 else (64, 52, 1023)
        integer, vector = ir.IntType(width), vector_of(a)
        wide = ir.VectorType(integer, WIDTH)
        spread_int = lambda n: spread_of(builder, builder.trunc(n, integer) if width == 32 else n)
        cast = lambda n: builder.fptrunc(n, ir.FloatType()) if width == 32 else n
        whole = ir.IntType(64)
        of = lambda n: ir.Constant(whole, n)
        one = ir.Constant(wide, [1] * WIDTH)
        power = lambda n: builder.bitcast(
            builder.shl(spread_int(builder.add(n, of(bias))), ir.Constant(wide, [total] * WIDTH)), vector
        )
        drop = builder.sub(of(total), fraction)
        drops = spread_int(drop)
        unit = builder.shl(one, drops)
        half = builder.sub(builder.lshr(unit, one), one)
        size = _call(builder, "fabs", a, [x])
        bits = builder.bitcast(size, wide)
        odd = builder.and_(builder.lshr(bits, drops), one)
        even = builder.and_(
            builder.add(builder.add(bits, half), odd), builder.sub(ir.Constant(wide, [0] * WIDTH), unit)
        )
        lift = power(builder.add(lowest, drop))
        low = builder.fsub(builder.fadd(size, lift), lift)
        out = builder.select(builder.fcmp_ordered("<", size, power(lowest)), low, builder.bitcast(even, vector))
        most, far = (spread_of(builder, cast(n)) for n in args[3:])
        out = builder.select(builder.fcmp_ordered(">", out, most), far, out)
        out = _call(builder, "copysign", a, [out, x])
        return builder.select(builder.fcmp_unordered("uno", x, x), x, out)

    return a(a, types.int64, types.int64, types.float64, types.float64), codegen


@intrinsic
def two_to(typingctx, n):
    """2^n for float64 lanes of integers in [-1022, 1023]."""

    def codegen(context, builder, sig, args):
        wide = ir.VectorType(ir.IntType(64), WIDTH)
        bits = builder.fptosi(args[0], vector_of(UINT32))
        bits = builder.add(builder.sext(bits, wide), ir.Constant(wide, [1023] * WIDTH))
        return builder.bitcast(builder.shl(bits, ir.Constant(wide, [52] * WIDTH)), vector_of(FLOAT64))

    return FLOAT64(FLOAT64), codegen


@intrinsic
def multiply_wide(typingctx, words, factor):
    """(upper, lower) halves of the 64-bit products of words and one uint32."""
    pair = types.UniTuple(UINT32, 2)

    def codegen(context, builder, sig, args):
        # Even and odd lanes apart: one 32 x 32 -> 64 multiply instruction each, no widening shuffles.
        wide = ir.VectorType(ir.IntType(64), WIDTH // 2)
        low = ir.Constant(wide, [0xFFFFFFFF] * (WIDTH // 2))
        up = ir.Constant(wide, [32] * (WIDTH // 2))
        both = builder.bitcast(args[0], wide)
        by = spread_of(builder, builder.zext(args[1], ir.IntType(64)), WIDTH // 2)
        even = builder.mul(builder.and_(both, low), by)
        odd = builder.mul(builder.lshr(both, up), by)
        even, odd = (builder.bitcast(v, vector_of(UINT32)) for v in (even, odd))
        order = ir.VectorType(INT32, WIDTH)
        upper = builder.shuffle_vector(
            even, odd, ir.Constant(order, [i + 1 if i % 2 == 0 else WIDTH + i for i in range(WIDTH)])
        )
        lower = builder.shuffle_vector(
            even, odd, ir.Constant(order, [i if i % 2 == 0 else WIDTH + i - 1 for i in range(WIDTH)])
        )
        return context.make_tuple(builder, sig.return_type, [upper, lower])

    return pair(UINT32, types.uint32), codegen


def polynomial(coefficients):
    """A function of lanes: the polynomial with these coefficients, lowest power first, by Horner's rule."""
    coefficients = tuple(coefficients)

    @intrinsic
    def evaluate(typingctx, x):
        if not _is_float(x):
            return None

        def codegen(context, builder, sig, args):
            y = constant(x, coefficients[-1])
            for c in coefficients[-2::-1]:
                y = _call(builder, "fma", x, [y, args[0], constant(x, c)])
            return y

        return x(x), codegen

    return evaluate


def _fold(combine, text):
    @intrinsic
    def function(typingctx, a):
        if not _is_float(a):
            return None

        def codegen(context, builder, sig, args):
            value = args[0]
            half = WIDTH // 2
            while half:
                order = ir.VectorType(INT32, half)
                undefined = ir.Constant(value.type, ir.Undefined)
                left = builder.shuffle_vector(value, undefined, ir.Constant(order, list(range(half))))
                right = builder.shuffle_vector(value, undefined, ir.Constant(order, list(range(half, 2 * half))))
                value = combine(builder, left, right)
                half //= 2
            return builder.extract_element(value, ir.Constant(INT32, 0))

        return a.dtype(a), codegen

    function.__doc__ = text
    return function


total = _fold(
    lambda builder, a, b: builder.fadd(a, b),
    "Sum of the lanes by a fixed tree: lane j + lane j + 8, then + 4, + 2, + 1.",
)
largest = _fold(lambda builder, a, b: builder.select(builder.fcmp_unordered(">", a, b), a, b), "Largest lane.")
