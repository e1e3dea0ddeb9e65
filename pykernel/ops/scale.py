# SPDX-License-Identifier: BSD-3-Clause
"""A number that multiplies a block."""

from __future__ import annotations

from pykernel.program import Op
from pykernel.seen import Run

TABLE = "factor"


def forward(run: Run, op: Op, number: int) -> None:
    """The product into `out`."""
    run.registers[op.out] = run.registers[op.ins[0]].times(run.program.factors[number])


def backward(run: Run, op: Op, number: int, kept: None) -> None:
    """The gradient times the number."""
    run.give(op.ins[0], run.take(op.out).times(run.program.factors[number]))
