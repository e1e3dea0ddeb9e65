# SPDX-License-Identifier: BSD-3-Clause
"""How alike two inputs' gradients are: a head makes them so at the top, each layer's slopes take a part of it away on
the way back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from pykernel.program import Program
from pykernel.theory.correlation import has_kinks, pair_loss, seen_slopes
from pykernel.theory.quadrature import special_points
from pykernel.theory.structure import place

BEND = 0.1  # of the log deviation and log distance off a straight line over layers that are not looked at one by one
CLOSE = 3e-4  # of what is lost in a layer


def kept_share(row: Any, std: float, distance: float) -> float:
    """E phi'(u1) phi'(u2) / E phi'(u)^2: what one layer leaves of the correlation of two inputs' gradients.

    Notes:
        The slope of the C-map (Poole et al. 2016, arXiv 1606.05340, eq. 7) over chi. Two linear pieces: arc-cosine
        kernel of order 0 (Cho, Saul 2009); sin: by E exp(i k z).
    """
    d = min(max(distance, 0.0), 2.0)
    slopes = seen_slopes(row, std)
    if slopes:
        left, right = slopes
        even, odd = (right - left) / 2, (right + left) / 2  # phi'(z) = odd + even sign z
        lost = 4 / math.pi * math.asin(math.sqrt(d / 2))
        return 1 - even * even * lost / (odd * odd + even * even)
    if d < 1e-13:
        return 1.0
    if row.name == "sin":
        q = std * std
        return (math.exp(-q * d) + math.exp(-q * (2 - d))) / (1 + math.exp(-2 * q))
    lost, square = pair_loss(row.slope, std, d, special_points(row), has_kinks(row))
    return 1 - lost if square > 0 else 1.0


def kept_shares(program: Program, log_std: np.ndarray, log_distance: np.ndarray) -> np.ndarray:
    """`kept_share` of every activation step, from the logs of the deviation and of the distance of what phi acts on; 1
    where it is dead."""
    out = np.ones(len(log_std))
    at = np.stack([log_std, log_distance], axis=1)
    alive = np.isfinite(log_std) & (log_distance > -60)
    known: dict[tuple[int, float, float], float] = {}

    def value(s: int) -> float:
        digits = 6 if len(known) < 200 else 3  # of a chain that never runs straight
        key = int(program.steps.row[s]), round(float(at[s, 0]), digits), round(float(at[s, 1]), digits)
        if key not in known:
            known[key] = kept_share(
                program.activations[key[0]], math.exp(min(max(key[1], -340.0), 340.0)), math.exp(key[2])
            )
        return known[key]

    for steps in _runs(program):  # steps at the same place of their repetition follow one another
        _fill(out, at, steps[alive[steps]], value)
    return out


def _runs(program: Program) -> Iterator[np.ndarray]:
    """Numbers of the activation steps of one place in a stretch and one function, place by place."""
    for stretch in program.stretches:
        for op in stretch.ops:
            if op.kind in ("phi", "gate"):
                first, each = place(stretch, op)
                steps = np.arange(first, first + each * stretch.count, each)
                rows = program.steps.row[steps]
                yield from (steps[rows == row] for row in np.unique(rows))


def _fill(out: np.ndarray, at: np.ndarray, steps: np.ndarray, value: Callable[[int], float]) -> None:
    """`value` of these steps into `out`: spans are halved until the chain moves on a straight line and so does what it
    keeps."""
    spans = [(0, len(steps) - 1)] if len(steps) else []
    while spans:
        low, high = spans.pop()
        middle = (low + high) // 2
        part = np.linspace(0.0, 1.0, high - low + 1)
        first, last = value(steps[low]), value(steps[high])
        found = out[steps[low : high + 1]] = first + (last - first) * part
        if high - low < 2:
            continue
        chosen = at[steps[low : high + 1]]
        bend = np.abs(chosen - chosen[0] - part[:, None] * (chosen[-1] - chosen[0])).max()
        off = abs(value(steps[middle]) - found[middle - low])
        if bend > BEND or off > CLOSE * (1 - value(steps[middle])) + 1e-7:
            spans += [(low, middle), (middle, high)]
