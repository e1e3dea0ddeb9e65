# SPDX-License-Identifier: BSD-3-Clause
"""The largest of several alike normal entries behind a function, and those of two windows: what max pools are made of.

Entries of a window have one variance and one correlation c. Given the part that they share they are independent, and
the largest of m has the distribution F^m: so every mean is an integral over the common part and one over a single
entry. Two windows that share r entries are independent given the largest of these.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.polynomial.hermite_e import hermevander

from pykernel.theory.correlation import normal_cdf
from pykernel.theory.quadrature import HOMOGENEOUS, legendre, rule, special_points
from pykernel.theory.structure import NoTheory

NODES, WIDTH = 8, 0.5  # of a panel of entries
REACH = 8.5  # standard deviations; the weight beyond is below 1e-16
TERMS = 24  # of a series of Hermite polynomials
LIGHT = 1e-16  # weight of a common part that is forgotten
ALIKE = 1e-24  # of 1 - c: entries that are one
WIDEST = 8.0  # deviation of what a sine acts on, up to which panels follow it
FURTHEST = 300.0  # |log of a deviation| up to which a function that bends is evaluated


class Overlap(NamedTuple):
    """Two windows: how many entries each has, and how many both have."""

    first: int
    second: int
    shared: int


class Windows(NamedTuple):
    """How often windows and pairs of them occur.

    Attributes:
        sizes: (entries of a window, share of all windows).
        pairs: (Overlap, share of all ordered pairs of windows, those of different inputs among them).
        between: of each of those the correlation of two entries, one of either window; () where it is that within one.
        partners: (Overlap, mean number of such partners of a window), of those that share entries.
    """

    sizes: tuple[tuple[int, float], ...]
    pairs: tuple[tuple[Overlap, float], ...]
    between: tuple[float, ...]
    partners: tuple[tuple[Overlap, float], ...]


class Peaks(NamedTuple):
    """Means over windows, and over pairs of windows; y is what the function acts on at the largest over its deviation,
    f its slope there.

    Attributes:
        log_square: log E phi^2.  mean: E phi over the root of that.  distance: 1 - cosine of two windows.
        slope2, pull2: E f^2 and E (f y)^2.  slopes, pulls: the same products of two windows.
        same: expected number of other windows whose largest is the same entry.  shared: E f^2 there times that number.
        flat: chance that the slope is below 1 percent of its largest.
        apart: 1 - cosine of each of `Windows.pairs`.
        spread: variance of a window's largest entry, given what all columns share, over that of an entry.
    """

    log_square: float
    mean: float
    distance: float
    slope2: float
    pull2: float
    slopes: float
    pulls: float
    same: float
    shared: float
    flat: float
    spread: float
    apart: tuple[float, ...]


def peaks(row: Any, log_std: float, correlation: float, windows: Windows, first: str = "function") -> Peaks:
    """Moments of phi's largest over windows of normal entries, or of phi at the largest entry.

    Args:
        row: the activation function.
        log_std: log standard deviation of an entry; with "norm" of what phi acts on.
        correlation: of any two entries; below 0 only as little as entries whose mean over all columns was subtracted.
        windows: which windows there are.
        first: what comes first: the "function", the "pool", or the pool and then a "norm" over very many columns.

    Raises:
        NoTheory: deviations at which the function is not followed.
    """
    if row.name in HOMOGENEOUS:
        found = _peaks(row, 0.0, correlation, windows, first)
        return found._replace(log_square=found.log_square + 2 * log_std)
    if log_std < -FURTHEST:  # so small that the function is its tangent
        found, at_zero = (
            _peaks(row, -FURTHEST, correlation, windows, first),
            float(row.evaluate("value", np.zeros(1))[0]),
        )
        return found if at_zero else found._replace(log_square=found.log_square + 2 * (log_std + FURTHEST))
    if log_std > FURTHEST or (row.name == "sin" and log_std > math.log(WIDEST)):
        raise NoTheory(
            f"mean field follows the largest of {row} for preactivations of a size up to "
            f"{WIDEST if row.name == 'sin' else '1e130'}, got {math.exp(min(log_std, 700.0)):.3g}; use propagate"
        )
    return _peaks(row, log_std, correlation, windows, first)


@lru_cache(maxsize=512)
def _peaks(row: Any, log_std: float, correlation: float, windows: Windows, first: str) -> Peaks:
    std, c = math.exp(log_std), min(correlation, 1.0)
    law = Law(row, std, c, windows, first)
    over = lambda per_row: float(law.weight @ per_row)
    mean, square, slope, slope2, pull, pull2 = ({} for _ in range(6))
    for m in {m for m, _ in windows.sizes} | {n for pair, _ in windows.partners for n in _sizes(pair)}:
        of = law.of(m)
        mean[m], slope[m], pull[m] = of(law.value), of(law.slope), of(law.slope * law.z)
        square[m] = of((law.value - mean[m][:, None]) ** 2)
        slope2[m], pull2[m] = over(of(law.slope**2)), over(of((law.slope * law.z) ** 2))
    every = lambda values: sum(share * values[m] for m, share in windows.sizes)
    value2 = every({m: over(square[m] + mean[m] ** 2) for m in square})
    lost, slopes, pulls = [], 0.0, 0.0
    for number, (pair, share) in enumerate(windows.pairs):
        m, n, _ = pair
        alike = windows.between[number] / c if windows.between and c > 0 else 1.0
        own = 0.5 * over(square[m] + square[n] + (mean[m] - mean[n]) ** 2) - over(law.both(law.value, pair, mean))
        lost.append(own + over(mean[m] * mean[n]) - law.across(mean[m], mean[n], alike))
        lost[-1] -= std * std * min(c, 0.0) * over(slope[m]) * over(slope[n])  # drawn to the mean that was subtracted
        slopes += share * (over(law.both(law.slope, pair, slope)) + law.across(slope[m], slope[n], alike))
        pulls += share * (over(law.both(law.slope * law.z, pair, pull)) + law.across(pull[m], pull[n], alike))
    distances = [min(max(one, 0.0) / value2, 2.0) if value2 > 0 else 0.0 for one in lost]
    apart = sum(share * d for (_, share), d in zip(windows.pairs, distances, strict=True))
    same = {pair: number * pair.shared / _union(pair) for pair, number in windows.partners}
    return Peaks(
        math.log(value2) if value2 > 0 else -math.inf,
        every({m: over(mean[m]) for m in mean}) / math.sqrt(value2) if value2 > 0 else 0.0,
        apart,
        every(slope2),
        every(pull2),
        slopes,
        pulls,
        sum(same.values()),
        sum(number * slope2[_union(pair)] for pair, number in same.items()),
        every({m: over(law.of(m)(np.abs(law.slope) < 0.01 * row.max_slope)) for m in mean}),
        law.spread,
        tuple(distances),
    )


def _union(pair: Overlap) -> int:
    return pair.first + pair.second - pair.shared


def _sizes(pair: Overlap) -> tuple[int, ...]:
    return pair.first, pair.second, _union(pair)


class Law:
    """Entries on a grid: a row for each value of their common part, in order of the function's value.

    Attributes:
        weight: of the common parts, (I,).
        z, value, slope: what the function acts on over its deviation, and what it makes of it, (I, J).
        density: chance of a node.  upto: chance that an entry's value is not larger, both given the common part.
    """

    def __init__(self, row: Any, std: float, correlation: float, windows: Windows, first: str) -> None:
        _, self.spread = largest(windows.sizes)
        self.spread *= 1 - correlation
        if first == "norm":
            correlation = 0.0
        common, own = math.sqrt(max(correlation, 0.0)), math.sqrt(max(1 - correlation, ALIKE))
        points = special_points(row)
        self.common, self.weight = _common_parts(std, common, own, points)
        x = self.common
        shift, factor = _moved(windows.sizes, correlation, first == "norm")
        e, density = _entries(std * own * factor, (common * x + own * shift) / (own * factor), points)
        z = common * x[:, None] + own * (shift + factor * e)
        value, slope = (np.asarray(f(std * z), float) for f in (row.value, row.slope))
        order = np.argsort(value if first == "function" else e, axis=1, kind="stable")
        rises = bool((np.diff(order, axis=1) > 0).all())
        sort = lambda values: values if rises else np.take_along_axis(values, order, axis=1)
        self.z, self.value, self.slope, self.density = sort(z), sort(value), sort(slope), sort(density)
        self.upto = normal_cdf(e) if rises else np.cumsum(self.density, axis=1) - self.density / 2

    def chance(self, m: int) -> np.ndarray:
        """Of each node, to be the largest of m entries, (I, J)."""
        chance = self.upto ** (m - 1) * self.density
        return chance / chance.sum(axis=1, keepdims=True)

    def of(self, m: int) -> Any:
        """The mean of values where the largest of m entries is, given the common part: a function, (I, J) -> (I,)."""
        chance = self.chance(m)
        return lambda values: (chance * values).sum(axis=1)

    def both(self, values: np.ndarray, pair: Overlap, mean: dict) -> Any:
        """The covariance of values where the largest of two windows are, given the common part, (I,)."""
        m, n, r = pair
        if not r:
            return np.zeros(len(values))
        first, second = (self.beside(values - mean[k][:, None], k - r) for k in (m, n))
        return (self.chance(r) * first * second).sum(axis=1)

    def across(self, first: np.ndarray, second: np.ndarray, alike: float) -> float:
        """The mean product of two functions of the common part, of two windows whose common parts are so correlated."""
        if alike == 1 or len(self.common) == 1:
            return float(self.weight @ (first * second))
        hermite = hermevander(self.common, TERMS - 1) / np.sqrt([float(math.factorial(k)) for k in range(TERMS)])
        one, two = ((self.weight * values) @ hermite for values in (first, second))
        return float(np.sum(alike ** np.arange(TERMS) * one * two))

    def beside(self, values: np.ndarray, m: int) -> np.ndarray:
        """The mean of values where the largest of a node and m further entries is, given the node, (I, J)."""
        if not m:
            return values
        chance = self.chance(m)
        above = np.cumsum((chance * values)[:, ::-1], axis=1)[:, ::-1] - chance * values / 2
        return values * self.upto**m + above


def _common_parts(std: float, common: float, own: float, points: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the common part: what is left given it varies on the scale of an entry's own part."""
    if common < 1e-8:
        return np.zeros(1), np.ones(1)
    scale = std * common
    x, w = rule(scale, points, NODES, finest=0.5 * min(scale, max(1.0, std * own)))
    return x[w > LIGHT], w[w > LIGHT]


def _entries(scale: float, middle: np.ndarray, points: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of a standard normal e, a row for each middle, with edges graded towards where a function of
    scale (middle + e) bends."""
    scale = max(scale, 1e-150)
    graded = 0.5 * 2.0 ** np.arange(max(1, math.ceil(math.log2(4 * REACH * max(scale, 1.0)))))
    at = np.concatenate([[p, *(p + graded), *(p - graded)] for p in points])
    bends = at / scale - middle[:, None]
    even = np.broadcast_to(np.arange(-REACH, REACH + WIDTH, WIDTH), (len(middle), round(2 * REACH / WIDTH) + 1))
    edges = np.sort(np.concatenate([even, np.clip(bends, -REACH, REACH)], axis=1), axis=1)
    x, w = legendre(NODES)
    half = np.diff(edges, axis=1)[:, :, None] / 2
    e = (edges[:, :-1, None] + half * (1 + x)).reshape(len(middle), -1)
    weight = (half * w).reshape(len(middle), -1)
    return e, weight * np.exp(-0.5 * e * e) / math.sqrt(2 * math.pi)


def _moved(sizes: tuple, correlation: float, normed: bool) -> tuple[float, float]:
    """shift + factor e, in the place of entries e.

    A correlation below 0 narrows the law of their largest, to first order; a norm centres it and makes its variance 1.
    """
    if correlation >= 0 and not normed:
        return 0.0, 1.0
    mean, variance = largest(sizes)
    if normed:
        return -mean / math.sqrt(variance), 1 / math.sqrt(variance)
    factor = math.sqrt(max(1 + correlation / ((1 - correlation) * variance), 1e-12))
    return mean * (1 - factor), factor


@lru_cache(maxsize=256)
def largest(sizes: tuple[tuple[int, float], ...]) -> tuple[float, float]:
    """Mean and variance of the largest of independent standard normal entries, over windows of these sizes."""
    x, w = rule(1.0, (0.0,), NODES)
    density = sum(share * m * normal_cdf(x) ** (m - 1) for m, share in sizes) * w
    mean = float(density @ x)
    return mean, float(density @ (x - mean) ** 2)
