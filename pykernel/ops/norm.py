# SPDX-License-Identifier: BSD-3-Clause
"""A norm: "batch" per unit over the columns, "layer" and "rms" per column over the units; differentiated through its
statistics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pykernel.block import FARTHEST, Block
from pykernel.program import NormRow, Op
from pykernel.seen import Run

TABLE = "norm"


def forward(run: Run, op: Op, number: int) -> Callable[[Block], Block]:
    """Norm(x) into `out`; the way back is kept."""
    program = run.program
    run.registers[op.out], back = normalise(program.norms[program.norm_steps[number]], run.registers[op.ins[0]])
    return back


def backward(run: Run, op: Op, number: int, back: Callable[[Block], Block]) -> None:
    """The gradient through the statistics."""
    run.give(op.ins[0], back(run.take(op.out)))


def normalise(row: NormRow, block: Block) -> tuple[Block, Callable[[Block], Block]]:
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
    if e > 0:
        return _far(row, block, c, mean)
    # var 2^2e is far below eps or comes near it
    r = 1 / np.sqrt((np.ldexp(mean(c * c), max(2 * e, -2000)) + row.eps).astype(np.float64))
    y = block.like(c * r.astype(c.dtype), e)
    true = y.true().astype(c.dtype)

    def back(g: Block) -> Block:
        d = g.x - centre(g.x) - true * mean(g.x * true)
        return Block(d * r.astype(c.dtype), g.e, block.exponent)

    return y, back


def _far(
    row: NormRow, block: Block, c: np.ndarray, mean: Callable[[np.ndarray], np.ndarray]
) -> tuple[Block, Callable[[Block], Block]]:
    """The same of a block whose numbers are large, c = x - m.

    Every group that is normalised has a power of two of its own, p, so that the squares of no group are lost beside a
    larger one's: r = 2^-(e + p) / sqrt(mean((c 2^-p)^2) + eps 2^-2(e + p)). A group of zeros has p = -e.
    """
    e, axis = block.e, 1 if row.kind == "batch" else 0
    scaled = lambda x, power: np.ldexp(x, np.clip(power, -3000, 3000))
    top = np.abs(c).max(axis=axis, keepdims=True)
    p = np.where(top > 0, np.maximum(np.frexp(top)[1].astype(np.int64), -e), -e)
    c = scaled(c, -p)
    r = 1 / np.sqrt(mean(c * c) + scaled(row.eps, -2 * (e + p)))
    y = block.like(c * r, 0)
    true = y.true()

    def back(g: Block) -> Block:
        d = r * (g.x - (0.0 if row.kind == "rms" else mean(g.x)) - true * mean(g.x * true))
        powers = np.frexp(d)[1] - p
        largest = int(powers.max(where=d != 0, initial=-FARTHEST))
        if largest == -FARTHEST:
            return Block(d, g.e - e, True)
        return Block(scaled(d, -p - largest), g.e - e + largest, True)

    return y, back
