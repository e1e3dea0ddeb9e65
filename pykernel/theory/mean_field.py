# SPDX-License-Identifier: BSD-3-Clause
"""The infinitely wide program, op by op: variances forward, squared gradient norms backward, in the log domain.

Poole et al. 2016 (arXiv 1606.05340) and Schoenholz et al. 2017 (1611.01232) for layers of weights, Yang, Schoenholz
2017 (1712.08969) for skips, Yang et al. 2019 (1902.08129) for batch norm. Each op's maps are in `pykernel.theory.ops`.
Logs are natural; `predict` turns them into decades.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pykernel.ops import TABLES
from pykernel.program import Program, Stretch, distinct
from pykernel.theory import edge_gradient, edge_signal, edges, uniform
from pykernel.theory.batch import batch_table
from pykernel.theory.coherence import kept_shares
from pykernel.theory.distances import DistanceWalk, Function
from pykernel.theory.logs import log_square
from pykernel.theory.neighbours import ANY, Near, mixed, neighbouring, noting, sent_back
from pykernel.theory.ops import OPS
from pykernel.theory.quadrature import LOG_SLOPE2, moments
from pykernel.theory.signals import NEAREST, Gradient, Signal, as_arrays
from pykernel.theory.structure import place
from pykernel.theory.walk import Walk
from pykernel.theory.weights import bias_log, weight_log

CONVERGED = 1e-15  # of a log mean square, over two repetitions


def _number(stretch: Stretch, op: Any) -> tuple[int, int]:
    return place(stretch, op, offset=op.kind == "node")  # node i of the program is a[i + 1]


class Forward(Walk):
    """Mean squares, means and distances of the registers, repetition after repetition.

    Attributes:
        square, mean, distance: register -> log mean square, mean over root mean square, 1 - cosine of two columns.
        weight, bias: logs of sigma_w^2 and sigma_b^2 of the layers.
        skip, branch, factors: (log of the square, sign) of the factors of sums and of plain factors.
        wide: see `uniform.sources`.
        behind: register -> number of the activation step whose output it holds.  pooled: register -> number of the max
            pool of what weights give that it holds.  near: register -> `neighbours.Near`. All are kept where there are
            max pools.
        patches: register -> map of patches of which the layer behind has the middle tap only.  patterns: register ->
            `edge_signal.Patterns` or None.
        rows: the Signal that is filled.
    """

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        weight, bias = weight_log(program), bias_log(program)
        self.weight, self.bias = weight.tolist(), bias.tolist()
        signed = lambda factors: [(log_square(s), math.copysign(1.0, s)) for s in factors.tolist()]
        self.skip, self.branch, self.factors = (
            signed(program.joins.skip),
            signed(program.joins.branch),
            signed(program.factors),
        )
        self.wide = uniform.sources(program)
        n = program.counts
        empty = lambda count: array("d", [math.nan]) * count
        L, S, M, A, J, N = n.layer, n.activation, n.norm, n.mix, n.join, n.node + 1
        sizes = (L, L, L, *8 * [S], *4 * [M], n.affine, *8 * [A], J, J, N, N, N)
        self.rows = Signal(weight, bias, *map(empty, sizes))
        self.square, self.mean, self.distance = ([0.0] * program.registers for _ in range(3))
        self.behind: dict[int, int] = {}
        self.pooled: dict[int, int] = {}
        self.near: dict[int, Near | None] = {}
        self.patches: dict[int, Any] = {}
        self.patterns: dict[int, Any] = {}

    def run(self) -> Signal:
        """Every row."""
        pairs = self.columns > 1
        apart = 1.0 - self.program.correlation
        self.rows.activation[0], self.rows.mean[0] = 0.0, 0.0
        if pairs:
            self.rows.distance[0] = self.distance[0] = max(apart, NEAREST) if self.normed else apart
        for stretch in self.program.stretches:
            steps = self.compiled(stretch, "moments")
            if self.tied or self.edged:
                steps = self.both(stretch, steps)
                for i in range(stretch.count):
                    for step in steps:
                        step(i)
            else:
                self.moments(stretch, steps)
        if pairs and not (self.tied or self.edged):
            for stretch in self.program.stretches:
                self.distances(stretch)
        signal = as_arrays(self.rows)
        if 1 < self.positions < self.columns:
            self.between, self.rows.distance[0], self.distance[0] = True, apart, apart
            for stretch in self.program.stretches:
                self.distances(stretch)
            signal.between = as_arrays(self.rows)
        return signal

    def both(self, stretch: Stretch, steps: list[Callable[[int], None]]) -> list[Callable[[int], None]]:
        """Moments and distances of each op in turn."""
        if self.columns == 1:
            return self.wrapped(stretch, [(step,) for step in steps])
        return self.wrapped(stretch, list(zip(steps, self.compiled(stretch, "distance"), strict=True)))

    def wrapped(self, stretch: Stretch, steps: Sequence[tuple[Callable, ...]]) -> list[Callable[[int], None]]:
        """All steps of each op in turn with what edges do, and what neighbours have in common behind max pools."""
        if self.edged:
            steps = [
                (edge_signal.following(self, stretch, op, own),) for op, own in zip(stretch.ops, steps, strict=True)
            ]
        if self.largest:
            return [neighbouring(self, stretch, op, own) for op, own in zip(stretch.ops, steps, strict=True)]
        return [step for own in steps for step in own]

    def apart(self, register: int) -> float:
        """One minus the mean product of two columns over the mean square: the distance, where positions are alike."""
        d, squares = self.distance[register], self.map.get(register)
        return d if squares is None else 1 - (1 - d) * edges.mean_product(squares, self.program.batch)

    def moments(self, stretch: Stretch, steps: list[Callable[[int], None]]) -> None:
        """Repetitions until nothing changes any more; the rest is like the last."""
        settles, square, mean = self.alike(stretch), self.square, self.mean
        q, m, quiet = square[0], mean[0], 0
        for i in range(stretch.count):
            for step in steps:
                step(i)
            if settles and abs(square[0] - q) <= CONVERGED * (1 + abs(q)) and abs(mean[0] - m) <= CONVERGED:
                quiet += 1
                if quiet == 2:
                    return self.repeat(stretch, i)
            else:
                quiet = 0
            q, m = square[0], mean[0]

    def compiled(self, stretch: Stretch, which: str) -> list[Callable[[int], None]]:
        """The ops of a stretch as functions of the repetition: their "moments" or "distance"."""
        steps = [getattr(OPS[op.kind], which)(self, op, _number(stretch, op)) for op in stretch.ops]
        if which == "moments" and self.largest:
            return [noting(self, stretch, op, step) for op, step in zip(stretch.ops, steps, strict=True)]
        return steps

    def alike(self, stretch: Stretch) -> bool:
        """Whether all repetitions have the same numbers."""
        tables = {
            "layer": (self.weight, self.bias),
            "activation": (self.at,),
            "norm": (self.norms,),
            "affine": (self.program.affine_steps.tolist(),),
            "join": (self.skip, self.branch),
            "factor": (self.factors,),
            "mask": (self.program.masks.tolist(),),
            "mix": (self.mixes.score.tolist(),),
            "window": (self.program.window_steps.tolist(),),
            "drive": (),
            "node": (),
        }
        for op in stretch.ops:
            first, each = place(stretch, op)
            for values in tables[TABLES[op.kind]]:
                chosen = values[first : first + each * stretch.count : each]
                if chosen.count(chosen[0]) != len(chosen):
                    return False
        return True

    def repeat(self, stretch: Stretch, i: int) -> None:
        """Rows of all repetitions behind i, as they are in i."""
        for name, first, each in self.filled(stretch, "ROWS"):
            values, begin = getattr(self.rows, name), first + (i + 1) * each
            end = first + stretch.count * each
            values[begin:end:each] = array("d", [values[first + i * each]]) * len(range(begin, end, each))

    def filled(self, stretch: Stretch, which: str) -> list[tuple[str, int, int]]:
        """Names, first number and step to the next, of the rows that a stretch fills."""
        return [(name, *_number(stretch, op)) for op in stretch.ops for name in getattr(OPS[op.kind], which)]

    def distances(self, stretch: Stretch) -> None:
        """Distances of a stretch whose mean squares are known."""
        maps = [op for op in stretch.ops if op.kind in ("phi", "gate")]
        may_jump = len(maps) == 1 and not self.at[place(stretch, maps[0])[0]][0].exact
        rows, bent = [], False
        for op in stretch.ops:
            module, number = OPS[op.kind], _number(stretch, op)
            rows += [(getattr(self.rows, name), *number, bent) for name in module.FAR_ROWS]
            bent = bent or op in maps
        DistanceWalk(self.compiled(stretch, "distance"), self.distance, rows, stretch.count, may_jump).run()

    def batch(self, function: Function, norm: Any, raw: float, d: float, B: int) -> tuple[float, float, float]:
        """log mean square, relative mean and distance behind batch norm over B columns and phi, from log mean square
        and distance before."""
        spread = raw + math.log(d) if d > 0 else -math.inf
        m = batch_table(function.row, B).at(spread, math.log(norm.eps))
        if m.value2 <= 0:
            return -math.inf, 0.0, 0.0
        return math.log(m.value2), m.mean / math.sqrt(m.value2), max(m.value2 - m.cross, 0.0) / m.value2


class Backward(Walk):
    """Squared gradient norms of the registers, from the last op to the first.

    Each op passes on a share of the squared norm, and of its correlation between two columns, that does not depend on
    them: so a stretch is walked once, all repetitions in one array, relative to what comes in from above; the shares
    are then multiplied. Those of batch norm and attention depend on the correlation: such programs go repetition by
    repetition.

    Attributes:
        signal: the forward pass.  rows: the Gradient that is filled.
        weight: log sigma_w^2.  skip, branch, factors: logs of the squares of the factors of sums and of plain factors.
        slope: log E phi'^2 of each activation step.  kept: what phi' leaves of the correlation of two columns'
            gradients.
        alike_value, alike_factor: what the other side of a gate leaves of it.
    """

    def __init__(self, program: Program, signal: Signal, coherence: float, first: Gradient | None = None) -> None:
        super().__init__(program)
        self.between = first is not None
        self.signal, self.weight = signal, signal.weight
        with np.errstate(divide="ignore"):
            squares = (2 * np.log(np.abs(f)) for f in (program.joins.skip, program.joins.branch, program.factors))
        self.skip, self.branch, self.factors = squares
        n = program.counts
        self.slope = slope_log(program, signal)
        norms = np.array([norm.kind in ("layer", "rms") for norm in program.norms])[program.steps.norm]
        eps = np.log([norm.eps for norm in program.norms])[program.steps.norm]
        derivative = self.slope - np.where(norms, np.logaddexp(signal.raw, eps), 0.0)
        shares = np.zeros((3, n.mix)) if first is None else (first.to_value, first.to_query, first.to_key)
        zeros = lambda: np.zeros(n.layer)
        self.rows = Gradient(np.zeros(n.node + 1), zeros(), derivative, zeros(), zeros(), *shares)
        self.kept = self.alike_value = self.alike_factor = np.ones(n.activation)
        if self.columns > 1:
            self.alike_value, self.alike_factor = 1 - signal.value_distance, 1 - signal.factor_distance
            if coherence or self.tied:
                apart = signal.spread - signal.raw
                self.kept = kept_shares(program, signal.preimage, apart)
                seen = signal.uniform >= 0
                if seen.any():
                    d = np.exp(np.where(np.isfinite(apart[seen]), apart[seen], -745.0))
                    self.kept[seen] = uniform.kept(signal.preimage[seen], signal.uniform[seen], d)
        self._held: dict[int, tuple[Any, Any]] = {}
        self.sent: dict[
            int, edge_gradient.Sent
        ] = {}  # register -> what edges do to what the op that goes back gives it
        self.peaks: dict[int, tuple] = {}  # activation step -> what a max pool has sent it, see `ops.pool`
        self.inside_of: dict[int, dict] = {}  # register -> what neighbours' gradients have in common
        self.inside: dict | None = None  # the same of what an op wrote; giving: of what it gives
        self.giving: dict = {ANY: coherence}
        self.sharing: dict[
            int, float
        ] = {}  # max pool -> factor of windows that share entries, of a gradient with slopes
        self.lean: dict[int, float] = {}  # register -> what its layer's weight gradient has beside its Gram matrices

    def take(self, register: int) -> tuple[Any, Any]:
        """Log squared norm and correlation of a register's gradient, which then has none."""
        return self._held.pop(register)

    def held(self, register: int) -> tuple[Any, Any]:
        """The same, which the register keeps."""
        return self._held[register]

    def hold(self, register: int, g: Any, o: Any) -> None:
        """What a register's gradient is from now on."""
        self._held[register] = g, o

    def give(self, register: int, g: Any, o: Any) -> None:
        """Add an independent gradient to a register's, as edges let it pass."""
        sent = self.sent.get(register)
        if sent is None:
            return self.receive(register, g, o, None)
        self.receive(register, g + sent.log, o * sent.alike, sent.map)

    def receive(self, register: int, g: Any, o: Any, squares: edges.Map) -> None:
        """Squared norms add, correlations and maps in proportion to them."""
        if register in self._held:
            h, p = self._held[register]
            total = np.logaddexp(g, h)
            share = np.exp(np.where(total > -np.inf, g - total, -np.inf))
            g, o = total, share * o + (1 - share) * p
            if self.edged:
                squares = edge_gradient.mixed(squares, self.map.get(register), float(share))
            if self.largest:
                self.inside_of[register] = mixed(self.giving, self.inside_of[register], float(share))
        elif self.largest:
            self.inside_of[register] = self.giving
        self._held[register] = g, o
        if self.edged:
            self.map[register] = squares

    def run(self, start: float, coherence: float) -> Gradient:
        """Every row, from the log squared norm of dJ/da[N] and its correlation between two columns."""
        self.inside_of[0] = {ANY: float(coherence)}
        for stretch in self.program.stretches[::-1]:
            ops = [(OPS[op.kind].backward, op, *_number(stretch, op)) for op in stretch.ops[::-1]]
            walk = self.one_by_one if self.tied or self.normed or self.edged else self.at_once
            start, coherence = walk(stretch, ops, start, coherence)
        self.rows.activation[0] = start
        return self.rows

    def one_by_one(self, stretch: Stretch, ops: list, start: float, coherence: float) -> tuple[float, float]:
        """The repetitions of a stretch, the last first."""
        self.giving = self.inside_of.pop(0, self.giving)
        self.receive(0, start, coherence, self.map.pop(0, None))
        for i in range(stretch.count - 1, -1, -1):
            for backward, op, first, each in ops:
                self.look_inside(op, first + i * each)
                self.through(op, first + i * each, backward)
        return self.take(0)

    def through(self, op: Any, number: int, backward: Callable) -> None:
        """One op, with what edges do."""
        if not self.edged:
            return backward(self, op, number)
        self.sent = edge_gradient.sent_back(self, op, number)
        backward(self, op, number)
        edge_gradient.noted(self, op, number, self.sent)
        self.sent = {}

    def look_inside(self, op: Any, number: int) -> None:
        """What neighbours' gradients have in common, before an op goes back."""
        if not self.largest:
            return
        read, (_, o) = self.inside_of.pop(op.out), self.held(op.out)
        self.inside = read
        number -= op.kind == "node"
        if op.kind == "linear" and ("layer", number) in self.signal.near:
            self.rows.inside[number] = read
        self.giving = sent_back(self, op, number, read, float(o))

    def at_once(self, stretch: Stretch, ops: list, start: float, coherence: float) -> tuple[float, float]:
        """All repetitions of a stretch: what each passes on, then the products from the top."""
        count = stretch.count
        self.give(0, np.zeros(count), np.ones(count))
        for backward, op, first, each in ops:
            backward(self, op, slice(first, first + each * count, each))
        passed, alike = (np.broadcast_to(v, count)[::-1] for v in self.take(0))
        above = start + np.concatenate([[0.0], np.cumsum(passed)])
        shares = coherence * np.concatenate([[1.0], np.cumprod(alike)])
        for _, op, first, each in ops:
            numbers = slice(first, first + each * count, each)
            if op.kind == "linear":
                self.rows.preactivation[numbers] += above[-2::-1]
                self.rows.coherence[numbers] *= shares[-2::-1]
            elif op.kind == "node":
                self.rows.activation[numbers] += above[-2::-1]
        return float(above[-1]), float(shares[-1])

    def through_batch(
        self, function: Function, norm: Any, raw: float, d: float, o: float, B: int
    ) -> tuple[float, float]:
        """log factor of batch norm and phi on the squared norm, and the new correlation: gradients then sum to zero
        over the columns."""
        if B < 2 or not d > 0 or raw == -math.inf:
            return -math.inf, 0.0
        spread = raw + math.log(d)
        m = batch_table(function.row, B).at(spread, math.log(norm.eps))
        factor = (1 - o) * m.own + o * m.common
        return (math.log(factor) - spread if factor > 0 else -math.inf), -1.0 / (B - 1)


def forward(program: Program) -> Signal:
    """Mean squares, means and distances of every layer, activation step and node."""
    return Forward(program).run()


def backward(
    program: Program, signal: Signal, start: float = 0.0, coherence: float = 0.0, between: float = 0.0
) -> Gradient:
    """Squared gradient norms of every layer and node, given the forward pass and (log squared norm, coherence) of
    dJ/da[N]; `between`: the coherence of columns of different inputs, where the signal tells them apart."""
    gradient = Backward(program, signal, coherence).run(start, coherence)
    if signal.between is not None:
        gradient.between = Backward(program, signal.between, between, gradient).run(start, between)
    return gradient


def slope_log(program: Program, signal: Signal) -> np.ndarray:
    """log E phi'^2 of each activation step."""
    out = np.empty(len(signal.preimage))
    for r in distinct(program.steps.row):
        row, chosen = program.activations[r], program.steps.row == r
        t, table = signal.preimage[chosen], moments(row)
        inside = np.isfinite(t)
        slope = (
            table(np.where(inside, t, 0.0), [LOG_SLOPE2])[0] if table.level is None else np.full(len(t), table.level)
        )
        out[chosen] = np.where(inside, slope, log_square(float(row.evaluate("slope", np.zeros(1))[0])))
    seen = signal.uniform >= 0
    out[seen] = uniform.slope(signal.preimage[seen], signal.uniform[seen])
    return out
