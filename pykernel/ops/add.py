# SPDX-License-Identifier: BSD-3-Clause
"""The sum of what passes by a block and of its branch: skip * a + branch * v."""

from __future__ import annotations

from pykernel.program import Op
from pykernel.seen import Run

TABLE = "join"


def forward(run: Run, op: Op, number: int) -> None:
    """The sum into `out`."""
    a, v = (run.registers[i] for i in op.ins)
    joins = run.program.joins
    passed = a if joins.skip[number] == 1 else a.times(joins.skip[number])
    run.registers[op.out] = passed.plus(v.times(joins.branch[number]))


def backward(run: Run, op: Op, number: int, kept: None) -> None:
    """The gradient times either factor."""
    joins, g = run.program.joins, run.take(op.out)
    run.give(op.ins[0], g if joins.skip[number] == 1 else g.times(joins.skip[number]))
    run.give(op.ins[1], g.times(joins.branch[number]))
