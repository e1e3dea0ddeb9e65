# SPDX-License-Identifier: BSD-3-Clause
"""An input that arrives at a step, x_k; the gradient that comes back to it goes no further."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pykernel import stream
from pykernel.block import Block
from pykernel.dtypes import Floats
from pykernel.program import Op, Program
from pykernel.seen import Run

TABLE = "drive"


def forward(run: Run, op: Op, number: int) -> None:
    """x_k into `out`; what the op reads only says when it arrives."""
    program = run.program
    if program.drive is not None:
        run.registers[op.out] = Block.of(program, program.drive[number])
        return
    n = int(program.drives[number])
    run.registers[op.out] = Block.of(program, drawn(program, run.replica, number + 1, n))


def backward(run: Run, op: Op, number: int, kept: None) -> None:
    """Nothing is asked of an input."""
    run.take(op.out)


def drawn(program: Program, replica: int, layer: int, n: int, tall: Callable[..., np.ndarray] = stream.tall) -> Floats:
    """Input number `layer` (0: the chain's own) of a replica, (n, columns) float64; `tall` has the bits of the
    stream's definition."""
    columns, c = program.columns, program.correlation
    own = tall(program.seed, stream.INPUT, layer, replica, n, columns).astype(np.float64)
    if c == 0:
        return own
    common = tall(program.seed, stream.INPUT_COMMON, layer, replica, n).astype(np.float64)
    return math.sqrt(c) * common + math.sqrt(1 - c) * own
