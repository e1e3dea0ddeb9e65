# SPDX-License-Identifier: BSD-3-Clause
"""The matrix-free engine, defined: W u and W^T delta drawn from their exact joint law without W, in plain NumPy
float64.

It is the dense reference with an oracle behind each layer; C++ is held to it. The derivation is in
docs/matrix-free.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pykernel import oracle
from pykernel.dtypes import Floats
from pykernel.engines import matrix_free_refusal, reference
from pykernel.program import Program

refusal = matrix_free_refusal


def run(program: Program, first: int, count: int, *, threads: int = 1, keep: Sequence[str] = ()) -> dict:
    """Rows of replicas first .. first + count - 1, as `reference.run` returns them. There are no weight matrices to
    keep."""
    return reference.run_operators(program, first, count, Conditioned, keep)


def trace(program: Program, replica: int) -> Floats:
    """As `reference.trace`."""
    return reference.trace(program, replica, Conditioned)


def memory(program: Program, threads: int = 1) -> int:
    """Bytes of one replica: ten blocks a layer, with the factors of its input and of its weight; sums over uses of a
    shared weight where columns outnumber its units."""
    layers = program.layers
    columns = program.batch * layers.positions.astype(object)
    blocks = (columns * (layers.units + layers.columns)).sum() + program.columns * int(program.nodes[0])
    top = int(layers.units.max())
    sums = 8 * top * min(top, 2 * int(columns.sum())) * program.counts.weight
    return int(8 * 10 * blocks + 200 * (columns * layers.units).max()) + sums


class Conditioned:
    """Unit draws of the weights of one replica, known only through what they have been multiplied with: forward D u,
    backward D^T delta; the layer's scale is applied by the caller. Runs that share the weights ask the same oracles."""

    def __init__(self, program: Program, replica: int) -> None:
        self.program, self.replica = program, replica
        self.oracles = {}

    def beside(self) -> Conditioned:
        """The same weights for a run without formats."""
        return self

    def scale(self, layer: int) -> float:
        """What products are multiplied with."""
        return self.program.layers.scale[layer - 1]

    def oracle(self, layer: int) -> oracle.Oracle:
        """What stands for the weight of a layer; layers that share an address share it."""
        layers, i = self.program.layers, layer - 1
        address = int(layers.address[i])
        if address not in self.oracles:
            kind = oracle.Haar if self.program.draw(layer).distribution == "haar" else oracle.Gaussian
            normals = oracle.normals_at(self.program.seed, address, self.replica)
            self.oracles[address] = kind(int(layers.units[i]), int(layers.columns[i]), normals)
        return self.oracles[address]

    def forward(self, layer: int, u: np.ndarray) -> np.ndarray:
        """D u, (units, B), of u (columns, B)."""
        return self.oracle(layer).forward(u)

    def backward(self, layer: int, delta: np.ndarray) -> np.ndarray:
        """D^T delta, (columns, B), of delta (units, B) that depends on D through what it has answered."""
        return self.oracle(layer).backward(delta)
