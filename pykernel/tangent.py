# SPDX-License-Identifier: BSD-3-Clause
"""The tangent kernel of one network: <dJ_b/dtheta, dJ_b'/dtheta> over inputs b, summed over layers from Gram
matrices."""

from __future__ import annotations

import numpy as np

from pykernel.block import Block, ldexp
from pykernel.dtypes import Floats
from pykernel.program import BIASES, Program


class Tangent:
    """The sum over layers of (delta_b . delta_b')(u_b . u_b'), and of delta_b . delta_b' where a layer has a bias.

    Of an input with positions the gradients of all columns are summed. A weight that layers share has one gradient, the
    sum over its uses: then every use meets every other, and uses are kept until all are there.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._uses: dict[int, list[tuple[Block, Block]]] = {}
        self._total: Block = None  # type: ignore[assignment]  # it has no size before the first layer
        self._first: dict = {}  # of each address the layer that is met last
        for number, address in enumerate(program.layers.address.tolist()):
            self._first.setdefault(address, number)

    def add(self, number: int, delta: Block, u: Block) -> None:
        """One layer's, met on the way back."""
        layers = self._program.layers
        address = int(layers.address[number])
        uses = self._uses.setdefault(address, [])
        uses.append((delta, u))
        has_bias = BIASES[layers.bias_draw[number]] != "zero"
        for other_delta, other_u in uses:
            same = other_delta is delta
            deltas, inputs = _gram(delta, other_delta), _gram(u, other_u)
            self._sum(Block(deltas.x * inputs.x, deltas.e + inputs.e), same)
            if has_bias:
                self._sum(deltas, same)
        if number == self._first[address]:
            del self._uses[address]

    def _sum(self, columns: Block, same: bool) -> None:
        """Add what two uses have in common, both ways round."""
        folded = self._folded(columns.x)
        part = columns.like(folded if same else folded + folded.T, columns.e)
        self._total = part if self._total is None else part.plus(self._total)

    def _folded(self, columns: Floats) -> Floats:
        """Sums over the positions of either input."""
        inputs = self._program.batch
        return columns.reshape(inputs, -1, inputs, columns.shape[1] // inputs).sum(axis=(1, 3))

    def kernel(self) -> Floats:
        """(B, B) float64; inf or 0 beyond its range."""
        with np.errstate(over="ignore", under="ignore"):
            return ldexp(self._total.x, self._total.e)


def _gram(a: Block, b: Block) -> Block:
    return Block(a.x.T.astype(np.float64) @ b.x.astype(np.float64), a.e + b.e)
