# SPDX-License-Identifier: BSD-3-Clause
"""Backward through a population: on a skip a gradient belongs to its unit, so gradients of units are drawn, too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pykernel.theory.batch import inverse_variance
from pykernel.theory.mean_field import Backward
from pykernel.theory.ops import OPS
from pykernel.theory.population import Join, PopulationForward, Slopes
from pykernel.theory.signals import Gradient, Signal
from pykernel.theory.structure import place


class PopulationBackward(Backward):
    """The backward pass with the gradient of every unit of a register that is not normal.

    Attributes:
        shape: register -> gradients of its units, mean square 1; None where they know nothing of their unit.
        passing: what the next `give` hands on of it.
    """

    def __init__(self, walk: PopulationForward, signal: Signal, coherence: float):
        super().__init__(walk.program, signal, coherence)
        self.walk = walk
        self.shape: dict[int, Any] = {}
        self.passing: Any = None

    def take(self, register: int) -> tuple[Any, Any]:
        self.shape.pop(register, None)
        return super().take(register)

    def give(self, register: int, g: Any, o: Any) -> None:
        if register in self._held:
            h, p = self._held[register]
            total = np.logaddexp(g, h)
            share = math.exp(g - total) if total > -math.inf else 1.0
            parts = [(self.passing, o, share), (self.shape.get(register), p, 1 - share)]
            if any(x is not None for x, _, _ in parts):
                other = next(x for x, _, _ in parts if x is not None)
                drawn = (math.sqrt(s) * (self._fresh(c, other) if x is None else x) for x, c, s in parts)
                self.shape[register] = next(drawn) + next(drawn)
        else:
            self.shape[register] = self.passing
        super().give(register, g, o)

    def run(self, start: float, coherence: float) -> Gradient:
        self.passing = None
        self.give(0, start, coherence)
        for stretch in self.program.stretches[::-1]:
            ops = [(op, place(stretch, op)) for op in stretch.ops[::-1]]
            for i in range(stretch.count - 1, -1, -1):
                for op, (first, each) in ops:
                    self.step(op, first + i * each)
        self.rows.activation[0] = self.take(0)[0]
        return self.rows

    def step(self, op: Any, number: int) -> None:
        """One op, by its own rule where there are no units."""
        shape, kept = self.shape.get(op.out), self.walk.tape.get((op.kind, number))
        self.passing = None
        if isinstance(kept, Slopes) and (kept.sampled or shape is not None):
            self._slopes(op, number, shape, kept)
        elif isinstance(kept, Join):
            (g, o), (a, v) = self.take(op.out), op.ins
            self.passing = shape if kept.branch else None
            self.give(v, g + self.branch[number], o)
            self.passing = shape if kept.skip else None
            self.give(a, g + self.skip[number], o)
        elif op.kind == "gate" and kept is not None and shape is not None:
            self._gate(op, number, shape, kept)
        elif op.kind == "mask" and kept is not None and shape is not None:
            self._mask(op, number, shape * kept)
        else:
            if op.kind in ("node", "scale", "affine") or (op.kind == "norm" and kept is None):
                self.passing = shape
            OPS[op.kind].backward(self, op, number + (op.kind == "node"))  # node i of the program is a[i + 1]

    def _slopes(self, op: Any, number: int, shape: Any, kept: Slopes) -> None:
        g, o = self.take(op.out)
        felt = (self._fresh(o) if shape is None else shape) * kept.slope
        if kept.inverse is not None:
            pull = (felt * kept.y).mean(axis=1, keepdims=True)
            felt = (felt - felt.mean(axis=1, keepdims=True) - kept.y * pull) * kept.inverse
        mean, product, scale = float((felt * felt).mean()), _pairs(felt), kept.scale
        if kept.inverse is not None:
            scale = -float((self.signal.raw if op.kind == "phi" else self.signal.norm_raw)[number])
        elif kept.y is not None:
            mean, product, scale = self._through_normal(op, number, felt, kept.y)
        factor = (math.log(mean) if mean > 0 else -math.inf) + scale
        if op.kind == "phi":
            self.rows.derivative[number] = factor
        self.passing = felt / math.sqrt(mean) if kept.sampled and mean > 0 else None
        self.give(op.ins[0], g + factor, product / mean if mean > 0 else 0.0)

    def _through_normal(self, op: Any, number: int, felt: Any, y: Any) -> tuple[float, float, float]:
        """Mean square and mean product behind batch norm of normal entries, and log of what multiplies both."""
        signal, spread = self.signal, self.spread
        B = int((spread.steps if op.kind == "phi" else spread.norms)[number])
        if op.kind == "phi":
            norm, raw, d = self.at[number][1], signal.raw[number], signal.raw_distance[number]
        else:
            norm, raw, d = self.norms[number], signal.norm_raw[number], signal.norm_distance[number]
        log_spread = float(raw) + math.log(d)
        factor, shrink = inverse_variance(B, math.log(norm.eps) - log_spread)
        turned = felt * y
        own, along = float((felt * felt).mean()), float((turned * turned).mean())
        left = own - (own + (B - 1) * _pairs(felt)) / B
        left = max(left - (along + (B - 1) * _pairs(turned)) * (2 - shrink) / B, 0.0)
        return left, -left / (B - 1), math.log(factor) - log_spread

    def _mask(self, op: Any, number: int, felt: Any) -> None:
        """A gradient knows of the masks that its units had."""
        g, _ = self.take(op.out)
        mean = float((felt * felt).mean())
        self.passing = felt / math.sqrt(mean)
        self.give(op.ins[0], g + math.log(mean) - math.log(1 - self.program.masks[number]), _pairs(felt) / mean)

    def _gate(self, op: Any, number: int, shape: Any, kept: tuple) -> None:
        (g, v), (G, _) = op.ins, self.take(op.out)
        value, slope, factor = kept
        size = float(self.signal.factor[number])
        shares = []
        for register, felt, log in ((g, shape * slope * factor, size), (v, shape * value, 0.0)):
            mean = float((felt * felt).mean())
            shares.append((math.log(mean) if mean > 0 else -math.inf) + log)
            self.give(register, G + shares[-1], _pairs(felt) / mean if mean > 0 else 0.0)
        self.rows.derivative[number] = np.logaddexp(shares[0], shares[1])

    def _fresh(self, o: Any, beside: Any = None) -> Any:
        """Gradients that know nothing of their units."""
        return self.walk.normal(float(o), beside)


def _pairs(x):
    """Mean product of two columns."""
    k = x.shape[1]
    return 0.0 if k == 1 else float((x.sum(axis=1) ** 2 - (x * x).sum(axis=1)).mean()) / (k * (k - 1))


def backward(walk: PopulationForward, signal: Signal, start: float, coherence: float) -> Gradient:
    """The backward pass from the log squared norm of dJ/da[N] and its correlation between two columns."""
    return PopulationBackward(walk, signal, coherence).run(start, coherence)
