# SPDX-License-Identifier: BSD-3-Clause
"""The random stream in Numba: sixteen addresses at a time, the bits of `pykernel.stream`. For any njit code."""

from __future__ import annotations

import numpy as np

from pykernel import stream
from pykernel.distributions import INDEPENDENT
from pykernel.kernels import inline
from pykernel.kernels.lanes import (
    absolute,
    as_floats,
    as_words,
    fma,
    from_signed,
    greater,
    larger,
    less,
    multiply_wide,
    polynomial,
    rint,
    shift_signed,
    smaller,
    spread,
    sqrt,
    to_signed,
    where,
)

NAMES = INDEPENDENT
COUNT = len(NAMES)
NORMAL, UNIFORM, TRUNCATED, SPARSE, STUDENT, STABLE = range(COUNT)

_log = polynomial(stream.LOG)
_sine = polynomial(stream.SIN)
_cosine = polynomial(stream.COS)
_quantile = polynomial(stream.TRUNCATED)
_power = polynomial(stream.EXP2)
_M0, _M1, _W0, _W1 = np.uint32(0xD2511F53), np.uint32(0xCD9E8D57), np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_ROOT_HALF = np.uint32(0x3F3504F3)
_MANTISSA = np.uint32(0x7FFFFF)
_2_31, _2_32 = np.float32(2.0**-31), np.float32(2.0**-32)
_ONE, _HALF, _MINUS_HALF = np.float32(1), np.float32(0.5), np.float32(-0.5)
_MINUS_2_LN_2, _TWO_SIGMA, _TINY = stream.MINUS_2_LN_2, stream.TWO_SIGMA, stream.TINY
_LOG2_E = stream.LOG2_E
_TOP = np.uint32(1 << 31)
_ROUNDS = stream.ROUNDS


@inline
def philox(c0, c1, c2, c3, k0, k1):
    """Seven rounds of Philox4x32: four words for each of sixteen counters (lanes of uint32), a key of two uint32."""
    for _ in range(_ROUNDS):
        upper0, lower0 = multiply_wide(c0, _M0)
        upper1, lower1 = multiply_wide(c2, _M1)
        c0, c1, c2, c3 = upper1 ^ c1 ^ k0, lower1, upper0 ^ c3 ^ k1, lower0
        k0, k1 = np.uint32(k0 + _W0), np.uint32(k1 + _W1)
    return c0, c1, c2, c3


@inline
def unit_interval(words):
    """float32 in (0, 1]."""
    return fma(from_signed(words >> 1), spread(_2_31), spread(_2_32))


@inline
def uniforms(words):
    """float32 in [-1, 1]."""
    return fma(from_signed(words), spread(_2_31), spread(_2_32))


@inline
def minus_two_log(u):
    """-2 ln u of positive normal float32."""
    bits = as_words(u) - _ROOT_HALF
    exponent = from_signed(shift_signed(bits, 23))
    f = as_floats((bits & _MANTISSA) + _ROOT_HALF) - _ONE
    return fma(exponent, spread(_MINUS_2_LN_2), f * _log(f))


@inline
def _cos(t):
    return _cosine(t * t)


@inline
def _sin(t):
    return t * _sine(t * t)


@inline
def _angle(words):
    return from_signed(words) * _2_31


@inline
def _signed(x, words):
    return as_floats(as_words(x) ^ (words << 31))


@inline
def _exp2_minus_1(x):
    n = rint(x)
    f = x - n
    return as_floats((to_signed(n) + np.uint32(127)) << 23), f * _power(f)


@inline
def normals(first, second):
    """Two standard normals from two words."""
    radius = _signed(sqrt(minus_two_log(unit_interval(first))), first)
    t = _angle(second)
    return radius * _cos(t), radius * _sin(t)


@inline
def truncated(words):
    """Standard normal on [-2, 2]."""
    u = uniforms(words)
    v = u * _TWO_SIGMA
    minus = spread(np.float32(0)) - v
    w = minus_two_log(fma(minus, v, spread(_ONE))) * _HALF
    return u * _quantile(w)


@inline
def student(first, second, degrees):
    """Student t with `degrees` (float64) degrees of freedom from two words."""
    power, rest = _exp2_minus_1(minus_two_log(unit_interval(first)) * np.float32(_LOG2_E / degrees))
    radius = sqrt(fma(power, rest, power - _ONE) * np.float32(degrees))
    return _signed(radius, first) * _cos(_angle(second))


@inline
def stable(first, second, alpha):
    """Symmetric alpha-stable (alpha float64) from two words."""
    tiny = spread(_TINY)
    w = larger(minus_two_log(unit_interval(first)) * _HALF, tiny)
    t = _angle(second)
    cosine = larger(_cos(t), tiny)
    turn = t * np.float32(alpha)
    two = as_floats(as_words(spread(np.float32(2))) | (as_words(turn) & _TOP))
    folded = where(greater(absolute(turn), spread(_ONE)), two - turn, turn)
    other = larger(_cos(t * np.float32(1 - alpha)), tiny)
    exponent = (minus_two_log(w) - minus_two_log(other)) * np.float32(_LOG2_E * (1 - alpha) / (2 * alpha))
    exponent = fma(spread(np.float32(_LOG2_E / (2 * alpha))), minus_two_log(cosine), exponent)
    exponent = smaller(larger(exponent, spread(np.float32(-126))), spread(np.float32(126)))
    power, rest = _exp2_minus_1(exponent)
    return _sin(folded) * fma(power, rest, power)


@inline
def four_normals(key0, key1, c2, replica, line, block):
    """`four` for the normal distribution, without its branches."""
    w0, w1, w2, w3 = philox(block, line, spread(c2), spread(replica), key0, key1)
    x0, x1 = normals(w0, w1)
    x2, x3 = normals(w2, w3)
    return x0, x1, x2, x3


@inline
def four(distribution, parameter, key0, key1, c2, mask_c2, replica, line, block):
    """Four entries of a matrix row for each lane: columns 4 block .. 4 block + 3 of row `line` (lanes of uint32).

    Args:
        distribution: NORMAL .. STABLE; parameter: float64 density, degrees of freedom or alpha. key0, key1: uint32 seed
        words; c2, mask_c2: uint32 layer | purpose << 24 of the draw and of the mask; replica: uint32.

    Returns:
        Four lanes of float32.
    """
    third, fourth = spread(c2), spread(replica)
    if distribution >= STUDENT:
        w0, w1, w2, w3 = philox(block << 1, line, third, fourth, key0, key1)
        v0, v1, v2, v3 = philox((block << 1) + np.uint32(1), line, third, fourth, key0, key1)
        if distribution == STUDENT:
            return (
                student(w0, w1, parameter),
                student(w2, w3, parameter),
                student(v0, v1, parameter),
                student(v2, v3, parameter),
            )
        return (
            stable(w0, w1, parameter),
            stable(w2, w3, parameter),
            stable(v0, v1, parameter),
            stable(v2, v3, parameter),
        )
    w0, w1, w2, w3 = philox(block, line, third, fourth, key0, key1)
    if distribution == UNIFORM:
        return uniforms(w0), uniforms(w1), uniforms(w2), uniforms(w3)
    if distribution == TRUNCATED:
        return truncated(w0), truncated(w1), truncated(w2), truncated(w3)
    x0, x1 = normals(w0, w1)
    x2, x3 = normals(w2, w3)
    if distribution == SPARSE:
        m0, m1, m2, m3 = philox(block, line, spread(mask_c2), fourth, key0, key1)
        bound = spread(np.uint32(max(1.0, np.rint(parameter * 2.0**31))))
        none = spread(np.float32(0))
        x0, x1 = where(less(m0 >> 1, bound), x0, none), where(less(m1 >> 1, bound), x1, none)
        x2, x3 = where(less(m2 >> 1, bound), x2, none), where(less(m3 >> 1, bound), x3, none)
    return x0, x1, x2, x3
