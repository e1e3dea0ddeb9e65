# SPDX-License-Identifier: BSD-3-Clause
"""Backward through a population: on a skip a gradient belongs to its unit, so gradients of units are drawn, too."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pykernel.theory.batch import inverse_variance
from pykernel.theory.ops import OPS
from pykernel.theory.population import Join, PopulationForward, Slopes
from pykernel.theory.shaped import ShapedBackward
from pykernel.theory.signals import Gradient, Signal


class PopulationBackward(ShapedBackward):
    """The backward pass with the gradient of every unit of a register that is not normal: mean square 1, None where
    gradients know nothing of their unit."""

    def together(self, *parts: tuple[Any, Any, float]) -> Any:
        other = next((shape for shape, _, _ in parts if shape is not None), None)
        if other is None:
            return None
        first, second = (
            math.sqrt(share) * (self._fresh(o, other) if shape is None else shape) for shape, o, share in parts
        )
        return first + second

    def step(self, op: Any, number: int) -> None:
        """One op, by its own rule where there are no units."""
        self.look_inside(op, number + (op.kind == "node"))
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
        elif op.kind == "pool" and kept is not None and shape is not None:
            OPS["pool"].backward(self, op, number)
            self._largest(number, shape * kept)
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

    def _largest(self, number: int, felt: Any) -> None:
        """Behind the function of a max pool, gradients of units that know them go by their own slopes."""
        step = self.signal.peaks[number].step
        if step is not None:
            g, o, near, peak = self.peaks[step]
            found = peak.peaks
            slope2 = float((felt * felt).mean())
            share = slope2 / found.slope2 if found.slope2 > 0 else 0.0
            own = {name: share * getattr(found, name) for name in ("pull2", "pulls", "shared")}
            slopes = _pairs(felt) / o if o else 0.0
            self.peaks[step] = g, o, near, peak._replace(peaks=found._replace(slope2=slope2, slopes=slopes, **own))

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


def _pairs(x: np.ndarray) -> float:
    """Mean product of two columns."""
    k = x.shape[1]
    return 0.0 if k == 1 else float((x.sum(axis=1) ** 2 - (x * x).sum(axis=1)).mean()) / (k * (k - 1))


def backward(walk: PopulationForward, signal: Signal, start: float, coherence: float) -> Gradient:
    """The backward pass from the log squared norm of dJ/da[N] and its correlation between two columns."""
    return PopulationBackward(walk, signal, coherence).run(start, coherence)
