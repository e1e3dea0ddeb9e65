# SPDX-License-Identifier: BSD-3-Clause
"""What a trained norm does to each unit: weight * x + bias."""

from __future__ import annotations

import numpy as np

from pykernel.block import Block
from pykernel.program import Op
from pykernel.seen import Run

TABLE = "affine"


def forward(run: Run, op: Op, number: int) -> None:
    """The result into `out`."""
    x, bias = run.registers[op.ins[0]], run.program.affines[run.program.affine_steps[number]].bias
    out = x.product(_weight(run, number))
    if bias.any():
        out = out.plus(Block.of(run.program, np.broadcast_to(bias[:, None], x.x.shape)))
    run.registers[op.out] = out


def backward(run: Run, op: Op, number: int, kept: None) -> None:
    """The gradient times the weights."""
    run.give(op.ins[0], run.take(op.out).product(_weight(run, number)))


def _weight(run: Run, number: int) -> Block:
    return Block.of(run.program, run.program.affines[run.program.affine_steps[number]].weight[:, None])
