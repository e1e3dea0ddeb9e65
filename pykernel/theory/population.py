# SPDX-License-Identifier: BSD-3-Clause
"""Columns tied together on entries that are not normal (ResNet v1, batch norm on sums): a population of units stands
for them.

At infinite width a unit's entries over the columns are draws from one law, and weights hand on nothing of it but mean
squares and products: behind them entries are normal and fresh. So what an op does to entries that are not normal is
averaged over a few thousand units that are drawn once, forward, and whose gradients are drawn too, backward: on a skip
a gradient belongs to its unit. Columns are alike, so that a few of them are followed, all where batch norm needs all.
Means over normal entries are taken as elsewhere; only those over other entries have the error of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np

from pykernel.program import Program
from pykernel.theory import correlation
from pykernel.theory.density import ends_in_layers
from pykernel.theory.mean_field import Forward
from pykernel.theory.ops import pool
from pykernel.theory.ops.norm import level
from pykernel.theory.quadrature import HOMOGENEOUS
from pykernel.theory.signals import NEAREST, Signal, as_arrays
from pykernel.theory.structure import NoTheory, place

NUMBERS = 2**17  # units times columns: rows to .01 decades, cosines to .01, over a hundred blocks
KEPT = 2**27  # numbers that the forward pass leaves for the backward pass, in float32: half a GiB
FEWEST = 1024  # units
FOLLOWED = 8  # columns
MOST_COLUMNS = 256  # that batch norm on a sum of other than normal entries is followed for
LARGEST = 300.0  # |log of a deviation| up to which a function that bends is evaluated


class Slopes(NamedTuple):
    """Of an activation step or a batch norm: phi' unit by unit, log of what its norm divides squares by.

    Behind batch norm also `y`, the normalised entries; `inverse`, one over the deviation unit by unit, None where the
    entries that it normalises are normal; else whether what it acts on is a population is `sampled`.
    """

    slope: Any
    scale: float
    sampled: bool
    y: Any = None
    inverse: Any = None


class Join(NamedTuple):
    """Of a sum: whether skip and branch are populations."""

    skip: bool
    branch: bool


class PopulationForward(Forward):
    """The forward pass with units beside every register that is not normal.

    Attributes:
        units: register -> (units, followed columns) of mean square 1, None where it is normal.
        tape: (kind, number) of an op on such units -> what its backward step needs.
        fractions: number of an activation step -> saturated and dead share.
        followed, count: columns and units.
    """

    def __init__(self, program: Program, every_column: bool):
        super().__init__(program)
        self.units: dict[int, Any] = dict.fromkeys(range(program.registers))
        self.tape: dict[tuple[str, int], Any] = {}
        self.fractions: dict[int, tuple[float, float]] = {}
        if every_column and self.columns > MOST_COLUMNS:
            raise NoTheory(
                f"mean field follows batch norm on a sum whose entries are not normal for up to {MOST_COLUMNS} columns "
                f"(inputs times positions), got {self.columns}; use propagate"
            )
        fewest = min(self.columns, *self.spread.steps, *self.spread.norms)
        if every_column and fewest < self.columns:
            raise NoTheory(
                "mean field follows batch norm on a sum whose entries are not normal where all blocks have as many "
                "positions; use propagate"
            )
        self.followed = self.columns if every_column else min(fewest, FOLLOWED)
        kept = self.followed * max(sum(program.counts[i] for i in (1, 2, 6)), 1)
        self.count = min(NUMBERS // self.followed, KEPT // kept)
        if self.count < FEWEST:
            raise NoTheory(
                f"mean field follows entries that are not normal over {KEPT // (FEWEST * self.followed)} activation "
                f"steps and norms at most where {self.followed} columns are followed; use propagate"
            )
        self.draws = np.random.Generator(np.random.SFC64(0))
        self.quantiles, self.stride = _lattice(self.count)

    def run(self) -> Signal:
        """Every row."""
        self.rows.activation[0], self.rows.mean[0] = 0.0, 0.0
        apart = 1.0 - self.program.correlation
        self.distance[0] = math.nan if self.columns == 1 else max(apart, NEAREST) if self.normed else apart
        self.rows.distance[0] = self.distance[0]
        for stretch in self.program.stretches:
            moments, pairs = (self.compiled(stretch, which) for which in ("moments", "distance"))
            both = zip(moments, pairs, strict=True) if self.columns > 1 else ((one,) for one in moments)
            followed = [(self.following(stretch, op, usual),) for op, usual in zip(stretch.ops, both, strict=True)]
            steps = self.wrapped(stretch, followed)
            for i in range(stretch.count):
                for step in steps:
                    step(i)
        signal = as_arrays(self.rows)
        signal.fractions = self.fractions
        return signal

    def following(self, stretch: Any, op: Any, usual: tuple[Callable, ...]) -> Callable:
        """The step of an op with what it does to units."""
        first, each = place(stretch, op)
        handler = getattr(self, f"_{op.kind}", None)
        unread = ends_in_layers(stretch, op)

        def step(i: int) -> None:
            number, before = first + i * each, [(self.square[r], self.mean[r], self.distance[r]) for r in op.ins]
            units = [self.units[r] for r in op.ins]
            for part in usual:
                part(i)
            normal = all(x is None for x in units)
            self.units[op.out] = None if handler is None or (normal and unread) else handler(op, number, units, before)

        return step

    def _node(self, op, number, units, before):
        return units[0]

    def _scale(self, op, number, units, before):
        return None if units[0] is None else self.factors[number][1] * units[0]

    def _mix(self, op, number, units, before):
        return units[2]  # over one position

    def _affine(self, op, number, units, before):
        row = self.program.affines[self.program.affine_steps[number]]
        weight, bias = float(row.weight[0]), float(row.bias[0])
        (q, _, d), total = before[0], self.square[op.out]
        if not math.isfinite(total) or (units[0] is None and bias == 0):
            return None
        x = self._normal(d) if units[0] is None else units[0]
        return weight * math.exp((q - total) / 2) * x + bias * math.exp(-total / 2)

    def _mask(self, op, number, units, before):
        left = 1 - float(self.program.masks[number])
        x = self._normal(before[0][2]) if units[0] is None else units[0]
        lives = (self.draws.random(x.shape, dtype=np.float32) < left) / math.sqrt(left)
        self.tape["mask", number] = lives.astype(np.float32)
        return x * lives

    def _pool(self, op, number, units, before):
        """The largest of fresh normal entries behind their function, and the slopes there."""
        peak = self.rows.peaks.get(number)
        if peak is None:
            return units[0]
        log, d = before[0][0], before[0][2]
        function = self.line if peak.step is None else self.at[peak.step][0]
        if peak.step is not None:
            log, d = pool.preimage(self, peak.step)
        draws, k = self.draws, self.followed
        sizes, shares = zip(*peak.plan.windows.sizes, strict=True)
        have = draws.choice(sizes, (self.count, k), p=np.array(shares) / sum(shares))
        common = math.sqrt(max(1 - d, 0.0)) * draws.standard_normal((self.count, 1), np.float32)
        most, slope = np.full((self.count, k), -np.inf), np.zeros((self.count, k))
        free = function.row.name in HOMOGENEOUS
        std = 1.0 if free else math.exp(log)
        for j in range(max(sizes)):
            z = std * (common + math.sqrt(min(d, 1.0)) * draws.standard_normal((self.count, k), np.float32))
            value = np.asarray(function.row.value(z), float)
            larger = (value > most) & (j < have)
            most, slope = np.where(larger, value, most), np.where(larger, function.row.slope(z), slope)
        self.tape["pool", number] = slope.astype(np.float32)
        return self._sized(most)

    def _add(self, op, number, units, before):
        total = self.square[op.out]
        if not math.isfinite(total) or all(x is None for x in units):
            return None
        self.tape["add", number] = Join(*(x is not None for x in units))
        out = 0.0
        for x, (q, _, d), (factor, sign) in zip(units, before, (self.skip[number], self.branch[number]), strict=True):
            if math.isfinite(q + factor):
                x = self._normal(d, next(y for y in units if y is not None)) if x is None else x
                out = out + sign * math.exp((q + factor - total) / 2) * x
        return out

    def _gate(self, op, number, units, before):
        (q, _, d), (_, _, far) = before
        function = self.at[number][0]
        if not math.isfinite(self.square[op.out]):
            return None
        z = self._normal(d) * math.exp(min(max(q, -2 * LARGEST), 2 * LARGEST) / 2)
        value, slope = (np.asarray(f(z), float) for f in (function.row.value, function.row.slope))
        v = self._normal(far, z) if units[1] is None else units[1]
        self.tape["gate", number] = (value.astype(np.float32), slope.astype(np.float32), v.astype(np.float32))
        return self._sized(value * v)

    def _norm(self, op, number, units, before):
        norm, (_, mean, _) = self.norms[number], before[0]
        if norm.kind == "batch":
            y, inverse = self._batch(norm, units[0], before[0], int(self.spread.norms[number]))
            if y is None:
                return None
            slope = np.ones(1, np.float32)
            self.tape["norm", number] = Slopes(slope, 0.0, units[0] is not None, y.astype(np.float32), inverse)
            return self._measured(op.out, y, 0.0) if units[0] is not None else self._sized(y)
        if units[0] is None:
            return None
        mean = mean if norm.kind == "layer" else 0.0
        return (units[0] - mean) / math.sqrt(max(1 - mean * mean, 1e-300))

    def _phi(self, op, number, units, before):
        (function, norm), (q, mean, d) = self.at[number], before[0]
        row, x, y, inverse, B = function.row, units[0], None, None, int(self.spread.steps[number])
        if q == -math.inf or (norm.kind == "batch" and B == 1):
            return None
        if function.passes and norm.kind is None:
            return x
        free = row.name in HOMOGENEOUS and norm.kind != "batch"
        if norm.kind == "batch":
            y, inverse = self._batch(norm, x, before[0], B)
            if y is None:
                return None
            z, log, scale = y, 0.0, 0.0
        else:
            shift = mean if norm.kind == "layer" and x is not None else 0.0
            scale = 0.0 if norm.kind is None else -level(norm, q, mean)
            log = q + scale
            if not free and abs(log) > 2 * LARGEST:
                raise NoTheory(f"mean field follows {row} on a sum of sizes that float64 holds; use propagate")
            z = ((self._normal(d) if x is None else x) - shift) * (1.0 if free else math.exp(log / 2))
        value, slope = (np.asarray(f(z), float) for f in (row.value, row.slope))
        kept = None if y is None else y.astype(np.float32)
        self.tape["phi", number] = Slopes(slope.astype(np.float32), scale, x is not None, kept, inverse)
        if x is None:
            return self._sized(value)
        flat = np.abs(slope)
        dead = float((flat == 0).all(axis=1).mean()) if self.followed == B else math.nan
        dead = dead if correlation.dead_set(row) else 0.0
        self.fractions[number] = float((flat < 0.01 * row.max_slope).mean()), dead
        return self._measured(op.out, value, log if free else 0.0)

    def _batch(self, norm, x, before, B):
        """Normalised entries, and one over their deviation where they are those of a population."""
        (q, _, d), k = before, self.followed
        if B == 1 or not math.isfinite(q) or not d > 0:
            return None, None
        if x is not None:
            moved = x - x.mean(axis=1, keepdims=True)
            ratio = math.exp(min(math.log(norm.eps) - q, 700.0))
            inverse = 1 / np.sqrt((moved * moved).mean(axis=1, keepdims=True) + ratio)
            return moved * inverse, inverse
        z = self.draws.standard_normal((self.count, k), np.float32)
        total, square = z.sum(axis=1, keepdims=True), (z * z).sum(axis=1, keepdims=True)
        if k < B:  # of the others only their sum and their squares matter
            rest = self.draws.standard_normal((self.count, 1))
            total = total + math.sqrt(B - k) * rest
            square = square + rest**2
            square = square + (self.draws.chisquare(B - k - 1, (self.count, 1)) if k < B - 1 else 0.0)
        mean = total / B
        variance = np.maximum(square / B - mean * mean, 1e-300)
        return (z - mean) / np.sqrt(variance + math.exp(min(math.log(norm.eps) - q - math.log(d), 700.0))), None

    def _normal(self, d, beside=None):
        """A normal register's units, of mean square 1 and this distance, that know nothing of those beside them."""
        return self.normal(0.0 if self.followed == 1 else 1 - d, beside)

    def normal(self, c: float, beside: Any = None) -> Any:
        """Normal entries of correlation c, with the mean squares and products of such to the last digit."""
        k = self.followed
        z = self.draws.standard_normal((self.count, k), np.float32)
        own, mean = z - z.mean(axis=1, keepdims=True), np.empty((self.count, 1), np.float32)
        if beside is None:
            order = self.draws.permutation(self.count)
        else:
            middle = beside.mean(axis=1, keepdims=True)
            own = own - _along(beside - middle, own)
            order = np.argsort(middle[:, 0])
        turn = int(self.draws.integers(self.count))
        mean[order, 0] = self.quantiles[(np.arange(self.count) * self.stride + turn) % self.count]
        if beside is not None:
            mean = mean - _along(middle - middle.mean(), mean)
        mean *= math.sqrt(max(1 + (k - 1) * c, 0.0) / k / float((mean * mean).mean()))
        if k > 1:
            own *= math.sqrt(max(1 - c, 0.0) * (k - 1) / k / float((own * own).mean()))
        return own + mean

    def _sized(self, x):
        """Units of a law whose moments are known, brought to mean square 1."""
        size = math.sqrt(float((x * x).mean()))
        return x / size if size > 0 else None

    def _measured(self, register, x, log):
        """The same where they are not: they are taken from the units, which stand for exp(log / 2) times x."""
        square = float((x * x).mean())
        if square == 0:
            self.square[register], self.mean[register], self.distance[register] = -math.inf, 0.0, 0.0
            return None
        self.square[register] = math.log(square) + log
        self.mean[register] = float(x.mean()) / math.sqrt(square)
        if self.followed > 1:
            self.distance[register] = max(_apart(x) / square, NEAREST) if self.normed else _apart(x) / square
        return x / math.sqrt(square)


@lru_cache(maxsize=8)
def _lattice(count: int) -> tuple[Any, int]:
    """Normal numbers at equal steps of probability, and the step of a lattice that spreads them evenly over units in
    order (array-RQMC: L'Ecuyer, Lecot, Tuffin 2008)."""
    quantile = NormalDist().inv_cdf
    stride = round(count * (math.sqrt(5) - 1) / 2)
    while math.gcd(stride, count) > 1:
        stride += 1
    return np.array([quantile((i + 0.5) / count) for i in range(count)], np.float32), stride


def _along(x, z):
    """The part of z along x."""
    square = float((x * x).sum())
    return x * (float((x * z).sum()) / square) if square > 0 else 0.0


def _apart(x):
    """Mean of half the squared difference of two columns, over all pairs."""
    k = x.shape[1]
    moved = x - x.mean(axis=1, keepdims=True)
    return float((moved * moved).sum(axis=1).mean()) / (k - 1)


def forward(program: Program, every_column: bool) -> tuple[PopulationForward, Signal]:
    """The forward pass; `every_column`: where batch norm acts on entries that are not normal."""
    walk = PopulationForward(program, every_column)
    return walk, walk.run()


def pairs(program: Program, signal: Signal) -> Signal:
    """A signal of one column at a time (`density`) with what two columns, or all, share."""
    found = PopulationForward(program, False).run()
    for name in (field.name for field in fields(Signal) if field.name.endswith("distance")):
        setattr(signal, name, getattr(found, name))
    dead = {s: pair[1] for s, pair in found.fractions.items()}
    signal.fractions = {s: (pair[0], dead.get(s)) for s, pair in (signal.fractions or {}).items()}
    return signal


def notes(program: Program, follows: str) -> list[str]:
    """A plain sentence on what a population of units leaves open."""
    if not follows or (follows == "density" and program.columns == 1):
        return []
    what = "similarity and dead units" if follows == "density" else "rows"
    return [
        f"functions or batch norm act on entries that are not normal: {what} are taken from a population of units that "
        "stands for infinitely many, right to about 0.01 decades of a norm"
    ]
