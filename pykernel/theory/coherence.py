# SPDX-License-Identifier: BSD-3-Clause
"""How alike two inputs' gradients are: a head makes them so at the top, each layer's slopes take a part of it away on the way back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pykernel.plan import Plan
from pykernel.theory.correlation import FAR, _arc
from pykernel.theory.quadrature import legendre, rule, special_points

BEND = 0.1  # of the log deviation and log distance off a straight line over layers that are not looked at one by one
CLOSE = 3e-4  # of what is lost in a layer
NODES = 6


def pair_mean(function: Callable, std: float, distance: float, points: tuple[float, ...] = (0.0,)) -> tuple[float, float]:
    """E f(u1) f(u2) and E f(u1)^2 for (u1, u2) Gaussian of variance std^2 and correlation 1 - distance, f smooth between `points`."""
    d = min(max(distance, 0.0), 2.0)
    spread = std * max(math.sqrt(d * (2 - d)), 1e-9)  # std of u2 given u1
    x, w = rule(std, points, NODES, finest=0.5 * min(1.0, std, spread))
    x, w = x[w > 1e-18], w[w > 1e-18]
    y, v = _conditional(spread, (1 - d) * std * x, points, NODES)
    own = np.asarray(function(std * x), float)
    other = (v * np.asarray(function((1 - d) * std * x[:, None] + spread * y), float)).sum(axis=1)
    return float((w * own) @ other), float(w @ own**2)


def _conditional(spread: float, centre: np.ndarray, points: tuple[float, ...], nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes y and weights (outer, inner) for a standard normal y, split for each outer point where centre + spread y meets one of
    `points`."""
    reach = 8.5
    base = np.arange(-reach, reach + 0.1, 1.0)
    grades = spread * 2.0 ** -np.arange(0.0, max(1.0, math.ceil(math.log2(max(spread, 1.0))) + 1)) if spread > 1 else np.zeros(0)
    cuts = []
    for p in points:
        at = (p - centre) / spread
        cuts.append(at[:, None])
        if len(grades):
            cuts += [at[:, None] + grades[None] * 2 / spread, at[:, None] - grades[None] * 2 / spread]
    every = np.concatenate([np.broadcast_to(base, (len(centre), len(base))), *cuts], axis=1)
    every = np.sort(np.clip(every, -reach, reach), axis=1)
    g, gw = legendre(nodes)
    half = np.diff(every, axis=1)[:, :, None] / 2
    y = every[:, :-1, None] + half * (1 + g)
    v = half * gw * np.exp(-0.5 * y * y) / math.sqrt(2 * math.pi)
    return y.reshape(len(centre), -1), v.reshape(len(centre), -1)


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
    cross, square = pair_mean(row.slope, std, d, special_points(row))
    return cross / square if square > 0 else 1.0


def kept_shares(plan: Plan, log_std: np.ndarray, log_distance: np.ndarray) -> np.ndarray:
    """`kept_share` of every layer, (L,), from the logs of the deviation and of the distance of what phi acts on; 1 where it is dead."""
    row, L = plan.activation, plan.depth
    out = np.ones(L)
    at = np.stack([log_std, log_distance], axis=1)
    alive = np.flatnonzero(np.isfinite(log_std) & (log_distance > -60))
    if not len(alive):
        return out
    at = at[alive]
    known: dict[tuple[float, float], float] = {}

    def value(k: int) -> float:
        digits = 6 if len(known) < 200 else 3  # of a chain that never runs straight
        key = round(float(at[k, 0]), digits), round(float(at[k, 1]), digits)
        if key not in known:
            known[key] = kept_share(row, math.exp(min(max(key[0], -340.0), 340.0)), math.exp(key[1]))
        return known[key]

    found = np.empty(len(alive))
    spans = [(0, len(alive) - 1)]
    while spans:  # halved until the chain moves on a straight line and so does what it keeps
        low, high = spans.pop()
        middle = (low + high) // 2
        part = np.linspace(0.0, 1.0, high - low + 1)
        first, last = value(low), value(high)
        found[low : high + 1] = first + (last - first) * part
        if high - low < 2:
            continue
        bend = np.abs(at[low : high + 1] - at[low] - part[:, None] * (at[high] - at[low])).max()
        off = abs(value(middle) - found[middle])
        if bend > BEND or off > CLOSE * (1 - value(middle)) + 1e-7:
            spans += [(low, middle), (middle, high)]
    out[alive] = found
    return out
