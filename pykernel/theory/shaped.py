# SPDX-License-Identifier: BSD-3-Clause
"""Backward where a gradient knows its unit: what lies behind the squared norm of each register goes back beside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pykernel.theory.mean_field import Backward
from pykernel.theory.neighbours import ANY
from pykernel.theory.signals import Gradient
from pykernel.theory.structure import place


class ShapedBackward(Backward):
    """The backward pass op by op with a shape of the gradient for every register.

    Attributes:
        walk: the forward pass that it goes back through.
        shape: register -> what its gradients know of their units.
        passing: what the next `give` hands on of it.
        ALIKE: the shape of gradients that know nothing.
    """

    ALIKE: Any = None

    def __init__(self, walk: Any, signal: Any, coherence: float) -> None:
        super().__init__(walk.program, signal, coherence)
        self.walk = walk
        self.shape: dict[int, Any] = {}
        self.passing: Any = self.ALIKE

    def take(self, register: int) -> tuple[Any, Any]:
        self.shape.pop(register, None)
        return super().take(register)

    def receive(self, register: int, g: Any, o: Any, squares: Any) -> None:
        if register in self._held:
            h, p = self._held[register]
            total = np.logaddexp(g, h)
            share = math.exp(g - total) if total > -math.inf else 1.0
            held = self.shape.get(register, self.ALIKE)
            self.shape[register] = self.together((self.passing, o, share), (held, p, 1 - share))
        else:
            self.shape[register] = self.passing
        super().receive(register, g, o, squares)

    def together(self, *parts: tuple[Any, Any, float]) -> Any:
        """The shape of a sum of independent gradients.

        Args:
            parts: of each its shape, its correlation between two columns, and its share in the squared norm.
        """
        raise NotImplementedError

    def step(self, op: Any, number: int) -> None:
        """One op."""
        raise NotImplementedError

    def run(self, start: float, coherence: float) -> Gradient:
        self.giving = {ANY: float(coherence)}
        self.give(0, start, coherence)
        one = lambda walk, op, number: walk.step(op, number)
        for stretch in self.program.stretches[::-1]:
            ops = [(op, place(stretch, op)) for op in stretch.ops[::-1]]
            for i in range(stretch.count - 1, -1, -1):
                for op, (first, each) in ops:
                    self.through(op, first + i * each, one)
        self.rows.activation[0] = self.take(0)[0]
        return self.rows
