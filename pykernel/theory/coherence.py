# SPDX-License-Identifier: BSD-3-Clause
"""How alike two inputs' gradients are: a head makes them so at the top, each layer's slopes take a part of it away on the way back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pykernel.plan import Plan
from pykernel.theory.correlation import _arc
from pykernel.theory.quadrature import legendre, rule, special_points

STEP = 0.02  # of a layer's log deviation and log distance, between which the kept share is a straight line: 1e-4 of what is lost
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
    known: dict[tuple[float, float], float] = {}
    chosen = [alive[0]]  # a chain that changes slowly is looked at where it has moved on
    for k, i in enumerate(alive[1:-1], 1):
        if np.abs(at[alive[k + 1]] - at[chosen[-1]]).max() > STEP:
            chosen.append(i)
    if len(alive) > 1:
        chosen.append(alive[-1])
    values = []
    for i in chosen:
        key = round(float(at[i, 0]), 3 + 3 * (L < 100)), round(float(at[i, 1]), 3 + 3 * (L < 100))
        if key not in known:
            known[key] = kept_share(row, math.exp(min(max(key[0], -340.0), 340.0)), math.exp(key[1]))
        values.append(known[key])
    out[alive] = np.interp(alive, chosen, values)
    return out
