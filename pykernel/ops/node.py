# SPDX-License-Identifier: BSD-3-Clause
"""A node: the end of a block, where signal and gradient are looked at on their way."""

from __future__ import annotations

import math

import numpy as np

from pykernel.block import ldexp
from pykernel.program import FEW_COLUMNS, Op
from pykernel.seen import Run

TABLE = "node"


def forward(run: Run, op: Op, number: int) -> None:
    """Mean square, mean and similarity of what passes on into `out`."""
    a = run.registers[op.ins[0]]
    if run.rounding is not None:
        run.rounding.compare_signal(number, op.ins[0])
    run.nodes["signal", number] = a
    run.put("log10_mean_square_activation", number, a.log10_mean_square())
    run.put("mean_activation", number, ldexp(a.x.mean(dtype=np.float64), a.e))
    run.put("similarity", number, _similarity(a.x))
    run.trace.keep("activation", number + 1, a.true)
    run.registers[op.out] = a


def backward(run: Run, op: Op, number: int, kept: None) -> None:
    """The norm of its gradient."""
    before = run.gradients[op.out]
    if run.rounding is not None:
        run.rounding.compare("gradient", number, before)
    run.nodes["gradient", number] = before
    g = run.take(op.out)
    run.put("log10_grad_activation", number + 1, g.log10_norm())
    run.trace.keep("grad_activation", number + 1, g.true)
    run.give(op.ins[0], g)


def _similarity(x: np.ndarray) -> float:
    """Mean cosine over pairs of non-zero columns; nan without any, or where a column is no numbers."""
    norms = np.linalg.norm(x, axis=0)
    x = x[:, norms != 0].astype(np.float64)
    columns = x.shape[1]
    if columns < 2:
        return math.nan
    lengths = norms[norms != 0]
    if columns > max(len(x), FEW_COLUMNS):  # the same of the sum of all directions, without a matrix of pairs
        together = (x / lengths).sum(axis=1)
        return ((together**2).sum() - columns) / (columns * (columns - 1))
    cosines = (x.T @ x) / np.outer(lengths, lengths)
    return (cosines.sum() - np.trace(cosines)) / (columns * (columns - 1))
