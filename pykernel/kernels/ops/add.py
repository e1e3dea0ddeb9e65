# SPDX-License-Identifier: BSD-3-Clause
"""The sum of what passes by a block and of its branch: skip * a + branch * v."""

from __future__ import annotations

from pykernel.kernels import blocks, inline, jit
from pykernel.kernels.records import (
    BLOCK,
    IN,
    OUT,
    SECOND_IN,
    E,
    block,
    copy,
    count,
    entry,
    first,
    give,
    number,
    second,
    slot,
    take,
    write,
)

NUMBERS = ("skip", "branch")


def numbers(program):
    """Of each sum, both factors."""
    return program.joins.skip, program.joins.branch


@inline
def _scale(spec, x, factor):
    x[E] = blocks.scale(block(spec, x[BLOCK]), count(x), factor, x[E], spec.bound)


@jit
def forward(spec, work, op, k, replica, index):
    """The sum."""
    r, skip = entry(op, IN), number(spec.skip, k)
    copy(spec, work, entry(op, SECOND_IN), first(spec))
    x = slot(work, first(spec))
    _scale(spec, x, number(spec.branch, k))
    if skip != 1.0:
        copy(spec, work, r, second(spec))
        r = second(spec)
        _scale(spec, slot(work, r), skip)
    y = slot(work, r)
    x[E] = blocks.add(block(spec, x[BLOCK]), x[E], block(spec, y[BLOCK]), y[E], count(x), spec.bound)
    write(work, entry(op, OUT), first(spec))


@jit
def backward(spec, work, op, k, replica, index):
    """The gradient times either factor."""
    skip = number(spec.skip, k)
    take(spec, work, entry(op, OUT))
    copy(spec, work, first(spec), second(spec))
    _scale(spec, slot(work, second(spec)), number(spec.branch, k))
    if skip != 1.0:
        _scale(spec, slot(work, first(spec)), skip)
    give(spec, work, entry(op, IN), first(spec))
    give(spec, work, entry(op, SECOND_IN), second(spec))


FORWARD, BACKWARD = (forward,), (backward,)
