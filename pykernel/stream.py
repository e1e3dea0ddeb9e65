# SPDX-License-Identifier: BSD-3-Clause
"""The random stream, defined: every random number of pykernel as a pure function of its address, in plain NumPy.

Philox4x32-7 (Salmon, Moraes, Dror, Shaw, SC 2011) with key = seed and counter = (block, line, layer | purpose << 24,
replica). C++ and Numba give the same bits; this file is what they are held to. Nothing here is fast: fused multiply-add
is emulated exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pykernel.distributions import TABLE
from pykernel.dtypes import Bools, Floats, Ints, Singles, Words32

VERSION = 2
ROUNDS = 7  # the fewest that pass BigCrush in table 2 of Salmon et al.; what else was run: docs/design.md, section 3

WEIGHT, MASK, BIAS, INPUT, INPUT_COMMON, COTANGENT, TARGET, FORWARD, BACKWARD, SAMPLER, DROPOUT = range(11)
ROUND_WEIGHT, ROUND_SIGNAL, ROUND_GRADIENT = range(11, 14)


def _floats(text: str) -> list[float]:
    return [float.fromhex(word) for word in text.split()]


# -2 ln(1 + f) / f on [sqrt(1/2) - 1, sqrt(2) - 1], relative error 1.8e-7; lowest power first, like all lists below.
LOG = _floats(
    "-0x1.fffffep+0 0x1.00007ap+0 -0x1.5559dcp-1 0x1.ff623ap-2 "
    "-0x1.978e42p-2 0x1.614c3ap-2 -0x1.4c3c72p-2 0x1.9df7b4p-3"
)
# sin(pi/2 t) / t and cos(pi/2 t) in t^2 on [0, 1], absolute errors 4e-8 and 8e-8.
SIN = _floats("0x1.921fb6p+0 -0x1.4abbc2p-1 0x1.4668b0p-4 -0x1.324ccap-8 0x1.3daff6p-13")
COS = _floats("0x1.fffffep-1 -0x1.3bd3a6p+0 0x1.03bd06p-2 -0x1.54f61ap-6 0x1.c1f064p-11")
# Quantile of the normal truncated at +-2, divided by its uniform U in (-1, 1), in w = -ln(1 - (.9545 U)^2); relative
# error 2.3e-8.
TRUNCATED = _floats(
    "0x1.323feep+0 0x1.40b482p-2 0x1.fe9418p-7 -0x1.99ff62p-9 -0x1.af6478p-13 0x1.6aee6ep-14 -0x1.973e1ep-18"
)
# (2^f - 1) / f on [-1/2, 1/2], relative error of 2^f 1.6e-8.
EXP2 = _floats("0x1.62e430p-1 0x1.ebfbdap-3 0x1.c6aed4p-5 0x1.3b2dbcp-7 0x1.5f456ap-10 0x1.41d328p-13")
MINUS_2_LN_2 = np.float32(-1.3862943611198906)
LOG2_E = 1.4426950408889634
TWO_SIGMA = np.float32(0.9544997361036416)  # erf(sqrt 2)
TINY = np.float32(2.0**-30)


def philox(counter: tuple[Any, Any, Any, Any], seed: int) -> tuple[Words32, ...]:
    """Seven rounds of Philox4x32.

    Args:
        counter: four arrays or ints that broadcast, each a 32-bit word (c0, c1, c2, c3).
        seed: int in [0, 2^64), the key (low word first).

    Returns:
        Four uint32 arrays.

    Examples:
        >>> [hex(int(w)) for w in philox((0, 0, 0, 0), 0)]
        ['0x5f6fb709', '0xd893f64', '0x4f121f81', '0x4f730a48']
    """
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    c0, c1, c2, c3 = (np.asarray(c, dtype=np.uint64) for c in np.broadcast_arrays(*counter))
    k0, k1 = int(seed) & 0xFFFFFFFF, int(seed) >> 32
    for _ in range(ROUNDS):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ np.uint64(k0), p1 & low, (p0 >> shift) ^ c3 ^ np.uint64(k1), p0 & low
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return tuple(c.astype(np.uint32) for c in (c0, c1, c2, c3))


def _words(seed: int, purpose: int, layer: int, replica: int, line: Any, block: Any, word: Any) -> Words32:
    """The word at each address; line, block and word broadcast."""
    line, block, word = np.broadcast_arrays(line, block, word)
    four = np.stack(philox((block, line, layer | purpose << 24, replica), seed))
    return np.take_along_axis(four, word[None].astype(np.int64), 0)[0]


def matrix_words(
    seed: int, purpose: int, layer: int, replica: int, rows: int, columns: int, per_block: int = 4
) -> Words32:
    """Words of matrix entries, shape (4 // per_block, rows, columns) uint32: one word an entry, or two."""
    i, k = np.arange(rows)[:, None], np.arange(columns)[None, :]
    each = 4 // per_block
    return np.stack(
        [_words(seed, purpose, layer, replica, i, k // per_block, each * (k % per_block) + j) for j in range(each)]
    )


def tall_words(
    seed: int, purpose: int, layer: int, replica: int, units: int, columns: int = 1, first: int = 0
) -> Words32:
    """Words of a tall array or (one column) a vector, columns first .. first + columns - 1, shape (units, columns)
    uint32."""
    i, b = np.arange(units)[:, None], np.arange(first, first + columns)[None, :]
    return _words(seed, purpose, layer, replica, b, 16 * (i // 64) + i % 16, (i // 16) % 4)


def sampler_seed(seed: int, layer: int, replica: int) -> int:
    """A 64-bit seed for a user's own sampler of one weight matrix: the first two words at its address."""
    low, high, *_ = philox((0, 0, layer | SAMPLER << 24, replica), seed)
    return int(low) | int(high) << 32


def fma(a: Any, b: Any, c: Any) -> Singles:
    """a * b + c in float32 with one rounding: the product is exact in float64, the sum is rounded to odd, then to
    float32."""
    product = np.float64(a) * np.float64(b)
    c = np.float64(c)
    total = product + c
    back = total - product
    error = (product - (total - back)) + (c - back)
    even = (total.view(np.int64) & 1) == 0 if isinstance(total, np.ndarray) else True
    return np.where((error != 0) & even, np.nextafter(total, np.copysign(np.inf, error)), total).astype(np.float32)


def _polynomial(coefficients: list[float], x: Singles) -> Singles:
    y = np.full_like(x, np.float32(coefficients[-1]))
    for c in coefficients[-2::-1]:
        y = fma(y, x, np.float32(c))
    return y


def unit_interval(words: Words32) -> Singles:
    """Float32 in (0, 1] from the upper 31 bits: (w >> 1) 2^-31 + 2^-32; the smallest is 2^-32, so normals reach
    6.66."""
    return fma((words >> np.uint32(1)).astype(np.int32).astype(np.float32), np.float32(2.0**-31), np.float32(2.0**-32))


def uniforms(words: Words32) -> Singles:
    """Float32 in [-1, 1]: int32(w) 2^-31 + 2^-32."""
    return fma(words.view(np.int32).astype(np.float32), np.float32(2.0**-31), np.float32(2.0**-32))


def minus_two_log(u: Singles) -> Singles:
    """-2 ln u for positive normal float32 u, relative error 2e-7."""
    bits = u.view(np.int32) - np.int32(0x3F3504F3)
    exponent = (bits >> 23).astype(np.float32)
    f = ((bits & np.int32(0x7FFFFF)) + np.int32(0x3F3504F3)).view(np.float32) - np.float32(1)
    return fma(exponent, MINUS_2_LN_2, f * _polynomial(LOG, f))


def half_turn(words: Words32) -> tuple[Singles, Singles, Singles]:
    """t in [-1, 1] with cos(pi/2 t) and sin(pi/2 t), float32: t = int32(w) 2^-31."""
    t = words.view(np.int32).astype(np.float32) * np.float32(2.0**-31)
    return t, _cos(t), _sin(t)


def _cos(t: Singles) -> Singles:
    return _polynomial(COS, t * t)


def _sin(t: Singles) -> Singles:
    return t * _polynomial(SIN, t * t)


def _exp2_minus_1(x: Singles) -> tuple[Singles, Singles]:
    n = np.rint(x)
    f = x - n
    power = ((n.astype(np.int32) + np.int32(127)) << 23).view(np.float32)
    return power, f * _polynomial(EXP2, f)


def _signed(x: Singles, words: Words32) -> Singles:
    """x with the sign flipped where the lowest bit of the word (that `unit_interval` does not use) is set."""
    return (x.view(np.uint32) ^ (words << np.uint32(31))).view(np.float32)


def normals(first: Words32, second: Words32) -> tuple[Singles, Singles]:
    """Two float32 standard normals from two words (Box and Muller, 1958), the angle over half a turn and the sign from
    a spare bit."""
    radius = _signed(np.sqrt(minus_two_log(unit_interval(first))), first)
    _, cosine, sine = half_turn(second)
    return radius * cosine, radius * sine


def truncated(words: Words32) -> Singles:
    """Standard normal conditioned on [-2, 2] (standard deviation .8796), by its quantile function."""
    u = uniforms(words)
    v = u * TWO_SIGMA
    w = np.float32(0.5) * minus_two_log(fma(-v, v, np.float32(1)))
    return u * _polynomial(TRUNCATED, w)


def student(first: Words32, second: Words32, degrees: float) -> Singles:
    """Student t with `degrees` >= 1 degrees of freedom (Bailey, Math. Comp. 62, 1994): sqrt(nu (u^(-2/nu) - 1))
    cos(angle)."""
    power, rest = _exp2_minus_1(minus_two_log(unit_interval(first)) * np.float32(LOG2_E / degrees))
    radius = np.sqrt(np.float32(degrees) * fma(power, rest, power - np.float32(1)))
    _, cosine, _ = half_turn(second)
    return _signed(radius, first) * cosine


def stable(first: Words32, second: Words32, alpha: float) -> Singles:
    """Symmetric alpha-stable, unit scale, 0.5 <= alpha <= 2 (Chambers, Mallows, Stuck, JASA 71, 1976); alpha = 2 has
    variance 2."""
    w = np.maximum(np.float32(0.5) * minus_two_log(unit_interval(first)), TINY)
    t, cosine, _ = half_turn(second)
    cosine = np.maximum(cosine, TINY)
    turn = np.float32(alpha) * t
    folded = np.where(np.abs(turn) > np.float32(1), np.copysign(np.float32(2), turn) - turn, turn)
    other = np.maximum(_cos(np.float32(1 - alpha) * t), TINY)
    exponent = np.float32(LOG2_E * (1 - alpha) / (2 * alpha)) * (minus_two_log(w) - minus_two_log(other))
    exponent = fma(np.float32(LOG2_E / (2 * alpha)), minus_two_log(cosine), exponent)
    power, rest = _exp2_minus_1(np.clip(exponent, np.float32(-126), np.float32(126)))
    return _sin(folded) * fma(power, rest, power)


def matrix(
    seed: int,
    layer: int,
    replica: int,
    rows: int,
    columns: int,
    distribution: str = "normal",
    parameter: float = 0.0,
    purpose: int = WEIGHT,
) -> Singles:
    """Unit draws of a weight matrix.

    Args:
        seed: int in [0, 2^64).  layer: 1-based.  replica: int.
        rows, columns: n[l] and n[l-1].
        distribution: "normal", "uniform" (on (-1, 1)), "truncated" (at +-2), "sparse" (normal with density `parameter`,
            else 0), "student" (`parameter` degrees of freedom), "stable" (alpha = `parameter`).

    Returns:
        (rows, columns) float32.

    Examples:
        >>> matrix(0, 1, 0, 4, 4).shape
        (4, 4)
    """
    if TABLE[distribution].words == 2:
        first, second = matrix_words(seed, purpose, layer, replica, rows, columns, per_block=2)
        return {"student": student, "stable": stable}[distribution](first, second, parameter)
    words = matrix_words(seed, purpose, layer, replica, rows, columns + columns % 2)[0]
    if distribution == "uniform":
        return uniforms(words)[:, :columns]
    if distribution == "truncated":
        return truncated(words)[:, :columns]
    out = np.stack(normals(words[:, 0::2], words[:, 1::2]), axis=-1).reshape(rows, -1)[:, :columns]
    if distribution == "sparse":
        mask = matrix_words(seed, MASK, layer, replica, rows, columns)[0]
        out = np.where((mask >> np.uint32(1)) < np.uint32(max(1, round(parameter * 2.0**31))), out, np.float32(0))
    return out


def tall(
    seed: int,
    purpose: int,
    layer: int,
    replica: int,
    units: int,
    columns: int = 1,
    distribution: str = "normal",
    first: int = 0,
) -> Singles:
    """Normals or uniforms on (-1, 1) of a tall array, columns first .. first + columns - 1, (units, columns) float32;
    words 0, 1 and 2, 3 of a block pair up for normals."""
    padded = -(-units // 64) * 64
    words = tall_words(seed, purpose, layer, replica, padded, columns, first)
    if distribution == "uniform":
        return uniforms(words)[:units]
    words = words.reshape(-1, 4, 16, columns)
    pairs = [normals(words[:, j], words[:, j + 1]) for j in (0, 2)]
    return np.stack([*pairs[0], *pairs[1]], axis=1).reshape(padded, columns)[:units]


def bits(seed: int, layer: int, replica: int, units: int, columns: int) -> Floats:
    """Fair bits at the TARGET addresses: the top bit of each word, float64 (units, columns)."""
    return (tall_words(seed, TARGET, layer, replica, units, columns) >> np.uint32(31)).astype(np.float64)


def classes(seed: int, layer: int, replica: int, count: int, columns: int) -> Ints:
    """Uniform classes below `count` at the TARGET addresses of unit 0: floor(w count 2^-32), int64 (columns,)."""
    words = tall_words(seed, TARGET, layer, replica, 1, columns)[0].astype(np.uint64)
    return ((words * np.uint64(count)) >> np.uint64(32)).astype(np.int64)


def mask(seed: int, number: int, replica: int, units: int, columns: int, p: float) -> Bools:
    """Which entries dropout of probability p leaves, at the DROPOUT addresses of its number from 1: word >= floor(p
    2^32), bool."""
    return tall_words(seed, DROPOUT, number, replica, units, columns) >= np.uint32(int(p * 2.0**32))
