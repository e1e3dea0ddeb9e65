# SPDX-License-Identifier: BSD-3-Clause
"""Calls by address: of compiled kernels, compiled again with each caller if linked into it; of C functions."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _call(context, builder, address, kinds, values):
    kind = context.call_conv.get_function_type(types.none, kinds)
    context.call_conv.call_function(builder, builder.inttoptr(address, kind.as_pointer()), types.none, kinds, values)
    return context.get_dummy_value()


@intrinsic
def call(typingctx, address, spec, work, *numbers):
    """Call a kernel (spec, work, int64 ...) at an address."""
    numbers = numbers[0] if len(numbers) == 1 and isinstance(numbers[0], types.BaseTuple) else numbers
    kinds = (spec, work, *(types.int64 for _ in numbers))

    def codegen(context, builder, sig, args):
        return _call(
            context,
            builder,
            args[0],
            kinds,
            [*args[1:3], *(builder.extract_value(args[3], i) for i in range(len(numbers)))],
        )

    return types.void(types.intp, spec, work, types.StarArgTuple([types.int64] * len(numbers))), codegen


@intrinsic
def call_row(typingctx, address, row, parameter, z, out, count):
    """Call a kernel (int64 row, float64 parameter, float64 *z, float64 *out, int64 count) at an address."""
    kinds = (types.int64, types.float64, z, out, types.int64)
    return types.void(types.intp, *kinds), lambda context, builder, sig, args: _call(
        context, builder, args[0], kinds, args[1:]
    )


@intrinsic
def call_c(typingctx, address, what, count, z, out, sign):
    """Call the C function at an address: void (int64 what, int64 count, const double *z, double *out, double *sign)."""
    if not all(a == types.CPointer(types.float64) for a in (z, out, sign)):
        return None

    def codegen(context, builder, sig, args):
        whole = ir.IntType(64)
        numbers = ir.DoubleType().as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [whole, whole, numbers, numbers, numbers])
        builder.call(builder.inttoptr(args[0], kind.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.intp, types.int64, types.int64, z, out, sign), codegen
