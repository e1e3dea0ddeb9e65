# SPDX-License-Identifier: BSD-3-Clause
"""The built-in activation functions in lanes of float64: `pykernel.activations`, fast; a user's own row goes through a callback.

Accuracy: a few units in the last place; `tests/test_numba.py` holds every row here to the table of `pykernel.activations`.
"""

from __future__ import annotations

import math

import numpy as np

from pykernel.activations import GELU_CUBIC, SELU_ALPHA, SELU_LAMBDA
from pykernel.kernels import inline, jit
from pykernel.kernels.lanes import absolute, fma, greater, larger, less, load, polynomial, rint, smaller, spread, store, two_to, where

# PIECEWISE covers every function that is linear on each side of zero; CALLBACK every function that is not in this file.
CALLBACK, PIECEWISE = -1, 0
NAMES = (
    "piecewise",
    "sigmoid",
    "tanh",
    "elu",
    "selu",
    "gelu",
    "gelu_tanh",
    "silu",
    "softplus",
    "mish",
    "hardtanh",
    "softsign",
    "erf",
    "arctan",
    "sin",
)
_, SIGMOID, TANH, ELU, SELU, GELU, GELU_TANH, SILU, SOFTPLUS, MISH, HARDTANH, SOFTSIGN, ERF, ARCTAN, SIN = range(len(NAMES))

# (e^r - 1) / r on [-ln 2 / 2, ln 2 / 2] by its Taylor series: the first term left out is 4e-18 of the whole.
_expm1_over = polynomial([1 / math.factorial(n + 1) for n in range(15)])
# atanh(s) / s in s^2 on [0, 1/9]: the first term left out is 3e-18 of the whole.
_atanh_over = polynomial([1 / (2 * n + 1) for n in range(18)])
_LOG2_E = 1 / math.log(2)
_LN_2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
_LN_2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_ROOT_2_OVER_PI = math.sqrt(2 / math.pi)
_DENSITY_0 = 1 / math.sqrt(2 * math.pi)
_ERF_SLOPE_0 = 2 / math.sqrt(math.pi)


@inline
def _split_exp(z):
    """(p, q) with e^z = p + p q, for z in [-708, 709]: p is a power of two and q = e^r - 1 of the rest."""
    n = rint(z * _LOG2_E)
    minus = spread(0.0) - n
    r = fma(minus, spread(_LN_2_LOW), fma(minus, spread(_LN_2_HIGH), z))
    return two_to(n), r * _expm1_over(r)


@inline
def _exp_of_minus(x):
    """e^-x for x >= 0; 0 from 708 on."""
    p, q = _split_exp(spread(0.0) - smaller(x, spread(708.0)))
    return where(less(x, spread(708.0)), fma(p, q, p), spread(0.0))


@inline
def _expm1_of_minus(x):
    """e^-x - 1 for x >= 0."""
    p, q = _split_exp(spread(0.0) - smaller(x, spread(700.0)))
    return fma(p, q, p - 1.0)


@inline
def _log1p(e):
    """ln(1 + e) for e in [0, 1]."""
    s = e / (e + 2.0)
    return s * _atanh_over(s * s) * 2.0


@inline
def _sigmoids(z):
    """sigmoid(z) and sigmoid(-z)."""
    e = _exp_of_minus(absolute(z))
    over = spread(1.0) / (e + 1.0)
    small = e * over
    negative = less(z, spread(0.0))
    return where(negative, small, over), where(negative, over, small)


@inline
def _tanh(z):
    m = _expm1_of_minus(absolute(z) * 2.0)
    t = (spread(0.0) - m) / (m + 2.0)
    return where(less(z, spread(0.0)), spread(0.0) - t, t)


@inline
def _tanh_slope(z):
    e = _exp_of_minus(absolute(z) * 2.0)
    over = spread(1.0) / (e + 1.0)
    return e * 4.0 * over * over


@inline
def _elu(a, z):
    return where(greater(z, spread(0.0)), z, _expm1_of_minus(spread(0.0) - smaller(z, spread(0.0))) * a)


@inline
def _elu_slope(a, z):
    return where(greater(z, spread(0.0)), spread(1.0), _exp_of_minus(spread(0.0) - smaller(z, spread(0.0))) * a)


@inline
def _gelu_argument(z):
    square = z * z
    return fma(z * square, spread(GELU_CUBIC), z) * (2 * _ROOT_2_OVER_PI), fma(square, spread(3 * GELU_CUBIC), spread(1.0)) * (
        2 * _ROOT_2_OVER_PI
    )


@inline
def _gelu_tanh_slope(z):
    y, dy = _gelu_argument(z)
    up, down = _sigmoids(y)
    inside = where(less(absolute(z), spread(1e3)), z * dy, spread(0.0))
    return up * fma(inside, down, spread(1.0))


@inline
def _silu_slope(z):
    up, down = _sigmoids(z)
    return up * fma(z, down, spread(1.0))


@inline
def _softplus(z):
    return larger(z, spread(0.0)) + _log1p(_exp_of_minus(absolute(z)))


@inline
def _mish_gate(z):
    e = _exp_of_minus(absolute(z))
    negative = less(z, spread(0.0))
    n = where(negative, e * (e + 2.0), e * 2.0 + 1.0)
    d = n + where(negative, spread(2.0), e * e * 2.0)
    return n / d, (d - n) * (d + n) / (d * d)


@inline
def _mish_slope(z):
    gate, rest = _mish_gate(z)
    up, _ = _sigmoids(z)
    return fma(z * rest, up, gate)


@jit
def values(row, parameter, z, out, count):
    """out = phi(z) for `count` (a multiple of 16) float64 numbers; row is a number of this file above PIECEWISE."""
    if row == SIGMOID:
        for i in range(0, count, 16):
            up, _ = _sigmoids(load(z, i))
            store(out, i, up)
    elif row == TANH:
        for i in range(0, count, 16):
            store(out, i, _tanh(load(z, i)))
    elif row == ELU:
        for i in range(0, count, 16):
            store(out, i, _elu(parameter, load(z, i)))
    elif row == SELU:
        for i in range(0, count, 16):
            store(out, i, _elu(SELU_ALPHA, load(z, i)) * SELU_LAMBDA)
    elif row == GELU:
        for i in range(count):
            out[i] = z[i] * math.erfc(-z[i] * math.sqrt(0.5)) * 0.5
    elif row == GELU_TANH:
        for i in range(0, count, 16):
            x = load(z, i)
            y, _ = _gelu_argument(x)
            up, _ = _sigmoids(y)
            store(out, i, x * up)
    elif row == SILU:
        for i in range(0, count, 16):
            x = load(z, i)
            up, _ = _sigmoids(x)
            store(out, i, x * up)
    elif row == SOFTPLUS:
        for i in range(0, count, 16):
            store(out, i, _softplus(load(z, i)))
    elif row == MISH:
        for i in range(0, count, 16):
            x = load(z, i)
            gate, _ = _mish_gate(x)
            store(out, i, x * gate)
    elif row == HARDTANH:
        for i in range(0, count, 16):
            store(out, i, smaller(larger(load(z, i), spread(-1.0)), spread(1.0)))
    elif row == SOFTSIGN:
        for i in range(0, count, 16):
            x = load(z, i)
            store(out, i, x / (absolute(x) + 1.0))
    elif row == ERF:
        for i in range(count):
            out[i] = math.erf(z[i])
    elif row == ARCTAN:
        for i in range(count):
            out[i] = math.atan(z[i])
    elif row == SIN:
        for i in range(count):
            out[i] = math.sin(z[i])


@jit
def slopes(row, parameter, z, out, count):
    """out = phi'(z), as `values`."""
    if row == SIGMOID:
        for i in range(0, count, 16):
            up, down = _sigmoids(load(z, i))
            store(out, i, up * down)
    elif row == TANH:
        for i in range(0, count, 16):
            store(out, i, _tanh_slope(load(z, i)))
    elif row == ELU:
        for i in range(0, count, 16):
            store(out, i, _elu_slope(parameter, load(z, i)))
    elif row == SELU:
        for i in range(0, count, 16):
            store(out, i, _elu_slope(SELU_ALPHA, load(z, i)) * SELU_LAMBDA)
    elif row == GELU:
        for i in range(0, count, 16):
            x = load(z, i)
            store(out, i, x * _exp_of_minus(x * x * 0.5) * _DENSITY_0)
        for i in range(count):
            out[i] += math.erfc(-z[i] * math.sqrt(0.5)) * 0.5
    elif row == GELU_TANH:
        for i in range(0, count, 16):
            store(out, i, _gelu_tanh_slope(load(z, i)))
    elif row == SILU:
        for i in range(0, count, 16):
            store(out, i, _silu_slope(load(z, i)))
    elif row == SOFTPLUS:
        for i in range(0, count, 16):
            up, _ = _sigmoids(load(z, i))
            store(out, i, up)
    elif row == MISH:
        for i in range(0, count, 16):
            store(out, i, _mish_slope(load(z, i)))
    elif row == HARDTANH:
        for i in range(0, count, 16):
            store(out, i, where(less(absolute(load(z, i)), spread(1.0)), spread(1.0), spread(0.0)))
    elif row == SOFTSIGN:
        for i in range(0, count, 16):
            over = spread(1.0) / (absolute(load(z, i)) + 1.0)
            store(out, i, over * over)
    elif row == ERF:
        for i in range(0, count, 16):
            x = load(z, i)
            store(out, i, _exp_of_minus(x * x) * _ERF_SLOPE_0)
    elif row == ARCTAN:
        for i in range(0, count, 16):
            x = load(z, i)
            store(out, i, spread(1.0) / fma(x, x, spread(1.0)))
    elif row == SIN:
        for i in range(count):
            out[i] = math.cos(z[i])


def number(activation):
    """The row number of an Activation and its one parameter, CALLBACK where this file has no formula for it."""
    linear_sides = activation.at_zero == 0 and activation.left == activation.before_zero and activation.right == activation.after_zero
    if activation.builtin and activation.name in ("linear", "relu", "leaky_relu") and linear_sides:
        return PIECEWISE, 0.0
    if activation.builtin and activation.name in NAMES[1:]:
        return NAMES.index(activation.name), float(activation.parameters[0]) if activation.parameters else 0.0
    return CALLBACK, 0.0


def slope_at_zero(activation):
    """phi'(0) as the row gives it: one of the two sides at a kink."""
    return float(np.asarray(activation.slope(np.zeros(1)))[0])
