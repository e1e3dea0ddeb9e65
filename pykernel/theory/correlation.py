# SPDX-License-Identifier: BSD-3-Clause
"""Two inputs at once: the C-map, and what a correlated batch shares (dead units)."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from pykernel.theory.quadrature import panels, rule, special_points

NODES = 8
FAR = 1e10
REACH = 8.5  # standard deviations; the weight beyond is below 1e-16


def two_slopes(row: Any) -> tuple[float, float] | None:
    """Slopes (left, right) of a function that is linear on both sides of 0, else None."""
    if row.name == "linear":
        return 1.0, 1.0
    if row.name == "relu":
        return 0.0, 1.0
    if row.name == "leaky_relu":
        return float(row.left), float(row.right)
    return None


def seen_slopes(row: Any, std: float) -> tuple[float, float] | None:
    """The same, and of so wide a Gaussian that only the asymptotes of a function are seen theirs."""
    slopes = two_slopes(row)
    if (
        slopes is None
        and std > FAR
        and math.isfinite(row.left)
        and math.isfinite(row.right)
        and row.left**2 + row.right**2 > 0
    ):
        return float(row.left), float(row.right)
    return slopes


def distance_map(row: Any, std: float, distance: float) -> float:
    """1 - c' where c' = E phi(u1) phi(u2) / E phi(u)^2, for (u1, u2) Gaussian of variance std^2 and correlation c = 1 -
    distance.

    The distance, not the correlation, is mapped: inputs that fall together keep their digits.

    Notes:
        Poole et al. 2016, arXiv 1606.05340, eq. 5. For linear pieces the arc-cosine kernel: Cho, Saul 2009, eq. 6 (n =
        1). Otherwise given their common part x the two are independent, so E phi^2 - E phi(u1) phi(u2) = E Var[phi(u) |
        x] for c >= 0, without cancellation; below 1e-11 by its limit distance * std^2 E phi'^2 / E phi^2.
    """
    d = min(max(distance, 0.0), 2.0)
    if d == 0:
        return 0.0
    slopes = seen_slopes(row, std)
    if slopes:
        left, right = slopes
        even, odd = (right - left) / 2, (right + left) / 2  # phi(z) = odd z + even |z|
        angle = 2 * math.asin(math.sqrt(d / 2))
        c = 1 - d
        # 1 - E |u1| |u2| of the unit pair; the series keeps small angles exact
        if angle < 0.5:
            lost = _absolute_distance(angle, d)
        else:
            lost = 1 - (2 / math.pi) * (math.sin(angle) + (math.pi / 2 - angle) * c)
        return (odd * odd * d + even * even * lost) / (odd * odd + even * even)
    if row.name == "sin":  # 1 - sinh(q c) / sinh(q)
        q = std * std
        return (1 + math.exp(-q * (2 - d))) * math.expm1(-q * d) / math.expm1(-2 * q)
    points = special_points(row)
    if d < 1e-11:
        x, w = rule(std, points, NODES)
        second = float(w @ np.asarray(row.value(std * x)) ** 2)
        return d * std * std * float(w @ np.asarray(row.slope(std * x)) ** 2) / second if second else math.nan
    return pair_loss(row.value, std, d, points, has_kinks(row))[0]


def pair_loss(
    function: Callable, std: float, distance: float, points: tuple[float, ...] = (0.0,), rough: bool = False
) -> tuple[float, float]:
    """1 - E f(u1) f(u2) / E f(u)^2 (nan where f is zero) and E f(u)^2, (u1, u2) Gaussian of variance std^2 and
    correlation 1 - distance.

    Args:
        function: elementwise, varying on scales of 1 or more between `points`.
        std, distance: positive; 0 .. 2.
        points: where f has its structure; with `rough` f or its slope jumps there.
    """
    d = min(max(distance, 0.0), 2.0)
    x, w = rule(std, points, NODES)
    second = float(w @ np.asarray(function(std * x)) ** 2)
    if second == 0 or d == 0:
        return (0.0 if second else math.nan), second
    common, spread = std * math.sqrt(abs(1 - d)), std * math.sqrt(min(d, 2 - d))
    varies = max(spread, 0.0 if rough else 1.0)  # the scale on which the conditional moments vary
    x, w = np.zeros(1), np.ones(1)
    if common > 1e-12 * std:
        x, w = rule(common, points, NODES, finest=0.5 * min(common, varies) or None)
    keep = w > 1e-18
    x, w = common * x[keep], w[keep]
    shift, variance = _given(function, spread, x, points, rough)
    if d <= 1:
        return float(w @ variance) / second, second
    mirrored, _ = _given(function, spread, -x, points, rough)
    value = lambda z: np.asarray(function(z))
    return 1 - float(w @ ((value(x) + shift) * (value(-x) + mirrored))) / second, second


def has_kinks(row: Any) -> bool:
    """Whether phi or its slope jumps."""
    return bool(len(getattr(row, "kinks", ()) or ()))


@lru_cache(maxsize=32)
def _hermite(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss nodes and weights for a standard normal."""
    r, w = np.polynomial.hermite_e.hermegauss(count)
    return r, w / w.sum()


def _given(
    function: Callable, spread: float, x: np.ndarray, points: tuple[float, ...], rough: bool
) -> tuple[np.ndarray, np.ndarray]:
    """E f(x + spread r) - f(x) and Var f(x + spread r), r standard normal, for each x.

    Where f is smooth on the scale of `spread`: Gauss-Hermite. Else one grid of f, graded towards `points`, under the
    normal density around each x.
    """
    here = np.asarray(function(x), float)
    gap = np.min(np.abs(x[:, None] - np.array(points)), axis=1)
    coarse = rough or spread > 1.0
    near = gap < REACH * spread if coarse else np.zeros(x.shape, bool)
    shift, variance = np.zeros(x.shape), np.zeros(x.shape)
    far = ~near
    if far.any():
        r, w = _hermite(48 if spread > 0.5 else 32 if spread > 0.1 else 12)
        difference = np.asarray(function(x[far, None] + spread * r)) - here[far, None]
        shift[far] = difference @ w
        variance[far] = ((difference - shift[far, None]) ** 2) @ w
    if near.any():
        steps = np.arange(-2 * REACH, 2 * REACH + 0.5)
        finest = max(min(0.5, 0.5 * spread), 1e-11 * spread)
        grades = finest * 2.0 ** np.arange(max(1, math.ceil(math.log2(spread / finest))))
        edges = np.unique(
            np.concatenate([part for p in points for part in (p + spread * steps, p + grades, p - grades)])
        )
        at, w = panels(edges[np.concatenate([[True], np.diff(edges) > 1e-12 * spread])], NODES)
        offset = (at - x[near, None]) / spread
        density = np.exp(-0.5 * offset * offset) * (w / (spread * math.sqrt(2 * math.pi)))
        difference = np.asarray(function(at)) - here[near, None]
        density *= difference
        shift[near] = density.sum(axis=1)
        variance[near] = np.einsum("ij,ij->i", density, difference) - shift[near] ** 2
    return shift, variance


def _absolute_distance(angle: float, d: float) -> float:
    """1 - (2/pi)(sin t + (pi/2 - t) cos t) for small angle t: d - (2/pi)(sin t - t cos t), the bracket by its
    series."""
    t2 = angle * angle
    bracket = angle * t2 / 3 * (1 - t2 / 10 * (1 - t2 / 28 * (1 - t2 / 54)))
    return d - (2 / math.pi) * bracket


def normal_cdf(x: np.ndarray) -> np.ndarray:
    """Phi(x), elementwise."""
    return np.vectorize(lambda t: 0.5 * math.erfc(-t / math.sqrt(2)), otypes=[float])(np.asarray(x, float))


def slope_set(row: Any, test: Any) -> list[tuple[float, float]]:
    """Intervals of z where test(|phi'(z)|) holds, ends found by bisection; open at +-60 counts as infinite."""
    z = np.linspace(-60.0, 60.0, 24001) + 1e-7
    inside = test(np.abs(np.asarray(row.slope(z), float)))
    change = np.flatnonzero(inside[1:] != inside[:-1])
    low, high, state = z[change], z[change + 1], inside[change]
    for _ in range(50):
        middle = (low + high) / 2
        same = test(np.abs(np.asarray(row.slope(middle), float))) == state
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    borders = ((low + high) / 2).tolist()
    if inside[0]:
        borders.insert(0, -math.inf)
    if inside[-1]:
        borders.append(math.inf)
    return list(zip(borders[::2], borders[1::2], strict=True))


_sets: dict[Any, list[tuple[float, float]]] = {}


def saturated_set(row: Any) -> list[tuple[float, float]]:
    """Where |phi'| is below one hundredth of its largest value."""
    key = (row, "saturated")
    if key not in _sets:
        _sets[key] = slope_set(row, lambda s: s < 0.01 * row.max_slope)
    return _sets[key]


def dead_set(row: Any) -> list[tuple[float, float]]:
    """Where phi' is exactly zero and stays so: only functions with flat pieces have any."""
    if not getattr(row, "flat", True):
        return []
    key = (row, "dead")
    if key not in _sets:
        _sets[key] = slope_set(row, lambda s: s == 0)
    return _sets[key]


def probability(intervals: list[tuple[float, float]], std: np.ndarray) -> np.ndarray:
    """P(z in the intervals) for z normal with these standard deviations (any shape)."""
    std = np.asarray(std, float)
    unique, back = np.unique(std, return_inverse=True)
    if len(unique) > 2000 and unique[0] > 0:  # a slowly changing chain: 2000 values and straight lines between, 1e-6
        grid = np.geomspace(unique[0], unique[-1], 2000)
        return np.interp(std, grid, probability(intervals, grid))
    total = np.zeros(unique.shape)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for low, high in intervals:
            ends = [
                np.where(unique > 0, bound / unique, np.copysign(np.inf, bound)) if bound else np.zeros_like(unique)
                for bound in (low, high)
            ]
            total += normal_cdf(ends[1]) - normal_cdf(ends[0])
    return np.clip(total, 0, 1)[back].reshape(std.shape)


def common_probability(intervals: list[tuple[float, float]], std: float, distance: float, batch: int) -> float:
    """P(all of `batch` jointly normal z lie in the intervals): equal variances, pairwise correlation 1 - distance >= 0.

    Given the part that they share they are independent: one integral over it.
    """
    if not intervals:
        return 0.0
    if batch == 1 or distance <= 1e-14:
        return float(probability(intervals, np.array(std)))
    c = max(1 - distance, 0.0)
    own = math.sqrt(1 - c)
    edges = np.arange(-9.0, 9.1, 0.5)
    for low, high in intervals:
        for bound in (low, high):
            if math.isfinite(bound) and c > 0:
                at = bound / std / math.sqrt(c)
                edges = np.concatenate([edges, [at], *(at + s * 2.0 ** np.arange(-3, 3) * own for s in (-1, 1))])
    x, w = panels(np.unique(edges[np.abs(edges) <= 9]), 16)
    inside = np.zeros_like(x)
    for low, high in intervals:
        upper = normal_cdf((high / std - math.sqrt(c) * x) / own) if math.isfinite(high) else 1.0
        lower = normal_cdf((low / std - math.sqrt(c) * x) / own) if math.isfinite(low) else 0.0
        inside += upper - lower
    return float((w * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)) @ np.clip(inside, 0, 1) ** batch)
