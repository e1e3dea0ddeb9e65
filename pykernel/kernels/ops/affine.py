# SPDX-License-Identifier: BSD-3-Clause
"""What a trained norm does to each unit: weight * x + bias."""

from __future__ import annotations

import numpy as np

from pykernel.kernels import blocks, inline, jit
from pykernel.kernels.memory import cast_like
from pykernel.kernels.records import (
    BLOCK,
    COLUMNS,
    IN,
    OUT,
    UNITS,
    E,
    block,
    copy,
    entry,
    first,
    give,
    number,
    slot,
    take,
    write,
)
from pykernel.program import by_powers_of_two

NUMBERS = ("affine_steps", "affine_at", "affine_weight", "affine_weight_e", "affine_bias", "affine_bias_e")


def numbers(program):
    """The row of each op; where the numbers of each row begin; those numbers and the powers of two taken out of
    them."""
    rows = program.affines
    lengths = np.array([len(row.weight) for row in rows], np.int64)
    weights, biases = (_joined([getattr(row, name) for row in rows], program.exponent) for name in ("weight", "bias"))
    return program.affine_steps, np.cumsum(lengths) - lengths, *weights, *biases


def _joined(arrays, exponent):
    taken, powers = by_powers_of_two(arrays, exponent)
    return np.concatenate([*taken, np.zeros(1)]), np.frexp(powers)[1].astype(np.int64) - 1


@inline
def _column(spec, work, numbers, at, n):
    """`n` numbers from `at` on as a block of one column."""
    v = block(spec, work.vector)
    blocks.clear(v, (n + 15) // 16 * 16)
    for i in range(n):
        v[i] = cast_like(number(numbers, at + i), v)
    return v


@inline
def _scale(spec, work, k):
    x, row = slot(work, first(spec)), entry(spec.affine_steps, k)
    n, B = x[UNITS], x[COLUMNS]
    w = _column(spec, work, spec.affine_weight, entry(spec.affine_at, row), n)
    x[E] = blocks.multiply_vector(
        block(spec, x[BLOCK]), x[E], w, entry(spec.affine_weight_e, row), (n + 15) // 16, B, spec.bound
    )


@jit
def forward(spec, work, op, k, replica, index):
    """The result."""
    copy(spec, work, entry(op, IN), first(spec))
    _scale(spec, work, k)
    x, row = slot(work, first(spec)), entry(spec.affine_steps, k)
    n, B, panels = x[UNITS], x[COLUMNS], (x[UNITS] + 15) // 16
    b = _column(spec, work, spec.affine_bias, entry(spec.affine_at, row), n)
    if blocks.top(b, panels * 16) != 0.0:
        e_b = blocks.renormalise(b, panels * 16, entry(spec.affine_bias_e, row), spec.bound)
        x[E] = blocks.add_vector(block(spec, x[BLOCK]), x[E], b, e_b, panels, B, spec.bound)
    write(work, entry(op, OUT), first(spec))


@jit
def backward(spec, work, op, k, replica, index):
    """The gradient times the weights."""
    take(spec, work, entry(op, OUT))
    _scale(spec, work, k)
    give(spec, work, entry(op, IN), first(spec))


FORWARD, BACKWARD = (forward,), (backward,)
