# SPDX-License-Identifier: BSD-3-Clause
"""Exact laws of one layer at finite width: logs of chi-squared variables, of binomial shares, of both."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from pykernel.program import Program
from pykernel.theory.plain import plain


def digamma(x: float) -> float:
    """psi(x) for x > 0: recurrence to x >= 10, then the asymptotic series (error below 1e-14)."""
    shift = 0.0
    while x < 10:
        shift -= 1 / x
        x += 1
    y = 1 / (x * x)
    return shift + math.log(x) - 0.5 / x - y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y / 132))))


def trigamma(x: float) -> float:
    """psi'(x) for x > 0, likewise."""
    shift = 0.0
    while x < 10:
        shift += 1 / (x * x)
        x += 1
    y = 1 / (x * x)
    return shift + 1 / x + y / 2 + y / x * (1 / 6 - y * (1 / 30 - y * (1 / 42 - y * (1 / 30 - y * 5 / 66))))


@lru_cache(maxsize=4096)
def gaussian_linear(width: int) -> tuple[float, float]:
    """Mean and variance of the log of chi^2_n / n: the squared-norm factor of one Gaussian layer with variance 1/n,
    exact.

    Examples:
        >>> mean, variance = gaussian_linear(100)
        >>> round(mean * 100, 3), round(variance * 100, 3)
        (-1.003, 2.02)
    """
    return digamma(width / 2) - math.log(width / 2), trigamma(width / 2)


@lru_cache(maxsize=4096)
def haar_relu(width: int) -> tuple[float, float]:
    """Mean and variance of the log of a He-ReLU layer's factor on squared norms, its weights a square Haar matrix times
    sqrt(2): 2 Beta(K/2, (n-K)/2), K ~ Binomial(n, 1/2) given K > 0. Variance about 3/n."""
    n = width
    half = 6 * math.sqrt(n) + 1  # 12 standard deviations
    ks = range(max(1, math.ceil(n / 2 - half)), min(n, math.floor(n / 2 + half)) + 1)
    log_n = math.lgamma(n + 1) - n * math.log(2)
    p = np.array([math.exp(log_n - math.lgamma(k + 1) - math.lgamma(n - k + 1)) for k in ks])
    of_all = digamma(n / 2), trigamma(n / 2)
    laws = np.array([(digamma(k / 2) - of_all[0] + math.log(2), trigamma(k / 2) - of_all[1]) for k in ks])
    p /= p.sum()
    mean = float(p @ laws[:, 0])
    return mean, float(p @ (laws[:, 1] + (laws[:, 0] - mean) ** 2))


@lru_cache(maxsize=4096)
def leaky_share(width: int, left: float, right: float) -> tuple[float, float]:
    """Mean and variance of the log of the share of a gradient's squared norm that slopes of `left` or `right`, by fair
    coins, leave.

    Notes:
        Given which are live, W's signs are free (Hanin, Nica 2018, Prop. 2), so the gradient is isotropic: the share is
        A/B, A = sum d_i^2 g_i^2, B = sum g_i^2 over normal g, and independent of B (Basu 1955). For E exponential
        log(E/A) has the survival function M(e^y)^n, M(t) = E exp(-t d^2 g^2): log A has the mean -gamma - E log(E/A)
        and the variance Var log(E/A) - pi^2/6.
    """
    n, l2, r2 = width, left * left, right * right
    y = np.arange(-45.0 - math.log(n * max(l2, r2)), 100 - math.log(min(l2, r2)), 0.1)
    t = np.exp(y)
    per = np.log((1 + 2 * l2 * t) ** -0.5 + (1 + 2 * r2 * t) ** -0.5) - math.log(2)
    falls = (
        n
        * np.exp(n * per)
        * (l2 * t * (1 + 2 * l2 * t) ** -1.5 + r2 * t * (1 + 2 * r2 * t) ** -1.5)
        / (2 * np.exp(per))
    )
    falls /= falls.sum()
    middle = float(falls @ y)
    mean = -float(np.euler_gamma) - middle - digamma(n / 2) - math.log(2)
    return mean, float(falls @ (y - middle) ** 2) - math.pi**2 / 6 - trigamma(n / 2)


def dead_probability(program: Program) -> float:
    """Chance that every unit of some layer is dead, for one input of a ReLU chain without bias and norm: 1 - prod (1 -
    2^-n[l])."""
    facts = plain(program)
    if facts is None or {row.name for row in facts.rows} != {"relu"} or facts.norm or facts.every or facts.biased:
        return 0.0
    widths = facts.widths[1:] if facts.order == 0 else facts.widths[:-1]
    return float(-np.expm1(np.sum(np.log1p(-np.exp2(-widths.astype(float))))))
