# SPDX-License-Identifier: BSD-3-Clause
"""What zeros beyond the edge do: a map over the positions of mean squares forward, and of squared gradients backward.

Near an edge a patch sees fewer positions, and a position is seen by fewer patches. So, beside the means over positions
that other rooms follow, every register has here what each position's mean square, or squared gradient, is over that
mean (`edge_signal`, `edge_gradient`). Weights hand on squares tap by tap, functions act on every position's own
variance: these maps are exact at infinite width. Here is what both directions share.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pykernel.program import Program, Stretch, once
from pykernel.theory.quadrature import LOG_VALUE2, MEAN
from pykernel.theory.structure import place
from pykernel.window import OUTSIDE, Window

Map = Any  # float64 over the positions of one input, mean 1; None where all are alike
NOTHING = 1e-30  # of a variance


class Preimage(NamedTuple):
    """Of an activation step, or a norm: log of each position's variance behind its norm, over what it is on average;
    the same of what a layer or RMS norm divides squares by, None for others."""

    variance: Any
    level: Any


class Centred(NamedTuple):
    """Numbers of the layers whose weights have the middle tap only (delta-orthogonal), and of the windows that they
    read."""

    layers: frozenset[int]
    windows: frozenset[int]


@once
def edged(program: Program) -> Centred | None:
    """The delta-orthogonal layers of a program in which patches see zeros beyond an edge; None where none does."""
    layers, windows, sees = set(), set(), False
    for stretch in program.stretches:
        patches: dict[int, Any] = {}
        for op in stretch.ops:
            if op.kind == "gather":
                numbers = _numbers(stretch, op)
                sees = sees or any(sees_beyond(program.windows[program.window_steps[n]]) for n in numbers)
                patches[op.out] = op
                continue
            if op.kind == "linear" and op.ins[0] in patches:
                for l, w in zip(_numbers(stretch, op), _numbers(stretch, patches[op.ins[0]]), strict=True):
                    draw = program.draws[program.layers.draw[l]]
                    if draw.distribution == "haar" and draw.parameter and program.layers.taps[l] > 1:
                        layers.add(l)
                        windows.add(w)
            patches.pop(op.out, None)
    return Centred(frozenset(layers), frozenset(windows)) if sees else None


def _numbers(stretch: Stretch, op: Any) -> range:
    first, each = place(stretch, op)
    return range(first, first + each * stretch.count, each)


@lru_cache(maxsize=256)
def sees_beyond(window: Window) -> bool:
    """Whether taps of some windows lie beyond an edge."""
    return bool((window.sources() == OUTSIDE).any())


@lru_cache(maxsize=128)
def sources(window: Window) -> np.ndarray:
    """As `Window.sources`, one beyond the last position in the place of OUTSIDE."""
    seen = window.sources()
    return np.where(seen == OUTSIDE, math.prod(window.field), seen)


def seen(window: Window, values: np.ndarray) -> np.ndarray:
    """Values of what each tap of each window sees, zero beyond the edge, (taps, windows)."""
    return np.append(values, 0.0)[sources(window)]


def sent(window: Window, values: np.ndarray) -> np.ndarray:
    """The transpose: the sum over all taps that see a position of a number of each window, (positions,)."""
    at = sources(window)
    count = math.prod(window.field)
    return np.bincount(at.ravel(), np.broadcast_to(values, at.shape).ravel(), count + 1)[:count]


def pairs(values: Any, batch: int) -> Any:
    """Sums over ordered pairs of two columns, of `batch` inputs, of products of the roots of values, over the last
    axis: as mean squares are handed on where all pairs are equally correlated."""
    return (batch * np.sqrt(values).sum(axis=-1)) ** 2 - batch * np.sum(values, axis=-1)


def shared(before: np.ndarray, after: np.ndarray, batch: int) -> float:
    """What is left of the sum of products of two columns, from squares before (over taps, where these have an axis) and
    behind; 1 where there is one column."""
    if batch * len(after) == 1:
        return 1.0
    made = float(pairs(after, batch))
    return float(np.mean(pairs(before, batch))) / made if made > 0 else 1.0


def together(window: Window, squares: Map, offsets: Any) -> list[float]:
    """What is left of the correlation of two positions so far apart, for each of `offsets`, in the patches that these
    windows see."""
    roots = np.sqrt(seen(window, whole(squares, math.prod(window.field))))
    both = [values.reshape(-1, *window.out) for values in (roots, np.sqrt((roots**2).mean(axis=0)))]
    rows, columns = window.out
    found = []
    for i, j in offsets:
        one = slice(0, rows - i), slice(max(-j, 0), columns - max(j, 0))
        other = slice(i, rows), slice(max(j, 0), columns - max(-j, 0))
        before, after = (float((v[:, *one] * v[:, *other]).sum()) / len(v) for v in both)
        found.append(before / after if after > 0 else 1.0)
    return found


def mean_product(values: Map, batch: int) -> float:
    """The mean over these pairs; 1 where all positions are alike, or there is one column."""
    columns = 1 if values is None else batch * len(values)
    return 1.0 if columns == 1 else float(pairs(values, batch)) / (columns * (columns - 1))


def whole(values: Map, positions: int) -> np.ndarray:
    """A map in numbers."""
    return np.ones(positions) if values is None else values


def normal(values: np.ndarray) -> tuple[Map, float]:
    """Values over their mean, and log of that."""
    mean = float(values.mean())
    if not mean > 0:
        return None, -math.inf
    return (None if len(values) == 1 else values / mean), math.log(mean)


def moments_at(function: Any, t: float, own: Preimage, columns: Any = (LOG_VALUE2, MEAN)) -> np.ndarray:
    """Moments of a function at each position, and last at the mean."""
    return function.table.sampled(np.append(t + own.variance / 2, t), list(columns))
