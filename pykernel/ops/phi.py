# SPDX-License-Identifier: BSD-3-Clause
"""An activation function, behind the norm that acts on its input where there is one: v = phi(Norm(h)); Norm(h) is the
preimage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pykernel.activation import Activation
from pykernel.block import Block, slopes, values
from pykernel.ops.norm import normalise
from pykernel.program import Op
from pykernel.seen import Run

TABLE = "activation"


def forward(run: Run, op: Op, number: int) -> tuple[Block, Callable[[Block], Block]]:
    """phi(Norm(h)) into `out`; the preimage and the way back through the norm are kept."""
    program, steps = run.program, run.program.steps
    preimage, norm_back = normalise(program.norms[steps.norm[number]], run.registers[op.ins[0]])
    run.registers[op.out] = values(program.activations[steps.row[number]], preimage)
    if run.rounding is not None and program.passes_formats[number]:
        preimage = run.rounding.stored("signals", preimage)
    return preimage, norm_back


def backward(run: Run, op: Op, number: int, kept: tuple[Block, Callable[[Block], Block]]) -> None:
    """The gradient through phi and Norm, with what it shows of saturation."""
    preimage, norm_back = kept
    row = run.program.activations[run.program.steps.row[number]]
    g = run.take(op.out)
    after, s = slopes(row, preimage, g)
    after = norm_back(after)
    run.put("log10_derivative_factor", number, after.log10_norm() - g.log10_norm())
    observe_slopes(run, number, row, s)
    run.give(op.ins[0], after)


def observe_slopes(run: Run, number: int, row: Activation, s: np.ndarray) -> None:
    """The shares of flat slopes of an activation step."""
    run.put("saturated", number, (np.abs(s) < 0.01 * row.max_slope).mean())
    run.put("dead", number, (s == 0).all(axis=1).mean() if row.flat else 0.0)
