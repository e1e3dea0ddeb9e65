# SPDX-License-Identifier: BSD-3-Clause
"""Where gradients neither vanish nor explode: the edge of chaos, the phase diagram, and the depth scales of a chain."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from pykernel import activations, checks
from pykernel.activation import Activation
from pykernel.chain import NORM_EPS, NORMS, ORDERS, Chain
from pykernel.lower import lower
from pykernel.theory import uniform
from pykernel.theory.correlation import distance_map
from pykernel.theory.critical_chain import CriticalFactor, critical_factor
from pykernel.theory.logs import log_add
from pykernel.theory.plain import plain
from pykernel.theory.quadrature import (
    ELASTICITY,
    HOMOGENEOUS,
    LOG_SLOPE2,
    LOG_VALUE2,
    gaussian_mean,
    moments,
    special_points,
)
from pykernel.theory.weights import bias_log, weight_log

LOG_LARGEST = math.log(1e4)  # of sigma_w: beyond it nobody initialises
LARGEST_BIAS = 1e100  # its square, and those of what it is compared with, stay in float64
LOWEST, HIGHEST = -16.0, 14.0  # log standard deviations searched for a fixed point


@dataclass(frozen=True)
class CriticalPoint:
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

    def __str__(self):
        return self.note


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
        if (bias_std, norm, order, norm_eps) != (0.0, None, ORDERS[0], NORM_EPS):
            raise ValueError("critical_gain takes no bias_std, norm, order or norm_eps beside a Chain, which says them")
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


def _bisect(function, low: float, high: float) -> float:
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


@dataclass(frozen=True)
class PhaseDiagram:
    """Fixed points over a grid of weight and bias scales.

    Attributes:
        activation: name.  sigma_w, sigma_b: the axes, (W,) and (S,).
        q, chi_perp, chi_par: at the stable fixed point that a unit input runs to, (S, W); q = inf where it runs away.
        phase: (S, W) of "ordered", "chaotic", "critical" (within 1e-6) or "unbounded".
    """

    activation: str
    sigma_w: np.ndarray
    sigma_b: np.ndarray
    q: np.ndarray
    chi_perp: np.ndarray
    chi_par: np.ndarray

    @property
    def phase(self) -> np.ndarray:
        chi = self.chi_perp
        names = np.where(np.abs(chi - 1) <= 1e-6, "critical", np.where(chi < 1, "ordered", "chaotic"))
        return np.where(np.isinf(self.q), "unbounded", names)

    def plot(self, ax=None, **mesh):
        """Decades a layer over (sigma_w, sigma_b) with the critical line.

        Args:
            ax: matplotlib axes to draw on, whose title and labels stay; a new pyplot figure without.
            mesh: of the shades, as matplotlib's `pcolormesh` takes them: cmap, vmin, vmax, alpha ...

        Returns:
            The axes.
        """
        from pykernel.plot import chain

        return chain.phase_diagram(self, ax=ax, **mesh)


def phase_diagram(activation="tanh", sigma_w=None, sigma_b=None) -> PhaseDiagram:
    """The squared gradient's factor per layer at the fixed point that an input of mean square 1 runs to, over a grid.

    Args:
        activation: name or `Activation`.
        sigma_w, sigma_b: 1-d arrays of standard deviations; by default 0.1 .. 5 and 0 .. 1.

    Returns:
        PhaseDiagram: arrays (len(sigma_b), len(sigma_w)).

    Examples:
        >>> d = phase_diagram("tanh", [0.5, 2.0], [0.1])
        >>> d.phase.tolist()
        [['ordered', 'chaotic']]
    """
    row = activations.get(activation)
    sigma_w = np.linspace(0.1, 5, 99) if sigma_w is None else np.atleast_1d(np.asarray(sigma_w, float))
    sigma_b = np.linspace(0, 1, 41) if sigma_b is None else np.atleast_1d(np.asarray(sigma_b, float))
    for name, axis in (("sigma_w", sigma_w), ("sigma_b", sigma_b)):
        if axis.ndim != 1 or axis.size == 0 or not np.isfinite(axis).all() or (axis < 0).any():
            raise ValueError(f"{name} must be a list of standard deviations, not negative, got {axis!r}")
    with np.errstate(divide="ignore"):
        log_w, log_b = 2 * np.log(sigma_w)[None, :], 2 * np.log(sigma_b)[:, None]
    x = fixed_point(row, log_w, log_b)
    c = moments(row)(np.clip(x, -600, 680) / 2)
    with np.errstate(invalid="ignore", over="ignore"):
        perp = np.exp(log_w + c[LOG_SLOPE2])
        par = np.exp(log_w + c[LOG_VALUE2] - np.clip(x, -600, 680)) * c[ELASTICITY]
        q = np.exp(x)
    return PhaseDiagram(str(row), sigma_w, sigma_b, q, perp, par)


@dataclass(frozen=True)
class DepthScales:
    """How many layers a chain remembers, at the end of its depth.

    Attributes:
        xi_q: e-folding of the mean square towards its fixed point.  xi_c: of the correlation of two inputs.  xi_grad:
            of the squared
        gradient norm;
            positive where it shrinks towards the input, negative where it grows.  inf: no exponential.
        q, c: fixed point of the mean square and of the correlation.  chi_perp, chi_par: slopes there.
        trainable_depth: about 6 xi_c (Schoenholz et al. 2017, figure 5).
    """

    xi_q: float
    xi_c: float
    xi_grad: float
    q: float
    c: float
    chi_perp: float
    chi_par: float

    @property
    def trainable_depth(self) -> float:
        return 6 * self.xi_c

    def __str__(self):
        return (
            f"xi_q = {self.xi_q:.4g}, xi_c = {self.xi_c:.4g}, xi_grad = {self.xi_grad:.4g} layers (q* = "
            f"{self.q:.4g}, c* = {self.c:.4g})"
        )


def depth_scales(chain: Chain) -> DepthScales:
    """xi_q, xi_c and xi_grad of the chain's last layer, repeated without end.

    Args:
        chain: without batch norm and residual sums (their growth is not exponential, or not one rate).

    Returns:
        DepthScales, in layers.

    Raises:
        ValueError: a chain with batch norm or residual sums.

    Notes:
        Schoenholz et al. 2017, arXiv 1611.01232, eqs. 8, 9 and 16: 1/xi_q = -log chi_par, 1/xi_c = -log(sigma_w^2 E
        phi'(u1) phi'(u2)) at c*, 1/xi_grad = -log chi_perp. Where q has no fixed point in (0, inf) the asymptotic rates
        are given.

    Examples:
        >>> s = depth_scales(Chain(depth=3, width=8, activation="tanh", init="lecun_normal", gain=1.5, bias_std=0.2))
        >>> round(s.q, 3), s.xi_grad < 0
        (0.871, True)
    """
    if not isinstance(chain, Chain):
        raise TypeError(f"chain must be a pykernel.Chain, got {type(chain).__name__}")
    program = lower(chain)
    facts = plain(program)
    if uniform.sources(program) is not None:
        raise ValueError("depth scales are not known of sines behind uniform biases: see predict(chain).slope")
    if facts is None or facts.norm == "batch" or facts.every or chain.has_lists:
        what = "batch norm" if facts is not None and facts.norm == "batch" else "residual sums"
        if facts is None or chain.has_lists:
            what = "blocks" if chain.blocks is not None else "layers that differ"
        raise ValueError(
            f"depth scales are those of plain chains, with or without layer or rms norm; this one has {what}: see "
            "predict(chain).slope"
        )
    row, norm = program.activations[program.steps.row[-1]], program.norms[program.steps.norm[-1]]
    table = moments(row)
    w, b = float(weight_log(program)[-1]), float(bias_log(program)[-1])
    if norm.kind is not None:
        c = table(np.array([0.0]))[:, 0]
        raw = log_add(w + c[LOG_VALUE2], b)
        raw_eps = log_add(raw, math.log(norm.eps))
        t, par = (raw - raw_eps) / 2, 0.0
        perp = math.exp(w + table.column(t, LOG_SLOPE2) - raw_eps)
        q = math.exp(raw)
        share = math.exp(w + table.column(t, LOG_VALUE2) - raw)
    else:
        x = float(np.clip(fixed_point(row, np.array(w), np.array(b)), -600, 680))
        t = x / 2
        c = table(np.array([t]))[:, 0]
        perp = math.exp(w + c[LOG_SLOPE2])
        par = math.exp(w + c[LOG_VALUE2] - x) * c[ELASTICITY]
        q = 0.0 if x <= -600 else math.inf if x >= 680 else math.exp(x)
        share = math.exp(w + c[LOG_VALUE2] - x)
    c_star, slope_c = _correlation_fixed_point(row, t, share, perp)
    return DepthScales(_scale(par), _scale(slope_c), _scale(perp), q, c_star, perp, par)


def _scale(factor: float) -> float:
    """-1 / log(factor), inf at 1 up to rounding, 0 at 0."""
    if factor <= 0:
        return 0.0
    return math.inf if abs(factor - 1) < 1e-9 else -1 / math.log(factor)


def _correlation_fixed_point(row: Any, t: float, share: float, perp: float) -> tuple[float, float]:
    """c* and the slope of the C-map there: 1 and chi_perp where collinear inputs stay so, else the stable point below
    1."""
    std = math.exp(max(min(t, 340.0), -340.0))
    if perp <= 1 + 1e-9:
        return 1.0, perp
    low, high = math.log(1e-9), math.log(1.5)
    grows = lambda y: math.log(max(share * distance_map(row, std, math.exp(y)), 1e-300)) - y
    at_low, at_high = grows(low), grows(high)
    if at_low <= 0:
        return 1.0, perp
    for _ in range(60):
        y = low + (high - low) * at_low / (at_low - at_high)
        y = min(max(y, low + 0.02 * (high - low)), high - 0.02 * (high - low))
        value = grows(y)
        if value > 0:
            low, at_low, at_high = y, value, at_high / 2
        else:
            high, at_high, at_low = y, value, at_low / 2
        if abs(value) < 1e-11 or high - low < 1e-12:
            break
    d = math.exp(y)
    h = 1e-4 * d
    slope = share * (distance_map(row, std, d + h) - distance_map(row, std, d - h)) / (2 * h)
    return 1 - d, slope
