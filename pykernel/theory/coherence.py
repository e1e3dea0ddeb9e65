# SPDX-License-Identifier: BSD-3-Clause
"""How alike two inputs' gradients are: a head makes them so at the top, each layer's slopes take a part of it away on the way back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pykernel.plan import Plan
from pykernel.theory.correlation import FAR, _arc, _kinks, pair_loss
from pykernel.theory.quadrature import special_points

BEND = 0.1  # of the log deviation and log distance off a straight line over layers that are not looked at one by one
CLOSE = 3e-4  # of what is lost in a layer


def kept_share(row: Any, std: float, distance: float) -> float:
    """E phi'(u1) phi'(u2) / E phi'(u)^2: what one layer leaves of the correlation of two inputs' gradients.

    Notes:
        The slope of the C-map (Poole et al. 2016, arXiv 1606.05340, eq. 7) over chi. Two linear pieces: arc-cosine kernel of order 0 (Cho,
        Saul 2009); sin: by E exp(i k z).
    """
    d = min(max(distance, 0.0), 2.0)
    arc = _arc(row)
    if not arc and std > FAR and math.isfinite(row.left) and math.isfinite(row.right) and row.left**2 + row.right**2 > 0:
        arc = float(row.left), float(row.right)
    if arc:
        even, odd = (arc[1] - arc[0]) / 2, (arc[1] + arc[0]) / 2  # phi'(z) = odd + even sign z
        lost = 4 / math.pi * math.asin(math.sqrt(d / 2))
        return 1 - even * even * lost / (odd * odd + even * even)
    if d < 1e-13:
        return 1.0
    if row.name == "sin":
        q = std * std
        return (math.exp(-q * d) + math.exp(-q * (2 - d))) / (1 + math.exp(-2 * q))
    lost, square = pair_loss(row.slope, std, d, special_points(row), _kinks(row))
    return 1 - lost if square > 0 else 1.0


def kept_shares(plan: Plan, log_std: np.ndarray, log_distance: np.ndarray) -> np.ndarray:
    """`kept_share` of every layer, (L,), from the logs of the deviation and of the distance of what phi acts on; 1 where it is dead."""
    row, L = plan.activation, plan.depth
    out = np.ones(L)
    at = np.stack([log_std, log_distance], axis=1)
    alive = np.flatnonzero(np.isfinite(log_std) & (log_distance > -60))
    known: dict[tuple[float, float], float] = {}

    def value(l: int) -> float:
        digits = 6 if len(known) < 200 else 3  # of a chain that never runs straight
        key = round(float(at[l, 0]), digits), round(float(at[l, 1]), digits)
        if key not in known:
            known[key] = kept_share(row, math.exp(min(max(key[0], -340.0), 340.0)), math.exp(key[1]))
        return known[key]

    period = max(plan.residual_every, 1)  # layers at the same place of their branch follow one another
    for place in range(min(period, L)):
        layers = alive[alive % period == place]
        spans = [(0, len(layers) - 1)] if len(layers) else []
        while spans:  # halved until the chain moves on a straight line and so does what it keeps
            low, high = spans.pop()
            middle = (low + high) // 2
            part = np.linspace(0.0, 1.0, high - low + 1)
            first, last = value(layers[low]), value(layers[high])
            found = out[layers[low : high + 1]] = first + (last - first) * part
            if high - low < 2:
                continue
            chosen = at[layers[low : high + 1]]
            bend = np.abs(chosen - chosen[0] - part[:, None] * (chosen[-1] - chosen[0])).max()
            off = abs(value(layers[middle]) - found[middle - low])
            if bend > BEND or off > CLOSE * (1 - value(layers[middle])) + 1e-7:
                spans += [(low, middle), (middle, high)]
    return out
