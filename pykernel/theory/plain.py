# SPDX-License-Identifier: BSD-3-Clause
"""Whether a program is a chain of plain layers, one activation each, and its facts in those words: what closed laws are
written in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pykernel.program import Draw, Program, Stretch, distinct, once

ORDERS = {("linear", "phi"): 0, ("phi", "linear"): 1}  # kinds of a layer's ops: index into `chain.ORDERS`


@dataclass(frozen=True)
class Plain:
    """Facts of a chain of plain layers.

    Attributes:
        program: whose facts these are.
        order: 0 where a layer's weights come first, 1 where its activation does.
        every: 0, or the number of layers that each skip bridges.
        norm: of every layer: None, "batch", "layer" or "rms".
        rows: the activation functions that occur.
        draw: of every layer's weights, None where layers differ in it.
    """

    program: Program
    order: int
    every: int
    norm: str | None
    rows: tuple[Any, ...]
    draw: Draw | None

    @property
    def widths(self) -> np.ndarray:
        """n[0] .. n[L]."""
        return self.program.nodes

    @property
    def depth(self) -> int:
        return self.program.depth

    @property
    def activation(self) -> Any:
        """The activation function of all layers, None where they differ in it."""
        return self.rows[0] if len(self.rows) == 1 else None

    @property
    def distribution(self) -> str:
        """Of all layers' weights, "" where layers differ in it."""
        return "" if self.draw is None else self.draw.distribution

    @property
    def biased(self) -> bool:
        """Whether any layer has a bias."""
        return bool(np.any(self.program.layers.bias_scale))


@once
def plain(program: Program) -> Plain | None:
    """The facts of a chain of plain layers, or None for any other program."""
    found = [_pattern(stretch) for stretch in program.stretches]
    order = found[0][0]
    bridges = [every for _, every in found]
    every = bridges[0]
    norms = {norm.kind for norm in program.norms_used}
    if order is None or any(other != order for other, _ in found) or len(norms) != 1 or np.any(program.joins.skip != 1):
        return None
    rest = bridges.index(0) if 0 in bridges else len(bridges)  # layers that are left over behind the last skip
    if any(k != every for k in bridges[:rest]) or any(bridges[rest:]):
        return None
    rows = tuple(program.activations[r] for r in distinct(program.steps.row))
    draws = {program.draws[d] for d in distinct(program.layers.draw)}
    return Plain(program, order, every, norms.pop(), rows, draws.pop() if len(draws) == 1 else None)


def _pattern(stretch: Stretch) -> tuple[int | None, int]:
    """The order of a stretch's layers (None: other ops are among them), and how many layers its skip bridges (0: it has
    none)."""
    kinds = [op.kind for op in stretch.ops]
    order = ORDERS.get((kinds[0], kinds[1] if len(kinds) > 1 else ""))
    every = kinds.count("linear") if "add" in kinds else 0
    layer = [*kinds[:2], "node"]
    expected = layer * kinds.count("linear")
    if every:
        expected.insert(-1, "add")
    return (order if kinds == expected else None), every
