# SPDX-License-Identifier: BSD-3-Clause
"""One input through a plain matrix-free chain in njit code: sums over units, then a recursion of numbers; no vector of a layer is kept.

Node l holds z = sigma g + bias and a = phi(z); what comes back to it is alpha a + beta h, with g and h drawn by address and alpha, beta
known only later. Every row is a polynomial in alpha and beta whose coefficients are sums over units (docs/matrix-free.md). In float64
whatever the dtype of the run. Magnitudes are x 2^e, so that any depth is in range.
"""

from __future__ import annotations

import math

import numpy as np

from pykernel import stream
from pykernel.kernels import activate, chain, draws, jit, rows
from pykernel.kernels.chain import _address, _number, _put, _stopped, _units
from pykernel.kernels.lanes import advance, count_from, fma, greater, less, load, pointer, spread, store, total, where

CHUNK, STRETCH = 1024, 256  # units that share a partial sum, and whose numbers lie in a worker's room
# Sums of a node (A = a phi'(z), H = h phi'(z)) and its unit: a true z or a is unit 2^unit_e times the one that was summed.
_Z, _ZZ, _A, _AA, _AH, _HH, _PAA, _PAH, _PHH, _GA, _GH, _SATURATED, _DEAD, UNIT, UNIT_E, NODE = (np.int64(i) for i in range(16))
SUMS = 13
# What a pass over the units of a node needs: z's scale, the bias's, the slopes of a piecewise phi (or none), those of h.
SIGMA, BIAS, PIECES, BELOW, ABOVE, AT_ZERO, H_SCALE, NOW = (np.int64(i) for i in range(8))
ROOMS = 6
# z is summed as it is while sigma lies in 2^+-RANGE; sums below LOST of what they are compared with have lost digits.
RANGE, LOST = 200, 2.0**-60
WORK = ("nodes", "parts", "now", "room")


def work_dtype():
    """The structured dtype of the workspace: addresses of float64 arrays; room: ROOMS * STRETCH a worker."""
    return np.dtype([(name, np.int64) for name in WORK], align=True)


@jit
def _draw(out, first, panels, uniform, key0, key1, c2, replica):
    for q in range(0, panels, 4):
        w0, w1, w2, w3 = draws.philox(count_from(np.uint32(4 * (first + q))), spread(np.uint32(0)), spread(c2), spread(replica), key0, key1)
        if uniform:
            x0, x1, x2, x3 = draws.uniforms(w0), draws.uniforms(w1), draws.uniforms(w2), draws.uniforms(w3)
        else:
            x0, x1 = draws.normals(w0, w1)
            x2, x3 = draws.normals(w2, w3)
        store(out, q * 16, x0)
        store(out, q * 16 + 16, x1)
        store(out, q * 16 + 32, x2)
        store(out, q * 16 + 48, x3)


@jit
def _pass(spec, work, worker, l, replica, first, units, out):
    """Adds the sums of units first .. first + units - 1 of node l."""
    room, now, facts = advance(pointer(work.room, 1.0), worker * ROOMS * STRETCH), pointer(work.now, 1.0), pointer(spec.facts, 1.0)
    z, a, s = room, advance(room, STRETCH), advance(room, 2 * STRETCH)
    g, h, sign = advance(room, 3 * STRETCH), advance(room, 4 * STRETCH), advance(room, 5 * STRETCH)
    panels, panel = (units + 15) // 16, first // 16
    r = np.uint32(replica)
    c_g = _address(spec, l, stream.FORWARD) if l else _address(spec, l, stream.INPUT)
    c_h = _address(spec, l + 1, stream.BACKWARD) if l < spec.depth else _address(spec, l, stream.COTANGENT)
    _draw(g, panel, panels, False, spec.key0, spec.key1, c_g, r)
    _draw(h, panel, panels, False, spec.key0, spec.key1, c_h, r)
    sigma, h_scale = spread(now[SIGMA]), now[H_SCALE]
    for i in range(0, 16 * panels, 16):
        store(z, i, load(g, i) * sigma)
    if now[BIAS] != 0.0:
        _draw(s, panel, panels, spec.bias_draw == chain.BIAS_UNIFORM, spec.key0, spec.key1, _address(spec, l, stream.BIAS), r)
        bias = spread(now[BIAS])
        for i in range(0, 16 * panels, 16):
            store(z, i, fma(load(s, i), bias, load(z, i)))
    if now[PIECES] != 0.0:
        below, above, middle, none = spread(now[BELOW]), spread(now[ABOVE]), spread(now[AT_ZERO]), spread(0.0)
        for i in range(0, 16 * panels, 16):
            v = load(z, i)
            slope = where(greater(v, none), above, where(less(v, none), below, middle))
            store(s, i, slope)
            store(a, i, where(greater(v, none), v * above, where(less(v, none), v * below, none)))
    else:
        activate._ask(spec, activate.ASK_VALUE, 16 * panels, z, a, sign)
        activate._ask(spec, activate.ASK_SLOPE, 16 * panels, z, s, sign)
    saturated, dead = activate._count(s, units, 1, 0.01 * facts[activate.MAX_SLOPE])
    out[_SATURATED] += saturated * units
    out[_DEAD] += dead * units * facts[activate.FLAT]
    for i in range(units, 16 * panels):
        g[i], h[i], z[i], a[i], s[i] = 0.0, 0.0, 0.0, 0.0, 0.0
    # three sums at a time: as many as there are registers for
    t0, t1, t2 = spread(0.0), spread(0.0), spread(0.0)
    for i in range(0, 16 * panels, 16):
        v, u = load(z, i), load(a, i)
        t0, t1, t2 = t0 + v, fma(v, v, t1), t2 + u
    out[_Z] += total(t0)
    out[_ZZ] += total(t1)
    out[_A] += total(t2)
    t0, t1, t2 = spread(0.0), spread(0.0), spread(0.0)
    for i in range(0, 16 * panels, 16):
        u, v = load(a, i), load(h, i)
        t0, t1, t2 = fma(u, u, t0), fma(u, v, t1), fma(v, v, t2)
        store(a, i, u * load(s, i))
        store(h, i, v * load(s, i))
    out[_AA] += total(t0)
    out[_AH] += total(t1) * h_scale
    out[_HH] += total(t2) * h_scale * h_scale
    t0, t1, t2 = spread(0.0), spread(0.0), spread(0.0)
    for i in range(0, 16 * panels, 16):
        u, v = load(a, i), load(h, i)
        t0, t1, t2 = fma(u, u, t0), fma(u, v, t1), fma(v, v, t2)
    out[_PAA] += total(t0)
    out[_PAH] += total(t1) * h_scale
    out[_PHH] += total(t2) * h_scale * h_scale
    t0, t1 = spread(0.0), spread(0.0)
    for i in range(0, 16 * panels, 16):
        w = load(g, i)
        t0, t1 = fma(w, load(a, i), t0), fma(w, load(h, i), t1)
    out[_GA] += total(t0)
    out[_GH] += total(t1) * h_scale


@jit
def sums(spec, work, l, replica, worker, c0, c1):
    """Partial sums of chunks c0 .. c1 - 1 of node l."""
    n = _units(spec, l)
    for chunk in range(c0, c1):
        if _stopped(spec):
            return
        out = advance(pointer(work.parts, 1.0), chunk * SUMS)
        for k in range(SUMS):
            out[k] = 0.0
        for first in range(chunk * CHUNK, min(n, (chunk + 1) * CHUNK), STRETCH):
            _pass(spec, work, worker, l, replica, first, min(STRETCH, n - first), out)


@jit
def _settled(x, e):
    if x == 0.0 or not math.isfinite(x):
        return x, 0 if x == 0.0 else e
    mantissa, shift = math.frexp(x)
    return mantissa, e + shift


@jit
def _ordinary(x, e):
    return x == 0.0 or abs(math.frexp(x)[1] - 1 + e) <= RANGE


@jit
def open_node(spec, work, l):
    """What the pass over node l needs, from the sums of the node before it; whether it lies within the range of the kernels."""
    nodes, now, facts = pointer(work.nodes, 1.0), pointer(work.now, 1.0), pointer(spec.facts, 1.0)
    node = advance(nodes, l * NODE)
    x, e = 1.0, 0
    if l:
        before, (scale, scale_e) = advance(nodes, (l - 1) * NODE), _settled(_number(spec.scale, l - 1), 0)
        x, e = _settled(math.sqrt(before[_AA]) * before[UNIT] * scale, int(before[UNIT_E]) + scale_e)
    bias = _number(spec.bias_scale, l - 1) if l and spec.bias_draw != chain.BIAS_ZERO else 0.0
    linear = l == (0 if spec.order == 0 else spec.depth)
    now[BIAS], now[PIECES] = bias, 0.0
    now[H_SCALE] = 1.0 if l < spec.depth else 1 / math.sqrt(_units(spec, l))
    node[UNIT], node[UNIT_E] = 1.0, 0.0
    if linear:
        now[PIECES], now[BELOW], now[ABOVE], now[AT_ZERO] = 1.0, 1.0, 1.0, 1.0
    elif spec.row == rows.PIECEWISE:
        now[PIECES], now[BELOW], now[ABOVE] = 1.0, facts[activate.LEFT], facts[activate.RIGHT]
        now[AT_ZERO] = facts[activate.SLOPE_0]
    scale_free = now[PIECES] != 0.0 and bias == 0.0
    if not _ordinary(bias, 0):
        return False
    if _ordinary(x, e) and not scale_free:
        now[SIGMA] = math.ldexp(x, e)
        return True
    if x == 0.0:
        now[SIGMA] = 0.0
        return True
    if not scale_free:
        if bias != 0.0 or facts[activate.AT_ZERO] != 0.0 or e > 0:
            return False
        now[PIECES], now[BELOW], now[ABOVE] = 1.0, facts[activate.BEFORE], facts[activate.AFTER]
        now[AT_ZERO] = facts[activate.SLOPE_0]
    now[SIGMA] = -1.0 if x < 0.0 else 1.0
    node[UNIT], node[UNIT_E] = abs(x), float(e)
    return True


@jit
def _log10(x, e):
    return (math.log2(x) + e) * math.log10(2.0) if x > 0.0 else (-math.inf if x == 0.0 else math.nan)


@jit
def close_node(spec, work, l, index):
    """The sums of node l from its chunks, and its rows of the forward pass; whether no digits were lost."""
    n = _units(spec, l)
    node, parts = advance(pointer(work.nodes, 1.0), l * NODE), pointer(work.parts, 1.0)
    for k in range(SUMS):
        node[k] = 0.0
    for chunk in range((n + CHUNK - 1) // CHUNK):
        for k in range(SUMS):
            node[k] += parts[chunk * SUMS + k]
    if not math.isfinite(node[_AA] + node[_ZZ] + node[_PAA]):
        return False
    if pointer(work.now, 1.0)[PIECES] == 0.0 and not (node[_PHH] > LOST * node[_HH] and node[_AA] > LOST * min(float(n), node[_ZZ])):
        return False
    if l:
        unit, e, first_order = node[UNIT], node[UNIT_E], spec.order == 0
        _put(spec, chain.MEAN_SQUARE_PREACTIVATION, index, l - 1, _log10(node[_ZZ] / n * unit * unit, 2 * e))
        square, mean = (node[_AA], node[_A]) if first_order else (node[_ZZ], node[_Z])
        _put(spec, chain.MEAN_SQUARE_ACTIVATION, index, l - 1, _log10(square / n * unit * unit, 2 * e))
        _put(spec, chain.MEAN_ACTIVATION, index, l - 1, math.ldexp(mean / n * unit, int(max(min(e, 5000.0), -5000.0))))
    return True


@jit
def backward(spec, work, index):
    """Rows of the backward pass: what comes back to node l is 2^e (alpha a + beta h), a as it was summed."""
    nodes, first_order, L = pointer(work.nodes, 1.0), spec.order == 0, spec.depth
    alpha, beta, e, above = 0.0, 1.0, 0.0, 0.0
    for l in range(L, -1, -1):
        s, n = advance(nodes, l * NODE), float(_units(spec, l))
        aa, ab, bb = alpha * alpha, 2 * alpha * beta, beta * beta
        delta = math.sqrt(max(0.0, aa * s[_PAA] + ab * s[_PAH] + bb * s[_PHH]))
        g_delta = alpha * s[_GA] + beta * s[_GH]
        before = _log10(math.sqrt(max(0.0, aa * s[_AA] + ab * s[_AH] + bb * s[_HH])), e)
        behind = _log10(delta, e)
        _put(spec, chain.GRAD_ACTIVATION, index, l, before if first_order else behind)
        if l < L:
            _put(spec, chain.WEIGHT_FACTOR, index, l, before - above)
        if (l and first_order) or (l < L and not first_order):
            i = l - 1 if first_order else l
            _put(spec, chain.DERIVATIVE_FACTOR, index, i, behind - before)
            _put(spec, chain.SATURATED, index, i, s[_SATURATED] / n)
            _put(spec, chain.DEAD, index, i, s[_DEAD] / n)
        if l == 0:
            return
        node = advance(nodes, (l - 1) * NODE)
        above = behind
        _put(spec, chain.GRAD_PREACTIVATION, index, l - 1, behind)
        _put(spec, chain.GRAD_BIAS, index, l - 1, behind)
        length = math.sqrt(node[_AA])
        _put(spec, chain.GRAD_WEIGHT, index, l - 1, behind + _log10(length * node[UNIT], node[UNIT_E]))
        scale, scale_e = _settled(_number(spec.scale, l - 1), 0)
        beta = scale * delta
        alpha = 0.0
        if length > 0.0:
            alpha = scale * (g_delta - delta * node[_AH] / length) / length
            if _units(spec, l - 1) == 1:  # nothing lies outside one direction
                alpha, beta = scale * g_delta / length, 0.0
        top = max(abs(alpha) * length, abs(beta))
        shift = math.frexp(top)[1] if top > 0.0 and math.isfinite(top) else 0
        alpha, beta, e = math.ldexp(alpha, -shift), math.ldexp(beta, -shift), e + shift + scale_e


@jit
def replica(spec, work, number, index):
    """A whole replica into row `index`; False where a magnitude leaves the range of the kernels: then nothing counts."""
    for l in range(spec.depth + 1):
        if _stopped(spec):
            return True
        if not open_node(spec, work, l):
            return False
        sums(spec, work, l, number, 0, 0, (_units(spec, l) + CHUNK - 1) // CHUNK)
        if not close_node(spec, work, l, index):
            return False
    backward(spec, work, index)
    return True
