# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of weights that layers share: sums over their uses, uses of any magnitude."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pykernel.block import LOG10_2, Block


class Total:
    """The sum over uses of delta u^T, and of delta summed over the columns.

    Where all columns that there will be are few beside the width, uses are kept as they come: the norm of the sum then
    needs no matrix of the weight's size, which engines that draw no weights could not hold.

    Args:
        few: whether columns are few.
        outer: (delta, u) -> delta u^T as the weight is, of Blocks.
    """

    def __init__(self, few: bool, outer: Callable[[Block, Block], Block]) -> None:
        self.few, self._outer = few, outer
        self.uses: list[tuple[Block, Block]] = []
        self.known: Block = None  # type: ignore[assignment]  # these two have no size before the first use
        self.bias: Block = None  # type: ignore[assignment]

    def add(self, delta: Block, u: Block) -> None:
        """One more use: Blocks of delta and u."""
        bias = delta.like(delta.x.sum(axis=1, keepdims=True), delta.e)
        self.bias = bias if self.bias is None else bias.plus(self.bias)
        if self.few:
            self.uses.append((delta, u))
        else:
            self.known = self._sum(self.known, delta, u)

    def weight(self) -> Block:
        """The sum, as a Block."""
        total = self.known
        for delta, u in self.uses:
            total = self._sum(total, delta, u)
        return total

    def _sum(self, known: Block | None, delta: Block, u: Block) -> Block:
        use = self._outer(delta, u)
        return use if known is None else use.plus(known)

    def log10_norm(self) -> float:
        """log10 of the Frobenius norm of the sum: of R S^T where D = Q R and U = P S are all deltas and all u."""
        if not self.few:
            return self.known.log10_norm()
        live = [(d, u) for d, u in self.uses if d.x.any() and u.x.any()]  # the exponent of zero says nothing
        if not live:
            return -np.inf
        top = max(d.e + u.e for d, u in live)
        deltas = np.hstack([np.ldexp(d.x.astype(np.float64), max(d.e + u.e - top, -3000)) for d, u in live])
        inputs = np.hstack([u.x.astype(np.float64) for _, u in live])
        if not (np.isfinite(deltas).all() and np.isfinite(inputs).all()):
            return np.nan
        r, s = (np.asarray(np.linalg.qr(columns, mode="r")) for columns in (deltas, inputs))
        return Block(r @ s.T).log10_norm() + top * LOG10_2
