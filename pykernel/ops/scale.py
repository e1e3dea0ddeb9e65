# SPDX-License-Identifier: BSD-3-Clause
"""A number that multiplies a block."""

TABLE = "factor"


def forward(run, op, number):
    """The product into `out`."""
    run.registers[op.out] = run.registers[op.ins[0]].times(run.program.factors[number])


def backward(run, op, number, kept):
    """The gradient times the number."""
    run.give(op.ins[0], run.take(op.out).times(run.program.factors[number]))
