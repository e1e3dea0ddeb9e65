# SPDX-License-Identifier: BSD-3-Clause
"""An input that arrives on the way; the gradient that comes back to it goes no further."""

from __future__ import annotations

import math

import numpy as np

from pykernel import stream
from pykernel.kernels import blocks, jit
from pykernel.kernels.memory import advance, cast_like
from pykernel.kernels.records import (
    BLOCK,
    COLUMNS,
    IN,
    OUT,
    UNITS,
    E,
    block,
    count,
    entry,
    first,
    shape,
    slot,
    stream_address,
    take,
    write,
)
from pykernel.program import by_powers_of_two

NUMBERS = ("drives", "drive", "drive_at", "drive_e")


def numbers(program):
    """Units of each; the caller's as blocks one after another (None: drawn), where each begins, and their exponents."""
    if program.drive is None:
        return program.drives, None, None, None
    taken, powers = by_powers_of_two(program.drive, program.exponent)
    packed = [blocks.pack(array, program.dtype) for array in taken]
    lengths = np.array([len(array) for array in packed], np.int64)
    return (
        program.drives,
        np.concatenate(packed),
        np.cumsum(lengths) - lengths,
        np.frexp(powers)[1].astype(np.int64) - 1,
    )


def result(program, number, n, B):
    """Units and columns of the result."""
    return program.drives[number], B


@jit
def draw(spec, work, x, layer, replica):
    """Fill the block of a slot with input number `layer`: 0 is the chain's own."""
    n, B, a = x[UNITS], x[COLUMNS], block(spec, x[BLOCK])
    where = stream_address(layer, stream.INPUT)
    blocks.draw_tall(a, n, B, False, spec.key0, spec.key1, where, np.uint32(replica))
    if spec.correlation == 0.0:
        return
    v, where = block(spec, work.vector), stream_address(layer, stream.INPUT_COMMON)
    blocks.draw_tall(v, n, 1, False, spec.key0, spec.key1, where, np.uint32(replica))
    own, common = math.sqrt(1 - spec.correlation), math.sqrt(spec.correlation)
    for i in range(count(x)):
        a[i] = cast_like(common * float(v[i // (16 * B) * 16 + i % 16]) + own * float(a[i]), a)


@jit
def forward(spec, work, op, k, replica, index):
    x, e = slot(work, first(spec)), 0
    shape(x, entry(spec.drives, k), slot(work, entry(op, IN))[COLUMNS])
    if spec.drive != 0:
        given = advance(block(spec, spec.drive), entry(spec.drive_at, k))
        blocks.copy(given, 0, block(spec, x[BLOCK]), 0, count(x))
        e = entry(spec.drive_e, k)
    else:
        draw(spec, work, x, k + 1, replica)
    x[E] = blocks.renormalise(block(spec, x[BLOCK]), count(x), e, spec.bound)
    write(work, entry(op, OUT), first(spec))


@jit
def backward(spec, work, op, k, replica, index):
    take(spec, work, entry(op, OUT))


FORWARD = (forward,)
BACKWARD = (backward,)
