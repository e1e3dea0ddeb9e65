# SPDX-License-Identifier: BSD-3-Clause
"""Where gradients neither vanish nor explode: the edge of chaos, and the fixed points of the signal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from pykernel import activations, checks
from pykernel.activation import Activation
from pykernel.chain import ORDERS, Chain
from pykernel.layers import NORM_EPS, NORMS
from pykernel.tables import Shown, Strong, Table
from pykernel.theory.critical_chain import CriticalFactor, critical_factor
from pykernel.theory.quadrature import (
    ELASTICITY,
    HOMOGENEOUS,
    LOG_SLOPE2,
    LOG_VALUE2,
    gaussian_mean,
    moments,
    special_points,
)

LOG_LARGEST = math.log(1e4)  # of sigma_w: beyond it nobody initialises
LARGEST_BIAS = 1e100  # its square, and those of what it is compared with, stay in float64
LOWEST, HIGHEST = -16.0, 14.0  # log standard deviations searched for a fixed point


@dataclass(frozen=True)
class CriticalPoint(Shown):
    """The edge of chaos of an activation function, or the closest approach to it.

    Attributes:
        activation, bias_std, norm, order: what was asked.
        exists: whether chi_perp = 1 has a solution.
        gain: critical standard deviation times sqrt(fan_in): multiplies "lecun_normal".  sigma_w: the same number.
        q: mean square of z at the fixed point (0 where criticality is reached in the limit of small signals, nan where
            every q is fixed).
        chi_perp: factor on the squared gradient norm per layer there (1 up to rounding where `exists`).
        chi_par: factor on a small change of q per layer; above 1 the point is unstable.
        stable: chi_perp = 1 and chi_par <= 1.
        others: gains of further solutions, if any.
        note: a plain sentence.
    """

    activation: str
    bias_std: float
    norm: str | None
    order: str
    exists: bool
    gain: float
    q: float
    chi_perp: float
    chi_par: float
    stable: bool
    others: tuple
    note: str

    @property
    def sigma_w(self) -> float:
        return self.gain

    def shown(self) -> Iterator[Any]:
        """The note; in a table of one line the numbers."""
        yield Strong(self.note)
        numbers = [f"{number:.6g}" for number in (self.gain, self.q, self.chi_perp, self.chi_par)]
        yield Table(("gain", "q", "chi_perp", "chi_par", "stable"), [(*numbers, str(self.stable))])


@overload
def critical_gain(activation: Chain, *, batch: int | None = None, positions: Any = ()) -> CriticalFactor: ...
@overload
def critical_gain(
    activation: str | Activation = "relu",
    bias_std: float = 0.0,
    norm: str | None = None,
    order: str = ORDERS[0],
    norm_eps: float = NORM_EPS,
) -> CriticalPoint: ...
def critical_gain(
    activation: Any = "relu",
    bias_std: float = 0.0,
    norm: str | None = None,
    order: str = ORDERS[0],
    norm_eps: float = NORM_EPS,
    *,
    batch: int | None = None,
    positions: Any = (),
) -> CriticalPoint | CriticalFactor:
    """The gain over "lecun_normal" (variance 1/fan_in) at which a wide plain chain keeps its squared gradient: chi_perp
    = sigma_w^2 E phi'(z)^2 = 1. Of a `Chain` the factor on its gain at which it does so over its own depth.

    Args:
        activation: name or `Activation`; or a `Chain`, of equal layers or of blocks, that says all that follows itself.
        bias_std: standard deviation of the biases, sigma_b.
        norm: None, "layer" or "rms" (then the factor hardly depends on the gain; "batch" never is critical).
        order: of the layer's parts.
        norm_eps: what the norm adds to the variance.
        batch, positions: of a chain, as for `predict`; 16 inputs by default with batch norm, else 1.

    Returns:
        CriticalPoint. Where several gains are critical, the stable one with the smallest gain comes first. Where none
        is, `exists` is False, `gain` is that of the closest approach among gains up to 10 000, and `note` says so. For
        a chain a CriticalFactor: the root nearest to its present gain of the theory's slope, decades a repetition.

    Raises:
        ValueError, TypeError: an unknown activation, norm or order, a bias_std outside 0 .. 1e100; a chain that
            infinite-width theory does not follow, or other words beside one.

    Notes:
        Poole et al. 2016, arXiv 1606.05340; Schoenholz et al. 2017, arXiv 1611.01232. On the line chi_perp = 1,
        sigma_w^2 = 1 / E phi'^2(sqrt(q) Z), the fixed point's sigma_b^2 = q - E phi^2 / E phi'^2: solved for q. chi_par
        = sigma_w^2 E[phi'^2 + phi phi''] = sigma_w^2 d E phi^2 / dq, by parts: right at kinks.

    Examples:
        >>> round(critical_gain("relu").gain, 6)
        1.414214
        >>> round(critical_gain("tanh", bias_std=0.05**0.5).gain ** 2, 4)
        1.761
        >>> critical_gain("sigmoid").exists
        True
        >>> from pykernel.layers import Block, Linear, Norm
        >>> pattern = [Linear(64), "relu", Block(Linear(64), "tanh")]
        >>> round(critical_gain(Chain(depth=20, width=64, init="lecun_normal", blocks=pattern)).factor, 3)
        1.31
        >>> post = Block(Linear(), skip=1.0, after=Norm("rms", eps=1e-30))
        >>> print(critical_gain(Chain(depth=9, width=64, blocks=[post])).note[:23])
        every gain is critical:
    """
    if isinstance(activation, Chain):
        given = {"bias_std": (bias_std, 0.0), "norm": (norm, None), "order": (order, ORDERS[0])}
        for word, (value, default) in (given | {"norm_eps": (norm_eps, NORM_EPS)}).items():
            if not (value is default or (isinstance(value, int | float | str) and value == default)):
                raise ValueError(
                    f"critical_gain takes no {word} beside a Chain: bias_std, norm, order and norm_eps are the chain's "
                    "own, as in chain.replace(bias_std=0.1)"
                )
        batch = (16 if activation.has_batch_norm else 1) if batch is None else batch
        return critical_factor(activation, batch, positions)
    row = activations.get(activation)
    bias_std = checks.within("bias_std", bias_std, 0.0, LARGEST_BIAS)
    checks.choice("norm", norm, NORMS)
    checks.choice("order", order, ORDERS)
    if norm is not None:
        return _normalised(row, bias_std, norm, order, checks.within("norm_eps", norm_eps, 1e-30, 1e30))
    points = _critical_points(row, bias_std)
    if not points:
        return _closest(row, bias_std, order)
    points.sort(key=lambda p: (not p[3], p[0]))
    gain, q, par, stable = points[0]
    others = tuple(p[0] for p in points[1:])
    where = "in the limit of small signals" if q == 0 else f"at mean square q = {q:.4g}"
    character = "to which signals return" if stable else "from which signals run away"
    fixed = (
        f"at any mean square q (chi_par = {par:.4g})"
        if math.isnan(q)
        else f"{where}, a fixed point {character} (chi_par = {par:.4g})"
    )
    note = (
        f"{row} keeps its gradient at sigma_w = {gain:.6g} (weights of standard deviation {gain:.6g} / "
        f"sqrt(fan_in)), {fixed}"
    )
    if gain > 5:
        note += "; a large weight scale that no scheme in use comes near"
    return CriticalPoint(str(row), bias_std, norm, order, True, gain, q, 1.0, par, stable, others, note)


def _line(row: Any, t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """On chi_perp = 1: log sigma_w^2, sigma_b^2 / q, and chi_par, at log standard deviations t."""
    c = moments(row)(t)
    ratio = np.exp(c[LOG_VALUE2] - c[LOG_SLOPE2] - 2 * t)  # sigma_w^2 E phi^2 / q
    return -c[LOG_SLOPE2], 1 - ratio, c[ELASTICITY] * ratio


def _homogeneous(row: Any) -> bool:
    return row.name in HOMOGENEOUS


def _critical_points(row: Any, bias_std: float) -> list[tuple[float, float, float, bool]]:
    """(sigma_w, q, chi_par, stable) of every solution found."""
    found = []
    zero = float(np.asarray(row.value(np.zeros(1)))[0])
    if _homogeneous(row):
        if bias_std == 0:
            level = float(moments(row)(np.array([0.0]))[LOG_SLOPE2, 0])
            found.append((math.exp(-level / 2), math.nan, 1.0, True))
        return found
    t = np.linspace(LOWEST, HIGHEST, 1201)
    log_w, rest, _ = _line(row, t)
    with np.errstate(all="ignore"):
        gap = rest - bias_std**2 * np.exp(-2 * t)
    gap[~np.isfinite(gap)] = np.nan
    if bias_std == 0 and zero == 0 and abs(log_w[0] - log_w[50]) < 1e-3:  # the function has a slope at 0
        # q = 0 is fixed: critical there where sigma_w phi'(0+-) has mean square 1; q leaves or comes as the curvature
        # says
        slope = float(moments(row)(np.array([LOWEST]))[LOG_SLOPE2, 0])
        # sigma_w^2 E phi^2 <= q just above 0
        falls = moments(row)(np.array([-5.0]))[LOG_VALUE2, 0] - slope <= -10.0 + 1e-12
        found.append((math.exp(-slope / 2), 0.0, 1.0, bool(falls)))
    usable = np.isfinite(gap) & (log_w < 2 * LOG_LARGEST)
    # near q = 0 both sides vanish together: roots there are the limit found above
    if bias_std == 0 and zero == 0:
        usable &= (t > -5) & (np.abs(gap) > 1e-9)
    for i in np.flatnonzero(usable[:-1] & usable[1:] & (np.sign(gap[:-1]) != np.sign(gap[1:]))):
        root = _bisect(
            lambda s: float(_line(row, np.array([s]))[1][0]) - bias_std**2 * math.exp(-2 * s), t[i], t[i + 1]
        )
        w, _, chi = (float(v[0]) for v in _line(row, np.array([root])))
        found.append((math.exp(w / 2), math.exp(2 * root), chi, chi <= 1 + 1e-9))
    return found


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    at_low = function(low)
    for _ in range(80):
        middle = (low + high) / 2
        value = function(middle)
        if value == 0 or high - low < 1e-14 * (1 + abs(middle)):
            return middle
        if (value > 0) == (at_low > 0):
            low, at_low = middle, value
        else:
            high = middle
    return (low + high) / 2


def _closest(row: Any, bias_std: float, order: str) -> CriticalPoint:
    """No solution: criticality at infinity for functions with a slope there, else the fixed point with chi_perp nearest
    to 1 over gains up to 1e4."""
    limit = (row.left**2 + row.right**2) / 2
    straight = abs(float(moments(row)(np.array([HIGHEST]))[ELASTICITY, 0]) - 1) < 1e-3  # far out phi is two lines
    if limit > 0 and straight:
        gain = limit**-0.5
        note = (
            f"{row}: no critical gain with sigma_b = {bias_std:g}; the factor tends to 1 only as sigma_w -> "
            f"{gain:.6g}, "
            "where signals grow without end"
        )
        if _homogeneous(row):
            note = (
                f"{row}: gradients keep their size at sigma_w = {gain:.6g}, but there is no fixed point: "
                f"biases add {bias_std**2:.4g} to the mean square a layer"
            )
        return CriticalPoint(str(row), bias_std, None, order, False, gain, math.inf, 1.0, 1.0, False, (), note)
    gains = np.geomspace(0.05, 1e4, 400)
    x = fixed_point(row, 2 * np.log(gains), np.full(400, 2 * math.log(bias_std) if bias_std else -math.inf))
    c = moments(row)(np.clip(x, -600, 680) / 2)
    distance = np.where(np.isfinite(x), np.abs(2 * np.log(gains) + c[LOG_SLOPE2]), np.inf)
    if not np.isfinite(distance).any():
        note = (
            f"{row}: no critical gain with sigma_b = {bias_std:g}; signals die out or grow without end, whatever "
            "the gain"
        )
        return CriticalPoint(
            str(row), bias_std, None, order, False, math.nan, math.nan, math.nan, math.nan, False, (), note
        )
    i = int(np.argmin(distance))
    w, perp = float(gains[i]), math.exp(2 * math.log(gains[i]) + c[LOG_SLOPE2, i])
    par = math.exp(2 * math.log(w) + c[LOG_VALUE2, i] - x[i]) * c[ELASTICITY, i]
    note = (
        f"{row}: no critical gain with sigma_b = {bias_std:g}; the closest is sigma_w = {w:.4g}, "
        f"where the squared gradient changes by {perp:.4g} a layer"
    )
    return CriticalPoint(str(row), bias_std, None, order, False, w, math.exp(x[i]), perp, float(par), False, (), note)


def fixed_point(row: Any, log_w: np.ndarray, log_b: np.ndarray) -> np.ndarray:
    """log q* that an input of mean square 1 runs to under q' = sigma_w^2 E phi^2 + sigma_b^2, elementwise; -inf where
    it dies out, inf where it runs away.

    The map is taken as increasing in q: then the iteration stops at the first fixed point on its way.
    """
    table, noise = moments(row), 1e-11
    log_w, log_b = np.broadcast_arrays(np.asarray(log_w, float), np.asarray(log_b, float))
    flat_w, flat_b = log_w.ravel(), log_b.ravel()
    t = np.linspace(LOWEST, HIGHEST, 1201)
    value = table(t)[LOG_VALUE2]
    out = np.empty(flat_w.shape)
    low, high = np.full(out.shape, np.nan), np.full(out.shape, np.nan)
    for i, (w, b) in enumerate(zip(flat_w, flat_b, strict=True)):
        start = np.logaddexp(w, b)
        if start == -np.inf:
            out[i] = start
            continue
        gap = np.logaddexp(w + value, b) - 2 * t
        if np.max(np.abs(gap)) < 1e-9:  # every q is fixed
            out[i] = start
            continue
        k = int(np.clip(np.searchsorted(2 * t, start), 1, len(t) - 2))
        if gap[k] > noise:
            later = np.flatnonzero(gap[k:] <= noise)
            out[i] = np.nan if len(later) else np.inf
            if len(later):
                low[i], high[i] = t[k + later[0] - 1], t[k + later[0]]
        else:
            earlier = np.flatnonzero(gap[: k + 1] > noise)
            out[i] = np.nan if len(earlier) else -np.inf
            if len(earlier):
                low[i], high[i] = t[earlier[-1]], t[earlier[-1] + 1]
    todo = np.flatnonzero(np.isnan(out))
    if len(todo):
        w, b, lo, hi = flat_w[todo], flat_b[todo], low[todo], high[todo]
        for _ in range(42):
            middle = (lo + hi) / 2
            up = np.logaddexp(w + table(middle)[LOG_VALUE2], b) > 2 * middle
            lo, hi = np.where(up, middle, lo), np.where(up, hi, middle)
        out[todo] = lo + hi
    return out.reshape(log_w.shape)


def _normalised(row: Any, bias_std: float, norm: str, order: str, eps: float) -> CriticalPoint:
    """With a norm before phi the signal's size does not depend on the gain: the growth rate, and whether it is 1."""
    if norm == "batch":
        slope, mean2, mean = (
            gaussian_mean(f, 1.0, special_points(row))
            for f in (lambda z: row.slope(z) ** 2, lambda z: row.value(z) ** 2, row.value)
        )
        chi = slope / (mean2 - mean * mean)
        note = (
            f"{row} with batch norm: no gain is critical; the squared gradient grows by {chi:.5g} a layer for large "
            "batches, "
            "more for small ones, whatever the gain"
        )
        return CriticalPoint(str(row), bias_std, norm, order, False, math.nan, 1.0, chi, 0.0, False, (), note)
    c = moments(row)(np.array([0.0]))[:, 0]
    chi = math.exp(c[LOG_SLOPE2] - c[LOG_VALUE2])
    if bias_std == 0:
        same = abs(chi - 1) < 1e-9
        what = (
            "keeps the gradient at any gain"
            if same
            else f"multiplies the squared gradient by {chi:.5g} a layer whatever the gain"
        )
        return CriticalPoint(
            str(row), 0.0, norm, order, same, 1.0, 1.0, chi, 0.0, same, (), f"{row} with {norm} norm {what}"
        )
    # sigma_w^2 E phi'^2 / (sigma_w^2 E phi^2 + sigma_b^2 + eps) = 1
    room = math.exp(c[LOG_SLOPE2]) - math.exp(c[LOG_VALUE2])
    if room <= 0:
        note = (
            f"{row} with {norm} norm and biases: no gain is critical, the squared gradient shrinks by {chi:.5g} "
            "or more a layer"
        )
        return CriticalPoint(str(row), bias_std, norm, order, False, math.inf, 1.0, chi, 0.0, False, (), note)
    gain = math.sqrt((bias_std**2 + eps) / room)
    return CriticalPoint(
        str(row),
        bias_std,
        norm,
        order,
        True,
        gain,
        1.0,
        1.0,
        0.0,
        True,
        (),
        f"{row} with {norm} norm: critical at sigma_w = {gain:.6g}",
    )
