# SPDX-License-Identifier: BSD-3-Clause
"""Gaussian moments of an activation function, right at kinks and at any scale: what all of the theory is made of."""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

REACH = 12.0  # standard deviations; the weight beyond is below 1e-31
HOMOGENEOUS = ("linear", "relu", "leaky_relu")
CELLS = 16  # parts of a panel that recursions read by a short polynomial
# |log of the standard deviation| up to which a table is computed (mean squares 1e-300 .. 1e300); asymptotes beyond
FURTHEST = 345.0
SETTLED = 40.0  # the same for functions that are their asymptotes there: what is left of a bend is exp(-40) = 4e-18
COLUMNS = (
    "log_value2",  # log E phi^2
    "log_slope2",  # log E phi'^2
    "log_value4",  # log E phi^4 / (E phi^2)^2
    "log_slope4",  # log E phi'^4 / (E phi'^2)^2
    "log_mixed",  # log E phi^2 phi'^2 / (E phi^2 E phi'^2)
    "mean",  # E phi / sqrt(E phi^2)
    "elasticity",  # E z phi phi' / E phi^2 = d log E phi^2 / d log q
    "value2_square",  # E phi^2 z^2 / (q E phi^2)
    "slope2_square",  # E phi'^2 z^2 / (q E phi'^2)
    "value2_first",  # E phi^2 z / (sqrt(q) E phi^2)
    "slope2_first",  # E phi'^2 z / (sqrt(q) E phi'^2)
    "value2_fourth",  # E phi^2 z^4 / (q^2 E phi^2)
    "slope2_fourth",  # E phi'^2 z^4 / (q^2 E phi'^2)
    "log_slope6",  # log E phi'^6 / (E phi'^2)^3
)
(
    LOG_VALUE2,
    LOG_SLOPE2,
    LOG_VALUE4,
    LOG_SLOPE4,
    LOG_MIXED,
    MEAN,
    ELASTICITY,
    VALUE2_SQUARE,
    SLOPE2_SQUARE,
    VALUE2_FIRST,
    SLOPE2_FIRST,
    VALUE2_FOURTH,
    SLOPE2_FOURTH,
    LOG_SLOPE6,
) = range(len(COLUMNS))


@lru_cache(maxsize=16)
def legendre(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes and weights on (-1, 1)."""
    return np.polynomial.legendre.leggauss(count)


def panels(edges: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Composite Gauss-Legendre: nodes and weights with `count` nodes between each two neighbours of sorted `edges`."""
    x, w = legendre(count)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + x)).ravel(), (half * w).ravel()


def edges(std: float, points: tuple[float, ...], finest: float) -> np.ndarray:
    """Panel edges in units of `std`, graded by powers of two towards each of `points` (given in units of z) and no
    wider than one."""
    bound = REACH * std
    steps = max(2, math.ceil(math.log2(2 * bound / finest)))
    distance = finest * 2.0 ** np.arange(steps + 1)
    parts: list[Any] = [np.arange(-REACH, REACH + 0.5) * std]
    for p in points:
        parts += [np.array([p]), p + distance, p - distance]
    every = np.unique(np.concatenate(parts))
    every = every[(every > -bound) & (every < bound)]
    every = np.concatenate([[-bound], every, [bound]])
    apart = np.diff(every) > 1e-13 * np.maximum(np.abs(every[1:]), 1e-3 * finest)
    return every[np.concatenate([[True], apart])] / std


def special_points(row: Any) -> tuple[float, ...]:
    """Where an activation is not smooth, and 0, around which it has its structure."""
    return tuple(sorted({0.0, *(float(k) for k in getattr(row, "kinks", ()) or ())}))


def rule(
    std: float, points: tuple[float, ...], count: int = 16, finest: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes x and weights for int f(x) exp(-x^2/2)/sqrt(2 pi) dx, where f(x) = g(std x) and g has structure at `points`
    on the scale 1."""
    x, w = panels(edges(std, points, finest or 0.5 * min(1.0, std)), count)
    return x, w * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def gaussian_mean(function: Callable, std: float = 1.0, kinks: tuple[float, ...] = ()) -> float:
    """E f(std Z) for standard normal Z, f smooth between `kinks` and varying on scales of 1 or more.

    Args:
        function: elementwise on float64 arrays.
        std: standard deviation, positive.
        kinks: where f or its slope jumps.

    Returns:
        The mean, to about 1e-12 of E |f|.

    Examples:
        >>> round(gaussian_mean(np.abs, 2.0, (0.0,)), 10)  # 2 sqrt(2 / pi)
        1.5957691216
    """
    x, w = rule(std, tuple(sorted({0.0, *kinks})))
    return float(w @ function(std * x))


def measure(row: Any, log_std: float) -> np.ndarray:
    """All COLUMNS of one activation at one standard deviation exp(log_std) of its Gaussian argument."""
    if row.name == "sin":
        return _measure_sin(log_std)
    if row.name in HOMOGENEOUS and log_std:
        out = _measure_once(row).copy()
        out[LOG_VALUE2] += 2 * log_std
        return out
    std = math.exp(log_std)
    x, w = rule(std, special_points(row))
    z = std * x
    with np.errstate(all="ignore"):  # a user's formula far from where he thought of it
        phi, slope = np.asarray(row.value(z), np.float64), np.asarray(row.slope(z), np.float64)
        top, steep = np.max(np.abs(phi)), np.max(np.abs(slope))
        phi, slope = phi / (top or 1.0), slope / (steep or 1.0)
    out = np.zeros(len(COLUMNS))
    value2, slope2 = phi * phi, slope * slope
    A, D = w @ value2, w @ slope2
    if A > 0:
        out[LOG_VALUE2] = math.log(A) + 2 * math.log(top)
        out[LOG_VALUE4] = math.log(w @ (value2 * value2)) - 2 * math.log(A)
        out[MEAN] = (w @ phi) / math.sqrt(A)
        out[VALUE2_SQUARE] = (w @ (value2 * x * x)) / A
        out[VALUE2_FIRST] = (w @ (value2 * x)) / A
        out[VALUE2_FOURTH] = (w @ (value2 * x**4)) / A
        out[ELASTICITY] = (w @ (phi * slope * x)) / A * (steep / top * std)
    else:
        out[LOG_VALUE2] = -math.inf
    if D > 0:
        out[LOG_SLOPE2] = math.log(D) + 2 * math.log(steep)
        out[LOG_SLOPE4] = math.log(w @ (slope2 * slope2)) - 2 * math.log(D)
        out[LOG_SLOPE6] = math.log(w @ slope2**3) - 3 * math.log(D)
        out[SLOPE2_SQUARE] = (w @ (slope2 * x * x)) / D
        out[SLOPE2_FIRST] = (w @ (slope2 * x)) / D
        out[SLOPE2_FOURTH] = (w @ (slope2 * x**4)) / D
    else:
        out[LOG_SLOPE2] = -math.inf
    mixed = w @ (value2 * slope2)
    out[LOG_MIXED] = math.log(mixed / (A * D)) if mixed > 0 else -math.inf
    return out


_homogeneous: dict[Any, np.ndarray] = {}


def _measure_once(row: Any) -> np.ndarray:
    """A function of one slope on either side of 0 has the same ratios at every scale."""
    if row not in _homogeneous:
        found = measure(row, 0.0)
        found[[LOG_VALUE2, LOG_SLOPE2]] = math.log((float(row.left) ** 2 + float(row.right) ** 2) / 2)
        _homogeneous[row] = found
    return _homogeneous[row]


def _measure_sin(log_std: float) -> np.ndarray:
    """The same for sin, whose oscillations no panel follows at large scales: from E exp(i k z) = exp(-k^2 q / 2)."""
    q = math.exp(min(2 * log_std, 700.0))
    e2, e8 = math.exp(-2 * q), math.exp(-8 * q)
    A, D = -math.expm1(-2 * q) / 2, (1 + e2) / 2
    tiny = q < 1e-3  # cancellation: series of E sin^4 and E sin^2 cos^2
    fourth = q * q * (3 - 20 * q + 84 * q * q) if tiny else 3 / 8 - e2 / 2 + e8 / 8
    out = np.zeros(len(COLUMNS))
    out[LOG_VALUE2] = math.log(A) if q > 1e-300 else 2 * log_std
    out[LOG_SLOPE2] = math.log(D)
    out[LOG_VALUE4] = math.log(fourth / A**2) if q > 1e-100 else math.log(3)
    out[LOG_SLOPE4] = math.log((3 / 8 + e2 / 2 + e8 / 8) / D**2)
    out[LOG_SLOPE6] = math.log((10 + 15 * e2 + 6 * e8 + math.exp(-18 * q)) / 32 / D**3)
    out[LOG_MIXED] = math.log(-math.expm1(-8 * q) / 8 / (A * D)) if q > 1e-300 else 0.0
    swing = q * e2 / A if q > 1e-300 else 1.0
    out[ELASTICITY], out[VALUE2_SQUARE], out[SLOPE2_SQUARE] = swing, 1 + 2 * swing, 1 - 2 * q * e2 / D
    # E cos(2 z) z^4 / q^2 = (3 - 24 q + 16 q^2) exp(-2 q), z normal of variance q
    fourth = (3 - 24 * q + 16 * q * q) * e2 / 2 if q < 300 else 0.0
    out[VALUE2_FOURTH] = (1.5 - fourth) / A if q > 1e-6 else 15.0
    out[SLOPE2_FOURTH] = (1.5 + fourth) / D
    return out


class Table:
    """A vector function of one real argument, computed where it is asked for, then interpolated (Chebyshev, about
    1e-12).

    Panels are half a unit wide near 0 and grow with the distance, as functions of the log of a scale become power laws
    there. `tail(t, at_edge)` continues the function beyond `furthest`.
    """

    ORDER = 16

    def __init__(
        self,
        function: Callable[[float], np.ndarray],
        furthest: float,
        tail: Callable[[np.ndarray, float, np.ndarray], np.ndarray],
    ) -> None:
        self.function, self.tail, self.furthest = function, tail, furthest
        breaks, step = [0.0], 0.5
        while breaks[-1] < furthest:
            step = max(0.5, breaks[-1] / 8)
            breaks.append(min(breaks[-1] + step, furthest))
        self.breaks = [-b for b in breaks[:0:-1]] + breaks
        self.series: dict[int, np.ndarray] = {}
        self.cells: dict[tuple[int, int, int], tuple[float, ...]] = {}
        self.lines: dict[tuple[bool, int], tuple[float, ...]] = {}
        self.edge: dict[float, np.ndarray] = {}
        k = np.arange(self.ORDER)
        self.angle = (k + 0.5) * math.pi / self.ORDER
        self.transform = 2 / self.ORDER * np.cos(np.outer(k, self.angle))
        self.transform[0] /= 2

    def _series(self, panel: int) -> np.ndarray:
        """Chebyshev coefficients (ORDER, columns) of one panel."""
        if panel not in self.series:
            low, high = self.breaks[panel], self.breaks[panel + 1]
            t = (low + high) / 2 + (high - low) / 2 * np.cos(self.angle)
            samples = np.array([self.function(float(s)) for s in t])
            with np.errstate(invalid="ignore"):
                series = self.transform @ samples
            lost = ~np.isfinite(samples).all(axis=0)  # a moment that is exactly zero: -inf throughout the panel
            series[:, lost] = 0.0
            series[0, lost] = -np.inf
            self.series[panel] = series
        return self.series[panel]

    def _polynomials(self, x: np.ndarray) -> np.ndarray:
        """Chebyshev polynomials at arguments of [-1, 1], (ORDER, len(x))."""
        return np.cos(np.arange(self.ORDER)[:, None] * np.arccos(np.clip(x, -1, 1)))

    def _beyond(self, t: np.ndarray) -> np.ndarray:
        """All columns at arguments beyond the table on one side, (columns, len(t))."""
        edge = math.copysign(self.furthest, t[0])
        if edge not in self.edge:
            self.edge[edge] = self.function(edge)
        return self.tail(t, edge, np.repeat(self.edge[edge][:, None], len(t), axis=1))

    def column(self, t: float, column: int) -> float:
        """One column at one argument: the inner step of long recursions, hence plain Python."""
        _, _, middle, ((a, b, c, d, e, f),) = self.cell(t, (column,))
        x = t - middle
        return a + x * (b + x * (c + x * (d + x * (e + x * f))))

    def cell(self, t: float, columns: tuple[int, ...]) -> tuple[float, float, float, tuple[tuple[float, ...], ...]]:
        """Where the cell of t begins and ends, its middle, and of each column the coefficients of a polynomial about
        the middle."""
        if not -self.furthest < t < self.furthest:
            edge = math.copysign(self.furthest, t)
            low, high = (edge, math.inf) if t > 0 else (-math.inf, edge)
            return low, high, edge, tuple(self._line(edge, column) for column in columns)
        panel = min(max(bisect_right(self.breaks, t) - 1, 0), len(self.breaks) - 2)
        low, high = self.breaks[panel], self.breaks[panel + 1]
        part = int((t - low) / (high - low) * CELLS)
        width = (high - low) / CELLS
        begin = low + part * width
        return (
            begin,
            begin + width,
            low + (2 * part + 1) * (high - low) / (2 * CELLS),
            tuple(self._known(panel, part, c) for c in columns),
        )

    def _known(self, panel: int, part: int, column: int) -> tuple[float, ...]:
        key = (panel, part, column)
        if key not in self.cells:
            self.cells[key] = self._cell(*key)
        return self.cells[key]

    def _line(self, edge: float, column: int) -> tuple[float, ...]:
        """The straight line that continues a column beyond the table on one side, about its edge."""
        key = (edge > 0, column)
        if key not in self.lines:
            start, end = self._beyond(np.array([edge, 2 * edge]))[column]
            self.lines[key] = (float(start), float((end - start) / edge) if end != start else 0.0, 0.0, 0.0, 0.0, 0.0)
        return self.lines[key]

    def _cell(self, panel: int, part: int, column: int) -> tuple[float, ...]:
        """Coefficients, about the middle, of the polynomial through six Chebyshev nodes of a part: within 1e-13 of the
        series."""
        low, high = self.breaks[panel], self.breaks[panel + 1]
        half = (high - low) / (2 * CELLS)
        middle = low + (2 * part + 1) * half
        x = np.cos((np.arange(6) + 0.5) * math.pi / 6)
        series = self._series(panel)[:, column]
        if not np.isfinite(series[0]):
            return (float(series[0]), 0.0, 0.0, 0.0, 0.0, 0.0)
        values = np.polynomial.chebyshev.chebval((2 * (middle + half * x) - low - high) / (high - low), series)
        coefficients = np.linalg.solve(np.vander(x, increasing=True), values) / half ** np.arange(6)
        return tuple(coefficients.tolist())

    def sampled(self, t: np.ndarray, columns: list[int]) -> np.ndarray:
        """The same to about 1e-6: from 4000 arguments and straight lines between them where there are many more."""
        low, high = float(np.min(t)), float(np.max(t))
        if len(t) < 8000 or high - low > 20:
            return self(t, columns)
        grid = np.linspace(low, high, 4000)
        return np.array([np.interp(t, grid, values) for values in self(grid, columns)])

    def __call__(self, t: np.ndarray, columns: Any = slice(None)) -> np.ndarray:
        """All columns (or a list of them) at all arguments: shape (columns, *t.shape)."""
        t = np.asarray(t, np.float64)
        flat = t.ravel()
        unique, back = np.unique(flat, return_inverse=True)
        panel = np.clip(np.searchsorted(self.breaks, unique, side="right") - 1, 0, len(self.breaks) - 2)
        out: Any = None
        inside = np.abs(unique) <= self.furthest
        pieces: list[tuple[np.ndarray, np.ndarray]] = []
        for p in np.unique(panel[inside]):
            chosen = inside & (panel == p)
            low, high = self.breaks[p], self.breaks[p + 1]
            x = (2 * unique[chosen] - low - high) / (high - low)
            pieces.append((chosen, self._series(int(p))[:, columns].T @ self._polynomials(x)))
        for side in (-1, 1):
            chosen = ~inside & (np.sign(unique) == side)
            if chosen.any():
                pieces.append((chosen, self._beyond(unique[chosen])[columns]))
        for chosen, values in pieces:
            if out is None:
                out = np.empty((values.shape[0], len(unique)))
            out[:, chosen] = values
        return out[:, back].reshape(-1, *t.shape)


def _asymptote(t: np.ndarray, edge: float, at_edge: np.ndarray) -> np.ndarray:
    """Power laws beyond the table: d log E phi^2 / d log std = 2 elasticity, d log E phi'^2 / d log std = slope2_square
    - 1."""
    at_edge[LOG_VALUE2] += 2 * at_edge[ELASTICITY] * (t - edge)
    at_edge[LOG_SLOPE2] += (at_edge[SLOPE2_SQUARE] - 1) * (t - edge)
    return at_edge


def _settled(row: Any, side: int) -> bool:
    """Whether what is found at the end of all numbers is what power laws from `SETTLED` on foretell."""
    near, far = measure(row, side * SETTLED), measure(row, side * FURTHEST)
    return np.allclose(_asymptote(np.array(side * FURTHEST), side * SETTLED, near), far, rtol=1e-12, atol=1e-12)


class Moments(Table):
    """COLUMNS of one activation as functions of the log of the standard deviation of its argument."""

    def __init__(self, row: Any) -> None:
        self.row = row
        self.level = math.log((float(row.left) ** 2 + float(row.right) ** 2) / 2) if row.name in HOMOGENEOUS else None
        furthest = SETTLED if self.level is not None or all(_settled(row, side) for side in (-1, 1)) else FURTHEST
        super().__init__(lambda t: measure(row, t), furthest, _asymptote)

    def cell(self, t: float, columns: tuple[int, ...]) -> tuple[float, float, float, tuple[tuple[float, ...], ...]]:
        """One cell for all arguments, and no rounding, where phi is homogeneous."""
        if self.level is None:
            return super().cell(t, columns)
        return -sys.float_info.max, math.inf, 0.0, tuple(self._power(column) for column in columns)

    def _power(self, column: int) -> tuple[float, ...]:
        constant = float(_measure_once(self.row)[column])
        return (constant, 2.0 if column == LOG_VALUE2 else 0.0, 0.0, 0.0, 0.0, 0.0)


_tables: dict[Any, Moments] = {}


def moments(row: Any) -> Moments:
    """The table of an activation row, kept for the life of the process where the row is hashable."""
    try:
        if row not in _tables:
            _tables[row] = Moments(row)
        return _tables[row]
    except TypeError:
        return Moments(row)
