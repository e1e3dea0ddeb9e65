# SPDX-License-Identifier: BSD-3-Clause
"""Depth scales: over how many layers a chain forgets its input and loses its gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pykernel.chain import Chain
from pykernel.lower import lower
from pykernel.tables import Shown, Strong
from pykernel.theory import uniform
from pykernel.theory.correlation import distance_map
from pykernel.theory.critical import fixed_point
from pykernel.theory.logs import log_add
from pykernel.theory.plain import plain
from pykernel.theory.quadrature import ELASTICITY, LOG_SLOPE2, LOG_VALUE2, moments
from pykernel.theory.weights import bias_log, weight_log


@dataclass(frozen=True)
class DepthScales(Shown):
    """How many layers a chain remembers, at the end of its depth.

    Attributes:
        xi_q: e-folding of the mean square towards its fixed point.  xi_c: of the correlation of two inputs.  xi_grad:
            of the squared gradient norm; positive where it shrinks towards the input, negative where it grows.  inf: no
            exponential.
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

    def shown(self) -> Iterator[Any]:
        """The numbers in a line."""
        yield Strong(
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
    if chain.is_spatial:
        raise ValueError(f"depth scales do not know convolutions and pools, got {chain}: see predict(chain).slope")
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
