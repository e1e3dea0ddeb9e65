# SPDX-License-Identifier: BSD-3-Clause
"""How many columns (inputs times positions) there are where, in programs whose windows change them on the way."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pykernel.ops import TABLES
from pykernel.program import Program


class Columns(NamedTuple):
    """Of each layer, activation step, norm and node (from a[0]) int64 arrays; `windows`: (W, 2), in and out."""

    layers: np.ndarray
    steps: np.ndarray
    norms: np.ndarray
    nodes: np.ndarray
    windows: np.ndarray


def columns(program: Program) -> Columns:
    """Walk a program once; without windows there is nothing to walk."""
    n = program.counts
    sizes = (n.layer, n.activation, n.norm, n.node + 1)
    layers, steps, norms, nodes = (np.full(size, program.columns) for size in sizes)
    every = Columns(layers, steps, norms, nodes, np.full((n.window, 2), program.columns))
    if not n.window:
        return every
    tables = {"layer": every.layers, "activation": every.steps, "norm": every.norms, "node": every.nodes[1:]}
    at = dict.fromkeys(range(program.registers), program.columns)
    for stretch in program.stretches:
        for i in range(stretch.count):
            for op in stretch.ops:
                table, read = TABLES[op.kind], at[op.ins[0]] if op.ins else program.columns
                number = stretch.number(table, op, i)
                if table == "window":
                    out = program.windows[program.window_steps[number]].out
                    every.windows[number] = read, program.batch * math.prod(out)
                    read = int(every.windows[number, 1])
                elif table in tables:
                    tables[table][number] = read
                at[op.out] = read
    return every


def fewest_normed(program: Program) -> float:
    """How many columns the batch norm with the fewest sees; inf where there is none."""
    kinds = np.array([norm.kind == "batch" for norm in program.norms])
    at = columns(program)
    seen = np.concatenate([at.steps[kinds[program.steps.norm]], at.norms[kinds[program.norm_steps]]])
    return float(seen.min()) if len(seen) else math.inf
