# SPDX-License-Identifier: BSD-3-Clause
"""A gate: phi(g) * v entry by entry; g and v are kept. Products are in float64, so that blocks of any size may meet."""

from __future__ import annotations

import math

from numba.extending import register_jitable

from pykernel.kernels import activate, blocks, jit
from pykernel.kernels.memory import pointer
from pykernel.kernels.ops.phi import DEAD, FACTOR, SATURATED
from pykernel.kernels.records import (
    BEGINS,
    BLOCK,
    COLUMNS,
    IN,
    KEPT_E,
    KEPT_E2,
    OUT,
    SECOND_IN,
    UNITS,
    E,
    block,
    count,
    entry,
    first,
    give,
    log10_norm,
    pop,
    push,
    put,
    second,
    shape,
    slot,
    take,
    write,
)


def tape(program, number, n, B, item):
    """Bytes on the tape."""
    return kept(n, B, item)


@register_jitable
def kept(n, B, item):
    """Bytes on the tape for n units and B columns."""
    return 2 * ((n + 15) // 16 * 16 * B * item)


@jit
def forward(spec, work, op, k, replica, index):
    """phi(g) * v."""
    g, v, out = slot(work, entry(op, IN)), slot(work, entry(op, SECOND_IN)), slot(work, first(spec))
    n, B, size = g[UNITS], g[COLUMNS], count(g)
    foot = push(work, kept(n, B, spec.item), n, B)
    at = work.tape + foot[BEGINS]
    blocks.copy(block(spec, g[BLOCK]), 0, block(spec, at), 0, size)
    blocks.copy(block(spec, v[BLOCK]), 0, block(spec, at), size, size)
    foot[KEPT_E], foot[KEPT_E2] = g[E], v[E]
    shape(out, n, B)
    y = block(spec, out[BLOCK])
    e = activate.values(spec, work, entry(spec.step_row, k), block(spec, at), g[E], y, n, B)
    out[E] = blocks.multiply(y, e, block(spec, v[BLOCK]), v[E], y, pointer(work.wide1, 1.0), size, spec.bound)
    write(work, entry(op, OUT), first(spec))


@jit
def backward(spec, work, op, k, replica, index):
    """phi(g) times the gradient for v, phi'(g) v times it for g."""
    take(spec, work, entry(op, OUT))
    foot, x, y = pop(work), slot(work, first(spec)), slot(work, second(spec))
    n, B, size, phi = x[UNITS], x[COLUMNS], count(x), entry(spec.step_row, k)
    at, e_g, wide = work.tape + foot[BEGINS], foot[KEPT_E], pointer(work.wide1, 1.0)
    g, v, out, dv = block(spec, at), block(spec, at + size * spec.item), block(spec, x[BLOCK]), block(spec, y[BLOCK])
    before = log10_norm(spec, x)
    shape(y, n, B)
    e = activate.values(spec, work, phi, g, e_g, dv, n, B)
    y[E] = blocks.multiply(dv, e, out, x[E], dv, wide, size, spec.bound)
    x[E] = blocks.multiply(out, x[E], v, foot[KEPT_E2], out, wide, size, spec.bound)
    x[E], saturated, dead = activate.slopes(spec, work, phi, g, e_g, out, x[E], n, B)
    put(spec, SATURATED, index, k, saturated)
    put(spec, DEAD, index, k, dead)
    put(spec, FACTOR, index, k, _log10_of_both(log10_norm(spec, x), log10_norm(spec, y)) - before)
    give(spec, work, entry(op, IN), first(spec))
    give(spec, work, entry(op, SECOND_IN), second(spec))


@jit
def _log10_of_both(a, b):
    """log10 sqrt(10^2a + 10^2b)."""
    top = max(a, b)
    if not math.isfinite(top):
        return a + b if a != a or b != b else top
    return top + 0.5 * math.log10(10.0 ** (2 * (a - top)) + 10.0 ** (2 * (b - top)))


FORWARD, BACKWARD = (forward,), (backward,)
