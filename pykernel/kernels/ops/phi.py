# SPDX-License-Identifier: BSD-3-Clause
"""An activation function, behind the norm that acts on its input, if any: v = phi(Norm(h)); Norm(h) is the preimage."""

from __future__ import annotations

from numba.extending import register_jitable

from pykernel.kernels import activate, blocks, jit, norms, rounding
from pykernel.kernels.memory import pointer
from pykernel.kernels.records import (
    BEGINS,
    BLOCK,
    COLUMNS,
    IN,
    KEPT_E,
    KEPT_E2,
    OUT,
    ROW,
    UNITS,
    E,
    block,
    count,
    entry,
    first,
    give,
    log10_norm,
    number,
    pop,
    push,
    put,
    shape,
    slot,
    take,
    write,
)

SATURATED, DEAD, FACTOR = ROW["saturated"], ROW["dead"], ROW["log10_derivative_factor"]

NUMBERS = ("step_row", "step_norm")


def numbers(program):
    """Of each activation step, its function and norm."""
    return program.steps.row, program.steps.norm


def tape(program, number, n, B, item):
    """Bytes on the tape."""
    return kept(n, B, item, norms.kinds(program.norms)[program.steps.norm[number]])


@register_jitable
def kept(n, B, item, norm):
    """Bytes on the tape for n units and B columns behind this kind of norm: preimage and divisors."""
    return (n + 15) // 16 * 16 * B * item + norms.kept(n, B, norm)


@jit
def forward(spec, work, op, k, replica, index):
    """phi(Norm(h)), its preimage on the tape."""
    h, out = slot(work, entry(op, IN)), slot(work, first(spec))
    n, B, e = h[UNITS], h[COLUMNS], h[E]
    norm = entry(spec.step_norm, k)
    kind, eps = entry(spec.norm_kind, norm), number(spec.norm_eps, norm)
    foot = push(work, kept(n, B, spec.item, kind), n, B)
    at = work.tape + foot[BEGINS]
    preimage = block(spec, at)
    blocks.copy(block(spec, h[BLOCK]), 0, preimage, 0, count(h))
    if kind:
        e, foot[KEPT_E2] = norms.forward(
            kind, eps, preimage, e, n, B, pointer(at + count(h) * spec.item, 1.0), spec.bound
        )
    foot[KEPT_E] = e
    shape(out, n, B)
    out[E] = activate.values(spec, work, entry(spec.step_row, k), preimage, e, block(spec, out[BLOCK]), n, B)
    if rounding.rounds(spec, rounding.SIGNALS) and entry(spec.passes, k):
        foot[KEPT_E] = rounding.store_numbers(spec, preimage, foot[KEPT_E], count(h), rounding.SIGNALS)
    write(work, entry(op, OUT), first(spec))


@jit
def backward(spec, work, op, k, replica, index):
    """The gradient through phi and Norm, with what it shows of saturation."""
    take(spec, work, entry(op, OUT))
    foot, x = pop(work), slot(work, first(spec))
    n, B, g, e = x[UNITS], x[COLUMNS], block(spec, x[BLOCK]), foot[KEPT_E]
    at, kind = work.tape + foot[BEGINS], entry(spec.norm_kind, entry(spec.step_norm, k))
    preimage, before = block(spec, at), log10_norm(spec, x)
    x[E], saturated, dead = activate.slopes(spec, work, entry(spec.step_row, k), preimage, e, g, x[E], n, B)
    put(spec, SATURATED, index, k, saturated)
    put(spec, DEAD, index, k, dead)
    if kind:
        r = pointer(at + count(x) * spec.item, 1.0)
        x[E] = norms.backward(kind, g, x[E], preimage, e, n, B, r, foot[KEPT_E2], spec.bound)
    put(spec, FACTOR, index, k, log10_norm(spec, x) - before)
    give(spec, work, entry(op, IN), first(spec))


FORWARD, BACKWARD = (forward,), (backward,)
