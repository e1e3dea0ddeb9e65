# SPDX-License-Identifier: BSD-3-Clause
"""A number that multiplies a block."""

from __future__ import annotations

from pykernel.kernels import blocks, inline, jit
from pykernel.kernels.records import (
    BLOCK,
    IN,
    OUT,
    E,
    block,
    copy,
    count,
    entry,
    first,
    give,
    number,
    slot,
    take,
    write,
)

NUMBERS = ("factors",)


def numbers(program):
    """The factors."""
    return (program.factors,)


@inline
def _scale(spec, work, k):
    x = slot(work, first(spec))
    x[E] = blocks.scale(block(spec, x[BLOCK]), count(x), number(spec.factors, k), x[E], spec.bound)


@jit
def forward(spec, work, op, k, replica, index):
    """The product."""
    copy(spec, work, entry(op, IN), first(spec))
    _scale(spec, work, k)
    write(work, entry(op, OUT), first(spec))


@jit
def backward(spec, work, op, k, replica, index):
    """The gradient times the number."""
    take(spec, work, entry(op, OUT))
    _scale(spec, work, k)
    give(spec, work, entry(op, IN), first(spec))


FORWARD, BACKWARD = (forward,), (backward,)
