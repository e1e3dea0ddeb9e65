# SPDX-License-Identifier: BSD-3-Clause
"""How far apart two inputs are, layer by layer, where the mean squares are known: 1 - cosine, many repetitions at once
where it may."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pykernel.theory import correlation
from pykernel.theory.quadrature import LOG_SLOPE2, LOG_VALUE2, MEAN, moments
from pykernel.theory.structure import ODD

COLLINEAR = 1e-11  # distance below which the map is its linear limit (`correlation.distance_map` rests on the same)
EXACT = 64  # steps whose map is computed where it is asked for; all behind them share cells
# a unit of the log deviation, and of the log distance, behind step EXACT: rates then are right to 1e-3, half a cell
CELLS = 400
# a jump spans at most 1/32 of the repetitions behind it: what falls as a power of depth changes by 3 percent a jump
LONGEST = 32
# of the log distance over a jump, off the straight line: Heun's rule is right to a tenth of it, 1e-3 over 1e5 layers
BEND = 2e-2
FURTHEST = 0.5  # e-foldings of the distance in a jump
SHORTER = 4  # factor on a jump that bends too much
LARGEST = 340.0  # |log of a deviation| beyond which e^x and its square leave float64


class Function:
    """One activation function as a walk reads it: its moments from the table, its distance map with a memory.

    Attributes:
        passes: whether it is the identity, which keeps a mean.
        exact: whether its distance map is a closed form, computed at every step.
    """

    def __init__(self, row: Any) -> None:
        self.row, self.table = row, moments(row)
        self.passes, self.exact = row.name == "linear", correlation.two_slopes(row) is not None
        self._odd = row.name in ODD
        at = float(row.evaluate("value", np.zeros(1))[0])
        self._at_zero = (2 * math.log(abs(at)), math.copysign(1.0, at)) if at else (-math.inf, 0.0)
        self._low = self._high = self._middle = math.nan  # the cell that was read last: neighbours in depth share it
        self._square: tuple[float, ...] = (0.0,) * 6
        self._mean: tuple[float, ...] = (0.0,) * 6
        self._rates: dict[tuple[int, int], float] = {}

    def value(self, t: float) -> tuple[float, float]:
        """log E phi^2 and E phi / sqrt(E phi^2) at the log standard deviation t."""
        if not self._low <= t < self._high:
            if t == -math.inf:
                return self._at_zero
            self._low, self._high, self._middle, (self._square, self._mean) = self.table.cell(t, (LOG_VALUE2, MEAN))
        x = t - self._middle
        a, b, c, d, e, f = self._square
        square = a + x * (b + x * (c + x * (d + x * (e + x * f))))
        if self._odd:
            return square, 0.0
        a, b, c, d, e, f = self._mean
        return square, a + x * (b + x * (c + x * (d + x * (e + x * f))))

    def apart(self, step: int, t: float, d: float) -> float:
        """1 - cosine of phi's outputs, where its inputs have the log deviation t and are d apart; `step` is its number,
        from 0."""
        if t == -math.inf:
            return 0.0
        if d < COLLINEAR:
            return d * math.exp(min(self.table.column(t, LOG_SLOPE2) + 2 * t - self.table.column(t, LOG_VALUE2), 700.0))
        if self.exact or step < EXACT:
            return self._map(t, d)
        cell = round(CELLS * t), round(CELLS * math.log(d))
        if cell not in self._rates:
            middle = math.exp(cell[1] / CELLS)
            self._rates[cell] = self._map(cell[0] / CELLS, min(middle, 2.0)) / middle
        return d * self._rates[cell]

    def _map(self, t: float, d: float) -> float:
        return correlation.distance_map(self.row, math.exp(min(max(t, -LARGEST), LARGEST)), d)


class DistanceWalk:
    """The distances of one stretch, from the steps of its ops.

    Args:
        steps: the ops' distance maps, step(repetition), in order.
        far: register -> distance; register 0 is carried from repetition to repetition.
        rows: of each array that the steps fill: the list, its first number and the step to the next, and whether what
            it holds follows the distance at the end of a repetition (else the one at its beginning).
        count: repetitions.
        may_jump: whether repetitions may be taken many at once, for one phi whose map is dear.
    """

    def __init__(self, steps: list, far: list[float], rows: list, count: int, may_jump: bool) -> None:
        self.steps, self.far, self.rows, self.count, self.may_jump = steps, far, rows, count, may_jump

    def run(self) -> None:
        """Fill the rows."""
        i = 0
        while i < self.count:
            before = self.far[0]
            self.step(i)
            length = self.longest(i, before) if self.may_jump and i > EXACT else 1
            i += self.jump(i, before, length) if length > 1 else 1

    def step(self, i: int) -> None:
        for step in self.steps:
            step(i)

    def longest(self, i: int, before: float) -> int:
        """How many repetitions from i on could be one jump, 1 for none: changes must be a number, and not end at 0."""
        return min(i // LONGEST, self.count - i) if before > COLLINEAR and self.far[0] > 0 else 1

    def jump(self, i: int, before: float, length: int) -> int:
        """Take up to `length` repetitions at once, the log of the distance by Heun's rule; how many were taken.

        The rate at the far end is looked up there, at the distance that the present rate leads to; the jump is
        shortened until both differ little.
        """
        after = self.far[0]
        held = [values[first + i * each] for values, first, each, _ in self.rows]
        rate = later = math.log(after / before)
        while length > 1:
            self.far[0] = ahead = max(before * math.exp(rate * length), 1e-300)
            self.step(min(i + length, self.count - 1))
            later = math.log(max(self.far[0], 1e-300) / ahead)
            if abs(later - rate) * length < BEND and abs(rate) * length < FURTHEST:
                break
            length //= SHORTER
        if length <= 1:
            self.far[0] = after
            return 1
        d = before
        for k in range(length):
            grown = d * math.exp(rate + (later - rate) * k / length)
            self._write(i + k, held, before, after, d, grown)
            d = grown
        self.far[0] = d
        return length

    def _write(self, i: int, held: list[float], before: float, after: float, d: float, grown: float) -> None:
        """Rows of repetition i, in proportion to those of the one that a jump began with."""
        for (values, first, each, ends), value in zip(self.rows, held, strict=True):
            values[first + i * each] = value * (grown / after if ends else d / before)
