# SPDX-License-Identifier: BSD-3-Clause
"""Batch, layer and RMS normalisation of a block, and back through their statistics; a kind is its place in KINDS."""

from __future__ import annotations

import math

import numpy as np
from numba.extending import register_jitable

from pykernel.kernels import blocks, jit
from pykernel.kernels.lanes import fma, spread, sqrt, total, widen
from pykernel.kernels.memory import load, narrow_like, store

KINDS = (None, "batch", "layer", "rms")
_, BATCH, LAYER, RMS = range(len(KINDS))
_TINY = float(np.finfo(np.float64).tiny)


def kinds(rows):
    """The kinds of a program's norms as their places in KINDS, int64."""
    return np.array([KINDS.index(row.kind) for row in rows], np.int64)


@register_jitable
def kept(n, B, kind):
    """Bytes of what `forward` leaves in r for `backward`."""
    return 8 * ((kind == BATCH) * ((n + 15) // 16 * 16) + (kind > BATCH) * B)


@register_jitable
def _statistics(kind, x, e, n, B, group):
    """Mean of what is normalised together, and the power of two of the largest difference from it, at least -e."""
    members, mean, top = B if kind == BATCH else n, 0.0, 0.0
    if kind != RMS:
        for m in range(members):
            mean += float(x[_at(kind, B, group, m)])
        mean = mean / members
    for m in range(members):
        top = max(top, abs(float(x[_at(kind, B, group, m)]) - mean))
    return mean, max(math.frexp(top)[1], -e) if top > 0 else -e


@register_jitable
def _at(kind, B, group, member):
    """Place of a member of a group: unit and column, or column and unit."""
    i, b = (group, member) if kind == BATCH else (member, group)
    return (i // 16 * B + b) * 16 + i % 16


@register_jitable
def _lowest(kind, x, e, n, B):
    """The smallest power of two of a group."""
    lowest = 0
    for group in range(n if kind == BATCH else B):
        lowest = min(lowest, _statistics(kind, x, e, n, B, group)[1])
    return lowest


@register_jitable
def _far(kind, eps, x, e, n, B, r, lowest):
    """`forward` of large numbers some of whose groups are far below the largest: each has a power of two of its own, as
    in `pykernel.ops.norm`; r is 2^(e + lowest) times the factors."""
    members = B if kind == BATCH else n
    for group in range(n if kind == BATCH else B):
        mean, power = _statistics(kind, x, e, n, B, group)
        down, square = min(-power, 3000), 0.0
        for m in range(members):
            c = math.ldexp(float(x[_at(kind, B, group, m)]) - mean, down)
            square += c * c
        over = 1.0 / math.sqrt(square / members + math.ldexp(eps, max(-2 * (e + power), -2000)))
        r[group] = math.ldexp(over, max(lowest - power, -2000))
        for m in range(members):
            i = _at(kind, B, group, m)
            x[i] = math.ldexp(float(x[i]) - mean, down) * over


@jit
def forward(kind, eps, x, e, n, B, r, bound):
    """x becomes Norm(x); r takes 1 / sqrt(variance + eps) (batch: a unit each, else: an input each).

    Returns:
        The exponents of the result and of r.
    """
    panels = (n + 15) // 16
    if e > 0:
        lowest = _lowest(kind, x, e, n, B)
        if lowest < -2 * bound:
            _far(kind, eps, x, e, n, B, r, lowest)
            return blocks.renormalise(x, panels * B * 16, 0, bound), -e - lowest
    # With exponents, y = c r: for e >= 0 r carries 2^-e and y none, for e < 0 the variance is far below eps or comes
    # near it.
    up = 2 * e if e < 0 else 0
    eps = eps if e < 0 else max(math.ldexp(eps, max(-2 * e, -2000)), _TINY if e > 0 else 0.0)
    spread_up = math.ldexp(1.0, max(up, -1022))
    if kind == BATCH:
        for p in range(panels):
            mean = spread(0.0)
            for b in range(B):
                mean = mean + widen(load(x, (p * B + b) * 16))
            mean = mean / float(B)
            var = spread(0.0)
            for b in range(B):
                c = widen(load(x, (p * B + b) * 16)) - mean
                var = fma(c, c, var)
            over = spread(1.0) / sqrt(fma(var / float(B), spread(spread_up), spread(eps)))
            store(r, p * 16, over)
            for b in range(B):
                i = (p * B + b) * 16
                store(x, i, narrow_like((widen(load(x, i)) - mean) * over, x))
    else:
        for b in range(B):
            mean = 0.0
            if kind == LAYER:
                s = spread(0.0)
                for p in range(panels):
                    s = s + widen(load(x, (p * B + b) * 16))
                mean = total(s) / n
            var = 0.0
            s = spread(0.0)
            m = spread(mean)
            for p in range(n // 16):
                c = widen(load(x, (p * B + b) * 16)) - m
                s = fma(c, c, s)
            for lane in range(n % 16):
                c1 = float(x[(n // 16 * B + b) * 16 + lane]) - mean
                var += c1 * c1
            var = (var + total(s)) / n
            over1 = 1.0 / math.sqrt(var * spread_up + eps)
            r[b] = over1
            for p in range(panels):
                i = (p * B + b) * 16
                store(x, i, narrow_like((widen(load(x, i)) - m) * over1, x))
    blocks.clear_padding(x, n, B)
    if e >= 0:
        return blocks.renormalise(x, panels * B * 16, 0, bound), -e
    return blocks.renormalise(x, panels * B * 16, e, bound), 0


@jit
def backward(kind, g, e_g, y, e_y, n, B, r, e_r, bound):
    """g = dJ/dNorm becomes dJ/dx = r (g - mean(g) - y mean(g y)), without mean(g) for RMS; y is what `forward` made.

    Returns:
        The exponent of the result.
    """
    panels = (n + 15) // 16
    unit = math.ldexp(1.0, max(min(e_y, 1000), -1000))
    if kind == BATCH:
        for p in range(panels):
            mean, inner = spread(0.0), spread(0.0)
            for b in range(B):
                i = (p * B + b) * 16
                v = widen(load(g, i))
                mean = mean + v
                inner = fma(v, widen(load(y, i)) * unit, inner)
            mean, inner = mean / float(B), inner / float(B)
            over = load(r, p * 16)
            for b in range(B):
                i = (p * B + b) * 16
                d = widen(load(g, i)) - mean - widen(load(y, i)) * unit * inner
                store(g, i, narrow_like(d * over, g))
    else:
        for b in range(B):
            s, t = spread(0.0), spread(0.0)
            for p in range(panels):
                i = (p * B + b) * 16
                v = widen(load(g, i))
                s = s + v
                t = fma(v, widen(load(y, i)) * unit, t)
            mean1 = total(s) / n if kind == LAYER else 0.0
            inner1 = total(t) / n
            for p in range(panels):
                i = (p * B + b) * 16
                d = widen(load(g, i)) - spread(mean1) - widen(load(y, i)) * unit * inner1
                store(g, i, narrow_like(d * r[b], g))
    blocks.clear_padding(g, n, B)
    return blocks.renormalise(g, panels * B * 16, e_g + e_r, bound)
