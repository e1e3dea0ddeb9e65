# SPDX-License-Identifier: BSD-3-Clause
"""Lanes from and to memory: pointers, loads and stores, transposes; numbers and lanes in the dtype of an array.

A flat array or pointer is always taken from its first number; indices are not negative.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pykernel.kernels.lanes import FLOAT32, FLOAT64, INT32, SCALAR, WIDTH, Lanes, constant, spread_of, vector_of


def _is_flat(kind):
    """A flat contiguous array, or a pointer to one."""
    return isinstance(kind, types.CPointer) or (isinstance(kind, types.Array) and kind.ndim == 1 and kind.layout == "C")


def _element(context, builder, kind, flat, index):
    data = flat if isinstance(kind, types.CPointer) else context.make_array(kind)(context, builder, flat).data
    return builder.gep(data, [index])


@intrinsic
def pointer(typingctx, address, like):
    """A pointer to numbers of the type of `like` at an address (or further along a flat array or pointer)."""
    if not isinstance(address, types.Integer) or not isinstance(like, types.Number):
        return None
    kind = types.CPointer(like)

    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[0], context.get_value_type(kind))

    return kind(types.intp, like), codegen


@intrinsic
def advance(typingctx, flat, count):
    """A pointer `count` numbers into a flat array or pointer."""
    if not _is_flat(flat) or not isinstance(count, types.Integer):
        return None
    return types.CPointer(flat.dtype)(flat, types.intp), lambda context, builder, sig, args: _element(
        context, builder, flat, *args
    )


@intrinsic
def address(typingctx, flat):
    """Where the numbers of a flat array lie; `array.ctypes` would say so too, but Numba keeps no such code on disk."""
    if not _is_flat(flat):
        return None

    def codegen(context, builder, sig, args):
        first = _element(context, builder, flat, args[0], context.get_constant(types.intp, 0))
        return builder.ptrtoint(first, context.get_value_type(types.intp))

    return types.intp(flat), codegen


@intrinsic
def cast_like(typingctx, number, flat):
    """A number in the dtype of a flat array or pointer."""
    if not isinstance(number, types.Number) or not _is_flat(flat):
        return None
    return flat.dtype(flat.dtype, flat), lambda context, builder, sig, args: args[0]


@intrinsic
def load(typingctx, array, index):
    """Sixteen neighbours of a flat array or pointer, from `index`."""
    if not (_is_flat(array) and isinstance(index, types.Integer)):
        return None
    lanes = Lanes(array.dtype)

    def codegen(context, builder, sig, args):
        at = builder.bitcast(_element(context, builder, sig.args[0], *args), vector_of(lanes).as_pointer())
        return builder.load(at, align=array.dtype.bitwidth // 8)

    return lanes(array, types.intp), codegen


@intrinsic
def store(typingctx, array, index, lanes):
    """Write sixteen neighbours of a flat array or pointer, from `index`; float32 lanes widen into a float64 array."""
    if not (_is_flat(array) and isinstance(lanes, Lanes)):
        return None
    if lanes.dtype != array.dtype and (lanes.dtype, array.dtype) != (types.float32, types.float64):
        return None

    def codegen(context, builder, sig, args):
        vector = ir.VectorType(SCALAR[array.dtype], WIDTH)
        value = args[2] if lanes.dtype == array.dtype else builder.fpext(args[2], vector)
        at = builder.bitcast(_element(context, builder, sig.args[0], *args[:2]), vector.as_pointer())
        builder.store(value, at, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), codegen


@intrinsic
def load_spread(typingctx, array, index):
    """Sixteen copies of one element of a flat array or pointer (index not negative: no wrap-around to test for)."""
    if not (_is_flat(array) and isinstance(index, types.Integer)):
        return None

    def codegen(context, builder, sig, args):
        return spread_of(builder, builder.load(_element(context, builder, sig.args[0], *args)))

    return Lanes(array.dtype)(array, types.intp), codegen


@intrinsic
def zero_like(typingctx, array):
    """Sixteen zeros of an array's dtype."""
    lanes = Lanes(array.dtype)
    return lanes(array), lambda context, builder, sig, args: constant(lanes, 0.0)


@intrinsic
def narrow_like(typingctx, a, array):
    """float64 lanes rounded to the dtype of an array."""
    if array.dtype == types.float64:
        return FLOAT64(FLOAT64, array), lambda context, builder, sig, args: args[0]
    return FLOAT32(FLOAT64, array), lambda context, builder, sig, args: builder.fptrunc(args[0], vector_of(FLOAT32))


@intrinsic
def transpose(typingctx, source, at, target, to):
    """Write the transpose of a 16 x 16 block: target[to + 16 j + i] = source[at + 16 i + j], of one dtype."""
    if not _is_flat(source) or source.dtype != target.dtype:
        return None
    half = WIDTH // 2
    vector = ir.VectorType(SCALAR[source.dtype], half)
    order = ir.VectorType(INT32, half)
    align = source.dtype.bitwidth // 8

    def codegen(context, builder, sig, args):
        def place(which, array, start, row, column):
            index = builder.add(start, ir.Constant(start.type, WIDTH * row + column))
            return builder.bitcast(_element(context, builder, sig.args[which], array, index), vector.as_pointer())

        def mix(a, b, lanes):
            return builder.shuffle_vector(a, b, ir.Constant(order, lanes))

        # Four blocks of 8 x 8, three rounds each, in the shuffles that stay within 128 bits first: one instruction a
        # row and round on AVX2.
        for down in (0, half):
            for right in (0, half):
                rows = [builder.load(place(0, args[0], args[1], down + i, right), align=align) for i in range(half)]
                for step, low, high in (
                    (1, [0, 8, 1, 9, 4, 12, 5, 13], [2, 10, 3, 11, 6, 14, 7, 15]),
                    (2, [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]),
                    (4, [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15]),
                ):
                    mixed = {}
                    for i in range(half):
                        if not i & step:
                            mixed[i], mixed[i + step] = (
                                mix(rows[i], rows[i + step], low),
                                mix(rows[i], rows[i + step], high),
                            )
                    rows = [mixed[i] for i in range(half)]
                # After the rounds row i holds column c(i): the two low bits of the index come out swapped.
                for i, row in enumerate(rows):
                    column = (i & 4) | ((i & 1) << 1) | ((i & 2) >> 1)
                    builder.store(row, place(2, args[2], args[3], right + column, down), align=align)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), codegen
