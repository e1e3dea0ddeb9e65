# SPDX-License-Identifier: BSD-3-Clause
"""A gate: phi(g) * v entry by entry (Dauphin et al. 2017, arXiv 1612.08083)."""

from __future__ import annotations

import numpy as np

from pykernel.block import Block, slopes, values
from pykernel.ops.phi import observe_slopes
from pykernel.program import Op
from pykernel.seen import Run

TABLE = "activation"


def forward(run: Run, op: Op, number: int) -> tuple[Block, Block, Block]:
    """phi(g) * v into `out`; g, phi(g) and v are kept."""
    g, v = (run.registers[i] for i in op.ins)
    value = values(run.program.activations[run.program.steps.row[number]], g)
    run.registers[op.out] = value.product(v)
    return g, value, v


def backward(run: Run, op: Op, number: int, kept: tuple[Block, Block, Block]) -> None:
    """Both gradients: phi'(g) v and phi(g) times that of the product."""
    g, value, v = kept
    row = run.program.activations[run.program.steps.row[number]]
    out = run.take(op.out)
    dg, s = slopes(row, g, out.product(v))
    dv = out.product(value)
    after = 0.5 * np.logaddexp(2 * dg.log10_norm() * np.log(10), 2 * dv.log10_norm() * np.log(10)) / np.log(10)
    run.put("log10_derivative_factor", number, after - out.log10_norm())
    observe_slopes(run, number, row, s)
    run.give(op.ins[0], dg)
    run.give(op.ins[1], dv)
