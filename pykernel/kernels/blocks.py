# SPDX-License-Identifier: BSD-3-Clause
"""Blocks (units x columns) as mantissas times 2**exponent: layout, draws, scaling, and the sums that rows are made of.

A block is a flat array, unit i of input b at (i // 16 * B + b) * 16 + i % 16, padding zero; its exponent is an int
beside it. Sums over units are in float64: lane partials over panels in order, then the fixed tree of `lanes.total`.
"""

from __future__ import annotations

import math

import numpy as np

from pykernel.kernels import draws, inline, jit
from pykernel.kernels.lanes import absolute, count_from, fma, larger, largest, less, spread, total, where, widen
from pykernel.kernels.memory import cast_like, load, narrow_like, store, zero_like

LOG10_2 = math.log10(2)
FARTHEST = 2.0**62  # what an exponent may be: sums of two stay in int64


def pack(array, dtype):
    """The block of an (n, B) array."""
    n, B = array.shape
    full = np.zeros((-(-n // 16) * 16, B), dtype)
    full[:n] = array
    return np.ascontiguousarray(full.reshape(-1, 16, B).transpose(0, 2, 1)).reshape(-1)


def unpack(block, n, B):
    """The (n, B) array of a block."""
    return block.reshape(-1, B, 16).transpose(0, 2, 1).reshape(-1, B)[:n]


@inline
def size(n, B):
    """Numbers in a block of n units."""
    return (n + 15) // 16 * 16 * B


@jit
def clear_padding(x, n, B):
    """Zero the lanes beyond unit n."""
    last = n // 16
    if n % 16:
        for b in range(B):
            for lane in range(n % 16, 16):
                x[(last * B + b) * 16 + lane] = cast_like(0, x)


@jit
def clear(x, count):
    """Zero `count` numbers, a multiple of 16."""
    for i in range(0, count, 16):
        store(x, i, zero_like(x))


@jit
def draw_tall(x, n, B, uniform, key0, key1, c2, replica):
    """Fill a block with normals (or uniforms on (-1, 1)) at tall addresses of the stream; c2: layer | purpose << 24."""
    panels = (n + 15) // 16
    for b in range(B):
        for group in range((panels + 3) // 4):
            at = (4 * group * B + b) * 16
            w0, w1, w2, w3 = draws.philox(
                count_from(np.uint32(16 * group)), spread(np.uint32(b)), spread(c2), spread(replica), key0, key1
            )
            if uniform:
                x0, x1, x2, x3 = draws.uniforms(w0), draws.uniforms(w1), draws.uniforms(w2), draws.uniforms(w3)
            else:
                x0, x1 = draws.normals(w0, w1)
                x2, x3 = draws.normals(w2, w3)
            store(x, at, x0)
            if 4 * group + 1 < panels:
                store(x, at + 16 * B, x1)
            if 4 * group + 2 < panels:
                store(x, at + 32 * B, x2)
            if 4 * group + 3 < panels:
                store(x, at + 48 * B, x3)
    clear_padding(x, n, B)


@jit
def multiply_by(x, count, factor):
    """x *= factor, in the dtype of x."""
    f = spread(cast_like(factor, x))
    for i in range(0, count, 16):
        store(x, i, load(x, i) * f)


@jit
def shift(x, count, power):
    """x *= 2^power, in steps that float64 holds."""
    while power:
        step = min(max(power, -1000), 1000)
        f = spread(math.ldexp(1.0, step))
        for i in range(0, count, 16):
            store(x, i, narrow_like(widen(load(x, i)) * f, x))
        power -= step


@jit
def top(x, count):
    """The largest magnitude; nan where there is nothing else but zeros."""
    m = zero_like(x)
    for i in range(0, count, 16):
        m = larger(absolute(load(x, i)), m)
    most = float(largest(m))
    return most if most > 0.0 else math.sqrt(sum_of_squares(x, count))


@jit
def renormalise(x, count, e, bound):
    """Bring the largest magnitude into [2^-bound, 2^bound] by a power of two, the exponent to 0 if in range."""
    if bound == 0:
        return 0
    m = top(x, count)
    if m == 0.0:
        return 0
    power = math.frexp(m)[1]
    if abs(power) > bound:
        shift(x, count, -power)
        e += power
        power = 0
    if e != 0 and abs(e + power) <= bound:
        shift(x, count, e)
        e = 0
    return e


@jit
def scale(x, count, factor, e, bound):
    """x times a number whose own exponent is kept apart (1e300 does not overflow); the exponent."""
    if bound == 0:
        multiply_by(x, count, factor)
        return 0
    if factor == 1.0:
        return renormalise(x, count, e, bound)
    mantissa, power = math.frexp(factor)
    if abs(power) > 20:
        multiply_by(x, count, mantissa)
        e += power
    else:
        multiply_by(x, count, factor)
    return renormalise(x, count, e, bound)


@jit
def add(x, e, y, e_y, count, bound):
    """x += y at the larger exponent; the exponent."""
    if e == e_y:
        for i in range(0, count, 16):
            store(x, i, load(x, i) + load(y, i))
        return renormalise(x, count, e, bound)
    if top(y, count) == 0.0:
        return renormalise(x, count, e, bound)
    if top(x, count) == 0.0:
        for i in range(0, count, 16):
            store(x, i, load(y, i))
        return renormalise(x, count, e_y, bound)
    up = max(e, e_y)
    fx, fy = spread(math.ldexp(1.0, max(e - up, -3000))), spread(math.ldexp(1.0, max(e_y - up, -3000)))
    for i in range(0, count, 16):
        store(x, i, narrow_like(fma(widen(load(y, i)), fy, widen(load(x, i)) * fx), x))
    return renormalise(x, count, up, bound)


@jit
def multiply(x, e, y, e_y, out, wide, count, bound):
    """out = x * y entry by entry, out may be either, wide room for `count` float64; the exponent.

    Gates square magnitudes: after some sixty of them no exponent says how large they are, and the product is inf or 0.
    """
    if abs(e + e_y) >= FARTHEST / 2:
        most = math.inf if e > 0 else 0.0
        for i in range(count):
            sign = float(x[i]) * float(y[i])
            out[i] = cast_like(sign * most if sign != 0.0 else 0.0, out)
        return 0
    for i in range(0, count, 16):
        store(wide, i, widen(load(x, i)) * widen(load(y, i)))
    e = renormalise(wide, count, e + e_y, bound)
    for i in range(0, count, 16):
        store(out, i, narrow_like(load(wide, i), out))
    return e


@jit
def mask(x, n, B, p, key0, key1, c2, replica):
    """Zero what `pykernel.stream.mask` of probability p leaves out: entries whose word is below p 2^32."""
    panels = (n + 15) // 16
    bound, none = spread(np.uint32(p * 2.0**32)), zero_like(x)
    for b in range(B):
        for group in range((panels + 3) // 4):
            at = (4 * group * B + b) * 16
            w0, w1, w2, w3 = draws.philox(
                count_from(np.uint32(16 * group)), spread(np.uint32(b)), spread(c2), spread(replica), key0, key1
            )
            store(x, at, where(less(w0, bound), none, load(x, at)))
            if 4 * group + 1 < panels:
                store(x, at + 16 * B, where(less(w1, bound), none, load(x, at + 16 * B)))
            if 4 * group + 2 < panels:
                store(x, at + 32 * B, where(less(w2, bound), none, load(x, at + 32 * B)))
            if 4 * group + 3 < panels:
                store(x, at + 48 * B, where(less(w3, bound), none, load(x, at + 48 * B)))


@jit
def add_vector(x, e, v, e_v, panels, B, bound):
    """x += v (one column) on every input; the exponent."""
    if e != e_v and top(x, panels * B * 16) == 0.0:
        e = e_v
    up = max(e, e_v)
    fx, fv = spread(math.ldexp(1.0, max(e - up, -3000))), spread(math.ldexp(1.0, max(e_v - up, -3000)))
    for p in range(panels):
        c = widen(load(v, p * 16)) * fv
        for b in range(B):
            i = (p * B + b) * 16
            store(x, i, narrow_like(fma(widen(load(x, i)), fx, c), x))
    return renormalise(x, panels * B * 16, up, bound)


@jit
def multiply_vector(x, e, v, e_v, panels, B, bound):
    """x *= v (one column) on every input; the exponent."""
    for p in range(panels):
        c = widen(load(v, p * 16))
        for b in range(B):
            i = (p * B + b) * 16
            store(x, i, narrow_like(widen(load(x, i)) * c, x))
    return renormalise(x, panels * B * 16, e + e_v, bound)


@jit
def copy(source, s, target, t, count):
    """target[t : t + count] = source[s : s + count]."""
    for i in range(0, count, 16):
        store(target, t + i, load(source, s + i))


@jit
def sum_of_squares(x, count):
    """In float64."""
    s = spread(0.0)
    for i in range(0, count, 16):
        v = widen(load(x, i))
        s = fma(v, v, s)
    return total(s)


@jit
def sum_all(x, count):
    """In float64."""
    s = spread(0.0)
    for i in range(0, count, 16):
        s = s + widen(load(x, i))
    return total(s)


@jit
def centre(x, out, panels, B, count):
    """out = x without its mean over so many columns at a time, unit by unit."""
    for group in range(panels * (B // count)):
        mean = spread(0.0)
        for b in range(count):
            mean = mean + widen(load(x, (group * count + b) * 16))
        mean = mean / float(count)
        for b in range(count):
            i = (group * count + b) * 16
            store(out, i, narrow_like(widen(load(x, i)) - mean, out))


@jit
def gram(x, panels, B, out):
    """out[b B + c] = <column b, column c> of a block, float64."""
    for b in range(B):
        c = 0
        while c + 3 <= b + 1:  # three at a time: what is read of column b serves them all
            s, t, r = spread(0.0), spread(0.0), spread(0.0)
            for p in range(panels):
                i = p * B * 16
                v, j = widen(load(x, i + b * 16)), i + c * 16
                s = fma(v, widen(load(x, j)), s)
                t = fma(v, widen(load(x, j + 16)), t)
                r = fma(v, widen(load(x, j + 32)), r)
            out[b * B + c], out[b * B + c + 1], out[b * B + c + 2] = total(s), total(t), total(r)
            c += 3
        while c <= b:
            s = spread(0.0)
            for p in range(panels):
                i = p * B * 16
                s = fma(widen(load(x, i + b * 16)), widen(load(x, i + c * 16)), s)
            out[b * B + c] = total(s)
            c += 1
        for k in range(b):
            out[k * B + b] = out[b * B + k]


@jit
def gram_product(g, h, count):
    """Sum of the entries of two Gram matrices multiplied: the squared Frobenius norm of delta u^T."""
    s = 0.0
    for i in range(count):
        s += g[i] * h[i]
    return 0.0 if s < 0.0 else s


@jit
def similarity(g, B):
    """Mean cosine over pairs of non-zero columns, from their Gram matrix; nan without any."""
    s, pairs = 0.0, 0
    for b in range(B):
        for c in range(b):
            if g[b * B + b] != 0.0 and g[c * B + c] != 0.0:
                s += g[b * B + c] / (math.sqrt(g[b * B + b]) * math.sqrt(g[c * B + c]))
                pairs += 1
    return s / pairs if pairs else math.nan


@inline
def log10_norm(square, e):
    """log10 of a norm from its square and the exponent."""
    return 0.5 * np.log10(square) + e * LOG10_2


@jit
def batch_sum_square(x, panels, B):
    """Sum over units of the squared sum over the batch."""
    s = spread(0.0)
    for p in range(panels):
        v = spread(0.0)
        for b in range(B):
            v = v + widen(load(x, (p * B + b) * 16))
        s = fma(v, v, s)
    return total(s)


@jit
def outer_square(d, u, panels, n_in, B):
    """The squared Frobenius norm of delta u^T, entry by entry."""
    all_squares = spread(0.0)
    for p in range(panels):
        for k in range(n_in):
            s, to = spread(0.0), k // 16 * B * 16 + k % 16
            for b in range(B):
                s = fma(widen(load(d, (p * B + b) * 16)), widen(spread(u[to + b * 16])), s)
            all_squares = fma(s, s, all_squares)
    return total(all_squares)


@jit
def directions_similarity(x, n, B, inverse):
    """Mean cosine over pairs of non-zero columns, of the sum of their directions; nan without any. inverse: room for B
    float64."""
    panels, seen = (n + 15) // 16, 0
    for b in range(B):
        s = spread(0.0)
        for p in range(panels):
            v = widen(load(x, (p * B + b) * 16))
            s = fma(v, v, s)
        length = total(s)
        inverse[b] = 1 / math.sqrt(length) if length != 0.0 else 0.0
        seen += length != 0.0
    square = spread(0.0)
    for p in range(panels):
        together = spread(0.0)
        for b in range(B):
            together = fma(widen(load(x, (p * B + b) * 16)), spread(inverse[b]), together)
        square = fma(together, together, square)
    return (total(square) - seen) / (seen * (seen - 1.0)) if seen > 1 else math.nan


@jit
def clipped_norms(d, u, n_out, columns, groups, taps, B, e_d, e_u, bound):
    """log10 norms of dJ/dW = delta u^T and of dJ/db, entries clamped to +-bound (inf: none), from blocks d (n_out)
    and u (groups * columns units, tap by tap).

    Cost n_out columns B.
    """
    weight, bias, hits_w, hits_b, each = 0.0, 0.0, 0, 0, columns // taps
    e_w = e_d + e_u
    bound_w = math.ldexp(bound, max(min(-e_w, 2000), -2000))
    bound_b = math.ldexp(bound, max(min(-e_d, 2000), -2000))
    for i in range(n_out):
        at = i // 16 * B * 16 + i % 16
        g = 0.0
        for b in range(B):
            g += d[at + b * 16]
        hits_b += g != 0.0
        g = min(max(g, -bound_b), bound_b)
        bias += g * g
        for k in range(columns):
            unit = k // each * (groups * each) + i // (n_out // groups) * each + k % each
            to = unit // 16 * B * 16 + unit % 16
            g = 0.0
            for b in range(B):
                g += float(d[at + b * 16]) * float(u[to + b * 16])
            hits_w += g != 0.0
            g = min(max(g, -bound_w), bound_w)
            weight += g * g
    log_w = np.log10(bound) + 0.5 * np.log10(float(hits_w)) if bound_w < 1e-150 else log10_norm(weight, e_w)
    log_b = np.log10(bound) + 0.5 * np.log10(float(hits_b)) if bound_b < 1e-150 else log10_norm(bias, e_d)
    return log_w, log_b
