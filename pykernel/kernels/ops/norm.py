# SPDX-License-Identifier: BSD-3-Clause
"""A norm that no activation function follows; its result is kept, and what it divided by."""

from __future__ import annotations

from pykernel.kernels import blocks, jit, norms
from pykernel.kernels.memory import pointer
from pykernel.kernels.ops.phi import kept
from pykernel.kernels.records import (
    BEGINS,
    BLOCK,
    COLUMNS,
    IN,
    KEPT_E,
    KEPT_E2,
    OUT,
    UNITS,
    E,
    block,
    copy,
    count,
    entry,
    first,
    give,
    number,
    pop,
    push,
    slot,
    take,
    write,
)

NUMBERS = ("norm_steps",)


def numbers(program):
    """Of each norm, its row."""
    return (program.norm_steps,)


def tape(program, number, n, B, item):
    """Bytes on the tape."""
    return kept(n, B, item, norms.kinds(program.norms)[program.norm_steps[number]])


@jit
def forward(spec, work, op, k, replica, index):
    """Norm(x)."""
    norm = entry(spec.norm_steps, k)
    kind, eps = entry(spec.norm_kind, norm), number(spec.norm_eps, norm)
    copy(spec, work, entry(op, IN), first(spec))
    x = slot(work, first(spec))
    n, B, y = x[UNITS], x[COLUMNS], block(spec, x[BLOCK])
    foot = push(work, kept(n, B, spec.item, kind), n, B)
    at = work.tape + foot[BEGINS]
    x[E], foot[KEPT_E2] = norms.forward(kind, eps, y, x[E], n, B, pointer(at + count(x) * spec.item, 1.0), spec.bound)
    foot[KEPT_E] = x[E]
    blocks.copy(y, 0, block(spec, at), 0, count(x))
    write(work, entry(op, OUT), first(spec))


@jit
def backward(spec, work, op, k, replica, index):
    """The gradient through the statistics."""
    take(spec, work, entry(op, OUT))
    foot, x = pop(work), slot(work, first(spec))
    at, kind = work.tape + foot[BEGINS], entry(spec.norm_kind, entry(spec.norm_steps, k))
    r, e = pointer(at + count(x) * spec.item, 1.0), foot[KEPT_E]
    x[E] = norms.backward(
        kind, block(spec, x[BLOCK]), x[E], block(spec, at), e, x[UNITS], x[COLUMNS], r, foot[KEPT_E2], spec.bound
    )
    give(spec, work, entry(op, IN), first(spec))


FORWARD, BACKWARD = (forward,), (backward,)
