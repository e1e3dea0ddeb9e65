# SPDX-License-Identifier: BSD-3-Clause
"""Exponentials and their kin in lanes of float64, a few units in the last place off: what activation functions are made
of."""

from __future__ import annotations

import math

from pykernel.kernels import inline
from pykernel.kernels.lanes import absolute, each, fma, greater, less, polynomial, rint, smaller, spread, two_to, where

# (e^r - 1) / r on [-ln 2 / 2, ln 2 / 2] by its Taylor series: the first term left out is 4e-18 of the whole.
_expm1_over = polynomial([1 / math.factorial(n + 1) for n in range(15)])
# atanh(s) / s in s^2 on [0, 1/9]: the first term left out is 3e-18 of the whole.
_atanh_over = polynomial([1 / (2 * n + 1) for n in range(18)])
_LOG2_E = 1 / math.log(2)
_LN_2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
_LN_2_LOW = float.fromhex("0x1.a39ef35793c76p-33")


@inline
def _split_exp(z):
    """(p, q) with e^z = p + p q, for z in [-708, 709]: p is a power of two and q = e^r - 1 of the rest."""
    n = rint(z * _LOG2_E)
    minus = spread(0.0) - n
    r = fma(minus, spread(_LN_2_LOW), fma(minus, spread(_LN_2_HIGH), z))
    return two_to(n), r * _expm1_over(r)


@inline
def exp_of_minus(x):
    """e^-x for x >= 0; 0 from 708 on, nan of nan."""
    p, q = _split_exp(spread(0.0) - smaller(x, spread(708.0)))
    return where(less(x, spread(708.0)), fma(p, q, p), where(greater(x, spread(707.0)), spread(0.0), x))


@inline
def expm1_of_minus(x):
    """e^-x - 1 for x >= 0, nan of nan."""
    p, q = _split_exp(spread(0.0) - smaller(x, spread(700.0)))
    return where(less(x, spread(700.0)), fma(p, q, p - 1.0), where(greater(x, spread(699.0)), spread(-1.0), x))


@inline
def log1p(e):
    """ln(1 + e) for e in [0, 1]."""
    s = e / (e + 2.0)
    return s * _atanh_over(s * s) * 2.0


@inline
def sigmoids(z):
    """sigmoid(z) and sigmoid(-z)."""
    e = exp_of_minus(absolute(z))
    over = spread(1.0) / (e + 1.0)
    small = e * over
    negative = less(z, spread(0.0))
    return where(negative, small, over), where(negative, over, small)


erf, erfc, arctan, sin, cos = (each(f) for f in (math.erf, math.erfc, math.atan, math.sin, math.cos))
