# SPDX-License-Identifier: BSD-3-Clause
"""Functions on sums (ReLU after the sum): the entries are not normal there, and their density is followed.

A unit goes h = k x + s z, x' = phi(h), with z normal, fresh in every block: its density is convolved with a normal one,
then pushed through phi. A gradient that comes back on the skip belongs to a unit whose x is positive, or large. Its
mean square given x, a function G(x), goes back by the transposed steps: G(x) = k^2 E phi'(h)^2 G'(phi(h)) + B, where B
is what the branch adds, alike for all units. One column only: of pairs nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pykernel.program import Program
from pykernel.theory import correlation
from pykernel.theory.mean_field import Forward
from pykernel.theory.ops import OPS
from pykernel.theory.ops.norm import level
from pykernel.theory.quadrature import HOMOGENEOUS, panels, special_points
from pykernel.theory.shaped import ShapedBackward
from pykernel.theory.signals import Gradient, Signal, as_arrays
from pykernel.theory.structure import NoTheory, place

REACH = 7.0  # standard deviations of a step; the weight beyond is below 3e-12
ORDER, WIDE = 12, 4.0  # nodes a panel, and its width in deviations of the step: right to 1e-8
STEADY = 0.7  # of a step's deviation: the next may be so much smaller on the same grid
LEAST = 1 / 200  # of the signal: smaller steps take too fine a grid
LIGHT = 1e-22  # weight of a node that is forgotten
LARGEST = 300.0  # |log of a deviation| up to which a function that bends is evaluated


class Cloud(NamedTuple):
    """A distribution of mean square 1 by nodes and weights."""

    x: np.ndarray
    w: np.ndarray


class Step(NamedTuple):
    """A convolution: from nodes x, times the skip's share, to nodes h, by a normal deviation; `dh` their plain
    weights."""

    ax: np.ndarray
    h: np.ndarray
    dh: np.ndarray
    deviation: float

    def pieces(self) -> Any:
        """Slices of h and of the sorted ax, and the kernel between them."""
        order = np.argsort(self.ax, kind="stable")
        ax = self.ax[order]
        for begin in range(0, len(self.h), 64):
            part = slice(begin, begin + 64)
            h = self.h[part]
            low, high = np.searchsorted(ax, [h[0] - REACH * self.deviation, h[-1] + REACH * self.deviation])
            kernel = np.exp(-0.5 * ((h[:, None] - ax[low:high]) / self.deviation) ** 2)
            yield part, order[low:high], kernel / (self.deviation * math.sqrt(2 * math.pi))

    def density(self, w: np.ndarray) -> np.ndarray:
        """At h, of x with weights w."""
        out = np.zeros(len(self.h))
        for part, chosen, kernel in self.pieces():
            out[part] = kernel @ w[chosen]
        return out

    def given(self, values: np.ndarray) -> np.ndarray:
        """E of a function of h given each x."""
        out = np.zeros(len(self.ax))
        for part, chosen, kernel in self.pieces():
            out[chosen] += (self.dh[part] * values[part]) @ kernel
        return out


class Slopes(NamedTuple):
    """phi' squared at the nodes that a function acts on, as exp(scale) square; their weights; which node of its output
    each became; and whether it acts on a normal register, of which nobody asks what its nodes share."""

    square: np.ndarray
    scale: float
    w: np.ndarray
    became: np.ndarray
    normal: bool


class DensityForward(Forward):
    """The forward pass with a cloud beside every register that is not normal.

    Attributes:
        cloud: register -> Cloud, None where it is normal.
        steps: number of a sum -> Step.  passed: numbers of sums whose branch adds nothing.
        slopes: number of an activation step -> Slopes.
        fractions: number of an activation step -> saturated and dead share, where it acts on a cloud.
        deviations: of each sum's branch, as a share of the sum, from a walk before this one: they say how fine the
            grids must be.
    """

    def __init__(self, program: Program, deviations: list[float] | None = None):
        super().__init__(program)
        self.cloud: dict[int, Cloud | None] = dict.fromkeys(range(program.registers))
        self.steps: dict[int, Step] = {}
        self.slopes: dict[int, Slopes] = {}
        self.fractions: dict[int, tuple[float, float]] = {}
        self.known = deviations
        self.passed: set[int] = set()
        self.deviations = [1.0] * len(self.skip)
        self.joined = 0

    def run(self) -> Signal:
        """Every row but the distances."""
        self.rows.activation[0], self.rows.mean[0] = 0.0, 0.0
        for stretch in self.program.stretches:
            usual = self.compiled(stretch, "moments")
            followed = [(self.following(stretch, op, step),) for op, step in zip(stretch.ops, usual, strict=True)]
            steps = self.wrapped(stretch, followed)
            for i in range(stretch.count):
                for step in steps:
                    step(i)
        signal = as_arrays(self.rows)
        signal.fractions = self.fractions
        return signal

    def following(self, stretch: Any, op: Any, usual: Callable) -> Callable:
        """The step of an op with what it does to clouds."""
        first, each = place(stretch, op)
        handler = {"phi": self._phi, "add": self._add, "norm": self._norm}.get(op.kind, self._pass)
        if op.kind == "phi" and ends_in_layers(stretch, op):
            handler = self._phi_of_a_sum

        def step(i: int) -> None:
            number, before = first + i * each, [(self.square[r], self.mean[r]) for r in op.ins]
            clouds = [self.cloud[r] for r in op.ins]
            usual(i)
            self.cloud[op.out] = handler(op, number, clouds, before)

        return step

    def _pass(self, op, number, clouds, before):
        if op.kind == "scale" and clouds[0] is not None:
            return Cloud(math.copysign(1.0, self.factors[number][1]) * clouds[0].x, clouds[0].w)
        return clouds[0] if op.kind in ("node", "scale") else None

    def _norm(self, op, number, clouds, before):
        if clouds[0] is None:
            return None
        mean = before[0][1] if self.norms[number].kind == "layer" else 0.0
        return Cloud((clouds[0].x - mean) / math.sqrt(max(1 - mean * mean, 1e-300)), clouds[0].w)

    def _add(self, op, number, clouds, before):
        (A, mean), (V, _) = before
        A, V, total = A + self.skip[number][0], V + self.branch[number][0], self.square[op.out]
        self.joined = number + 1
        if not math.isfinite(total) or not math.isfinite(V):
            self.passed.add(number)
            return clouds[0] if math.isfinite(total) else None
        self.deviations[number] = deviation = math.exp((V - total) / 2)
        if clouds[0] is None:
            return None
        if deviation < LEAST:
            raise NoTheory(
                f"mean field follows a function on a sum whose branch is at least {LEAST:g} of it, got {deviation:.2g} "
                f"in sum {number + 1}; use propagate"
            )
        a = self.skip[number][1] * math.exp((A - total) / 2)
        ax = a * clouds[0].x
        step = self._grid(ax, deviation, total, a * mean, WIDE * self._width(number, deviation))
        w = step.density(clouds[0].w) * step.dh
        kept = w > LIGHT
        w = w[kept] / w[kept].sum()
        self.steps[number] = step = Step(ax, step.h[kept], step.dh[kept], deviation)
        return Cloud(step.h, w)

    def _width(self, number, deviation):
        """Of panels behind a sum: fine enough for its step and the next."""
        later = self.known[(number + 1) % len(self.known)] if self.known else deviation
        return max(min(deviation, later), LEAST)

    def _grid(self, ax, deviation, total, mean, width):
        low, high = ax.min() - REACH * deviation, ax.max() + REACH * deviation
        edges = [np.arange(low, high + width, width), *self._structure(total, mean, width)]
        every = np.unique(np.concatenate(edges))
        every = every[(every >= low) & (every <= high + width)]
        h, dh = panels(every[np.concatenate([[True], np.diff(every) > 1e-12])], ORDER)
        return Step(ax, h, dh, deviation)

    def _structure(self, total, mean, width):
        """Where functions bend or count as saturated, in units of the deviation, with grades towards each."""
        unit = math.exp(-min(max(total, -2 * LARGEST), 2 * LARGEST) / 2)
        for row in self.program.activations:
            if row.name in HOMOGENEOUS:
                yield np.zeros(1)
                continue
            for p in _places(row):
                grades = np.concatenate([[0.0], *([s * _grades(unit, width)] for s in (-1, 1))], axis=None)
                yield p * unit + grades
            yield np.array([mean])

    def _phi_of_a_sum(self, op, number, clouds, before):
        """A function whose output only layers read: its distribution is of no use, unless what it acts on is no
        normal."""
        return None if clouds[0] is None else self._phi(op, number, clouds, before)

    def _phi(self, op, number, clouds, before):
        function, norm = self.at[number]
        row, (q, mean) = function.row, before[0]
        if q == -math.inf or norm.kind == "batch":
            return None
        normal = clouds[0] is None
        if normal:
            clouds = [self._normal(q)]
        elif function.passes and norm.kind is None:
            self.slopes[number] = Slopes(
                np.ones(len(clouds[0].x)), 0.0, clouds[0].w, np.arange(len(clouds[0].x)), False
            )
            return clouds[0]
        h, w = clouds[0]
        shift, log = (
            (0.0, q) if norm.kind is None else (mean if norm.kind == "layer" else 0.0, q - level(norm, q, mean))
        )
        free = row.name in HOMOGENEOUS
        if not free and abs(log) > 2 * LARGEST:
            raise NoTheory(f"mean field follows {row} on a sum of sizes that float64 holds; use propagate")
        z = (h - shift) * (1.0 if free else math.exp(log / 2))
        value, slope = (np.asarray(f(z), float) for f in (row.value, row.slope))
        square = float(w @ value**2)
        if square == 0:
            return None
        self.square[op.out] = math.log(square) + (log if free else 0.0)
        self.mean[op.out] = float(w @ value) / math.sqrt(square)
        x, became = np.unique(value / math.sqrt(square), return_inverse=True)
        scale = log - q  # what the norm divides by
        self.slopes[number] = Slopes(slope**2, scale, w, became, normal)
        flat = np.abs(slope)
        self.fractions[number] = float(w @ (flat < 0.01 * row.max_slope)), float(w @ (flat == 0))
        return Cloud(x, np.bincount(became, w))

    def _normal(self, q):
        """A standard normal, fine enough for the sum that comes next."""
        later = self.known[self.joined % len(self.known)] if self.known else 1.0
        width = WIDE * max(min(0.25, later), LEAST)
        h = self._grid(np.zeros(1), 1.0, q, 0.0, width)
        return Cloud(h.h, h.dh * np.exp(-0.5 * h.h**2) / math.sqrt(2 * math.pi))


def ends_in_layers(stretch: Any, op: Any) -> bool:
    """Whether nothing but layers reads what an op writes."""
    for later in stretch.ops[stretch.ops.index(op) + 1 :]:
        if op.out in later.ins and later.kind != "linear":
            return False
        if later.out == op.out:
            return True
    return op.out != 0


def _places(row: Any) -> list[float]:
    ends = {float(p) for p in special_points(row)}
    for intervals in (correlation.saturated_set(row), correlation.dead_set(row)):
        ends |= {end for pair in intervals for end in pair if math.isfinite(end)}
    return sorted(ends)


def _grades(unit: float, width: float) -> np.ndarray:
    """Distances from a bend, by powers of two, from its own scale up to a panel's."""
    count = math.ceil(math.log2(width / unit)) + 2 if unit < width else 0
    return 0.5 * unit * 2.0 ** np.arange(min(count, 60))


class DensityBackward(ShapedBackward):
    """The backward pass with, for every register that is not normal, what share each of its nodes has in the squared
    gradient: the mean square given the node over the mean square, 1 where it is alike for all."""

    ALIKE = 1.0

    def together(self, *parts: tuple[Any, Any, float]) -> Any:
        return sum(share * shape for shape, _, share in parts)

    def run(self, start: float, coherence: float) -> Gradient:
        super().run(start, coherence)
        self.rows.coherence[:] = 0.0  # cotangents of their own; what pairs share is not known
        return self.rows

    def step(self, op: Any, number: int) -> None:
        """One op, by its own rule where there is no cloud."""
        shape = self.shape.get(op.out, 1.0)
        self.passing = 1.0
        if op.kind == "phi" and number in self.walk.slopes:
            self._phi(op, number, shape)
        elif op.kind == "add" and (number in self.walk.steps or number in self.walk.passed):
            self._add(op, number, shape)
        else:
            if op.kind in ("node", "scale", "norm"):
                self.passing = shape
            OPS[op.kind].backward(self, op, number + (op.kind == "node"))  # node i of the program is a[i + 1]

    def _phi(self, op: Any, s: int, shape: Any) -> None:
        square, scale, w, became, normal = self.walk.slopes[s]
        g, o = self.take(op.out)
        felt = square * (shape[became] if isinstance(shape, np.ndarray) else shape)
        mean = float(w @ felt)
        self.rows.derivative[s] = (math.log(mean) if mean > 0 else -math.inf) + scale
        self.passing = felt / mean if mean > 0 and not normal else 1.0
        self.give(op.ins[0], g + self.rows.derivative[s], o)

    def _add(self, op: Any, j: int, shape: Any) -> None:
        (a, v), (g, o) = op.ins, self.take(op.out)
        self.give(v, g + self.branch[j], o)
        self.passing = shape
        if j in self.walk.steps and isinstance(shape, np.ndarray):
            self.passing = self.walk.steps[j].given(shape)
        self.give(a, g + self.skip[j], o)


def along(program: Program, signal: Signal) -> float:
    """Decades by which the gradient's part along the signal grows end to end, beginning with 1/sqrt(n) of its norm.

    It grows as a small change of the signal's size does: as the signal, of functions of two slopes (Euler), which is
    what this says; of functions that saturate it says too much at most where their signals grow.
    """
    return float((signal.activation[-1] - signal.activation[0] - math.log(int(program.nodes[-1]))) / (2 * math.log(10)))


def forward(program: Program) -> tuple[DensityForward, Signal]:
    """The forward pass; where its steps differ in size twice, for the first says how fine the grids must be."""
    walk = DensityForward(program)
    signal = walk.run()
    d = walk.deviations
    if d and (min(later / now for now, later in zip(d, [*d[1:], d[-1]], strict=True)) < STEADY or d[0] < 0.25):
        walk = DensityForward(program, d)
        signal = walk.run()
    return walk, signal


def backward(walk: DensityForward, signal: Signal, start: float) -> Gradient:
    """The backward pass from the log squared norm of dJ/da[N]."""
    return DensityBackward(walk, signal, 0.0).run(start, 0.0)
