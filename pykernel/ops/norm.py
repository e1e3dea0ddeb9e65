# SPDX-License-Identifier: BSD-3-Clause
"""A norm: "batch" per unit over the columns, "layer" and "rms" per column over the units; differentiated through its
statistics."""

from __future__ import annotations

import math

import numpy as np

from pykernel.block import Block

TABLE = "norm"


def forward(run, op, number):
    """Norm(x) into `out`; the way back is kept."""
    program = run.program
    run.registers[op.out], back = normalise(program.norms[program.norm_steps[number]], run.registers[op.ins[0]])
    return back


def backward(run, op, number, back):
    """The gradient through the statistics."""
    run.give(op.ins[0], back(run.take(op.out)))


def normalise(row, block):
    """Norm of a block, and the function that takes dJ/dNorm back to dJ/dblock.

    With m = mean (zero for rms), c = x - m, r = 1/sqrt(mean(c^2) + eps) and y = c r: dx = r (dy - mean(dy) - y mean(dy
    y)), without mean(dy) for rms.
    """
    if row.kind is None:
        return block, lambda g: g
    axis = 1 if row.kind == "batch" else 0
    mean = lambda x: x.mean(axis=axis, keepdims=True)
    centre = (lambda x: x * 0) if row.kind == "rms" else mean
    x, e = block.x, block.e
    c = x - centre(x)
    if e >= 0:  # r = 2^-e / sqrt(var + eps 2^-2e), and y has exponent 0
        r, e_y, e_r = (
            1 / np.sqrt(np.maximum(mean(c * c) + math.ldexp(row.eps, -2 * e), np.finfo(np.float64).tiny)),
            0,
            -e,
        )
    else:  # var 2^2e is far below eps or comes near it
        r, e_y, e_r = 1 / np.sqrt(np.ldexp(mean(c * c), max(2 * e, -2000)) + row.eps), e, 0
    y = block.like(c * r.astype(c.dtype), e_y)
    true = y.true().astype(c.dtype)

    def back(g):
        d = g.x - centre(g.x) - true * mean(g.x * true)
        return Block(d * r.astype(c.dtype), g.e + e_r, block.exponent)

    return y, back
