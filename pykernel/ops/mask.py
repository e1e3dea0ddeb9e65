# SPDX-License-Identifier: BSD-3-Clause
"""Dropout: entries zeroed with probability p, the rest divided by 1 - p; the mask has an address, so that backward sees
the same one."""

from __future__ import annotations

from pykernel import stream

TABLE = "mask"


def forward(run, op, number):
    """The block that is left into `out`."""
    run.registers[op.out] = _masked(run, number, run.registers[op.ins[0]])


def backward(run, op, number, kept):
    """The gradient through the same mask."""
    run.give(op.ins[0], _masked(run, number, run.take(op.out)))


def _masked(run, number, block):
    p = run.program.masks[number]
    kept = stream.mask(run.program.seed, 1 + number + run.turn * len(run.program.masks), run.replica, *block.x.shape, p)
    return block.like(block.x * kept.astype(block.x.dtype), block.e).times(1 / (1 - p))
