# SPDX-License-Identifier: BSD-3-Clause
"""Dropout: entries zeroed with probability p, the rest divided by 1 - p; the mask has an address, so that backward sees
the same one."""

from __future__ import annotations

from pykernel import stream
from pykernel.block import Block
from pykernel.program import Op
from pykernel.seen import Run

TABLE = "mask"


def forward(run: Run, op: Op, number: int) -> None:
    """The block that is left into `out`."""
    run.registers[op.out] = _masked(run, number, run.registers[op.ins[0]])


def backward(run: Run, op: Op, number: int, kept: None) -> None:
    """The gradient through the same mask."""
    run.give(op.ins[0], _masked(run, number, run.take(op.out)))


def _masked(run: Run, number: int, block: Block) -> Block:
    p = run.program.masks[number]
    (units, columns), address = block.x.shape, 1 + number + run.turn * len(run.program.masks)
    kept = stream.mask(run.program.seed, address, run.replica, units, columns, p)
    return block.like(block.x * kept.astype(block.x.dtype), block.e).times(1 / (1 - p))
