# SPDX-License-Identifier: BSD-3-Clause
"""Attention between the positions of one input: o = V A, A = softmax over the keys of scale K^T Q, head by head.

Query, key and value are kept on the tape, where their gradients take their places. Heads are gathered as float64 of
order one, so that products of their entries stay in range; one query at a time looks at all keys.
"""

from __future__ import annotations

import math

import numpy as np

from pykernel.kernels import blocks, inline, jit
from pykernel.kernels.lanes import fma, spread
from pykernel.kernels.memory import advance, cast_like, load, pointer, store
from pykernel.kernels.records import (
    BEGINS,
    BLOCK,
    COLUMNS,
    IN,
    KEPT_E,
    KEPT_E2,
    KEPT_E3,
    OUT,
    ROW,
    SECOND_IN,
    THIRD_IN,
    UNITS,
    E,
    block,
    count,
    entry,
    first,
    give,
    number,
    pop,
    push,
    put,
    second,
    shape,
    slot,
    stopped,
    take,
    write,
)
from pykernel.program import FAINTEST_WEIGHT, query_layers

ENTROPY, DEVIATION = ROW["attention_entropy"], ROW["score_std"]
NUMBERS = ("mix_heads", "mix_kv_heads", "mix_causal", "mix_scale", "mix_positions")
LOG2_E = math.log2(math.e)
NEXT_TO_NOTHING = 2.0**-400  # where all weights but the largest add up to less, they get a power of two of their own


def numbers(program):
    """The numbers of each attention, and the positions of one input."""
    mixes = program.mixes
    positions = program.layers.positions[query_layers(program.stretches)].astype(np.int64)
    return mixes.heads, mixes.kv_heads, mixes.causal.astype(np.int64), mixes.scale, positions


def tape(program, number, n, B, item):
    """Bytes on the tape."""
    shared = n // program.mixes.heads[number] * program.mixes.kv_heads[number]
    return (_padded(n) + 2 * _padded(shared)) * B * item


def room(program):
    """Numbers of float64 that a worker needs, see `_array`."""
    if not len(program.mixes.heads):
        return 0
    made_by = query_layers(program.stretches)
    units = program.layers.units[made_by] // program.mixes.heads
    d, T = _padded(int(units.max())), _padded(int(program.layers.positions[made_by].max()))
    return 6 * d * T + 6 * d + 2 * T


def _padded(n):
    return (n + 15) // 16 * 16


@inline
def _size(n, B):
    return (n + 15) // 16 * 16 * B


# -- one head as float64


@jit
def _gather(x, B, unit, d, column, T, power, out):
    """Units unit .. unit + d - 1 of columns column .. column + T - 1 times 2**power, as a block of its own."""
    factor = math.ldexp(1.0, power)
    for i in range((d + 15) // 16 * 16):
        for t in range(T):
            at = ((unit + i) // 16 * B + column + t) * 16 + (unit + i) % 16
            out[(i // 16 * T + t) * 16 + i % 16] = float(x[at]) * factor if i < d else 0.0


@jit
def _scatter(x, B, unit, d, column, T, factor, block):
    for i in range(d):
        for t in range(T):
            at = ((unit + i) // 16 * B + column + t) * 16 + (unit + i) % 16
            block[at] = cast_like(x[(i // 16 * T + t) * 16 + i % 16] * factor, block)


@jit
def _turn(x, d, T, out):
    """Units and positions exchanged."""
    for t in range((T + 15) // 16 * 16):
        for i in range(d):
            out[(t // 16 * d + i) * 16 + t % 16] = x[(i // 16 * T + t) * 16 + i % 16] if t < T else 0.0


@jit
def _product(w, n, terms, stride, u, out):
    """out[i] = sum over k < terms of w[i, k] u[k] for i < n, a block of `stride` columns."""
    for p in range((n + 15) // 16):
        s = spread(0.0)
        for k in range(terms):
            s = fma(load(w, (p * stride + k) * 16), spread(u[k]), s)
        store(out, p * 16, s)


@jit
def _add_outer(x, d, T, u, a, keys):
    """x[i, k] += u[i] a[k] for the first keys."""
    for p in range((d + 15) // 16):
        v = load(u, p * 16)
        for k in range(keys):
            at = (p * T + k) * 16
            store(x, at, fma(v, spread(a[k]), load(x, at)))


# -- a query


@jit
def _two_largest(s, keys):
    """The largest score, where it stands, and the largest of the others."""
    place, top, other = 0, s[0], -math.inf
    for k in range(1, keys):
        if s[k] > top:
            place, top, other = k, s[k], top
        elif s[k] > other:
            other = s[k]
    return place, top, other


@jit
def _rest(s, keys, place, top, scale):
    """The sum of e^(scale (s - top)) without the largest."""
    rest = 0.0
    for k in range(keys):
        if k != place:
            rest += math.exp(max((s[k] - top) * scale, -1e300))
    return rest


@jit
def _weigh(s, keys, scale):
    """s = shares of the largest weight of softmax(scale s); its entropy in nats, where its largest weight stands, and
    the sum of shares, which is left to divide what comes of them (see `pykernel.ops.mix`)."""
    place, top, _ = _two_largest(s, keys)
    rest = _rest(s, keys, place, top, scale)
    whole, product = 1.0 + rest, 0.0
    for k in range(keys):
        t = max((s[k] - top) * scale, -1e4)
        weight = math.exp(t)
        product += weight * t
        s[k] = weight
    return math.log1p(rest) - product / whole, place, whole


@jit
def _weigh_plainly(s, keys, like):
    """s = softmax(s) as plain arithmetic in the dtype of `like` has it; its entropy."""
    whole = 0.0
    for k in range(keys):
        whole = float(cast_like(whole + float(cast_like(np.exp(float(cast_like(s[k], like))), like)), like))
    entropy = 0.0
    for k in range(keys):
        s[k] = float(cast_like(float(cast_like(np.exp(float(cast_like(s[k], like))), like)) / np.float64(whole), like))
        entropy -= s[k] * np.log(s[k]) if s[k] > 0.0 else 0.0 * s[k]
    return entropy


@jit
def _divide(x, count, by):
    for i in range(count):
        x[i] /= by


@jit
def _through_softmax(a, whole, flow, keys, place):
    """flow = A (flow - sum A flow) with A = a / whole, seen from the largest weight's so that one-hot weights leave no
    difference of rounding errors; place -1: as it stands."""
    origin, mean = 0.0 if place < 0 else flow[place], 0.0
    for k in range(keys):
        mean += a[k] * (flow[k] - origin)
    mean /= whole
    for k in range(keys):
        flow[k] = a[k] / whole * (flow[k] - origin - mean)


@jit
def _through_one_hot(s, flow, keys, scale, gap):
    """The same times e^(-scale gap), of scores, where no number holds the weights but the largest."""
    place, top, _ = _two_largest(s, keys)
    origin, back = flow[place], 0.0
    for k in range(keys):
        if k != place:
            flow[k] = math.exp(max((s[k] - top - gap) * scale, -1e4)) * (flow[k] - origin)
            back -= flow[k]
    flow[place] = back


# -- a block


@inline
def _power(x, count, bound):
    """log2 of the power of two that takes a block to order one; 0 in plain arithmetic."""
    return -math.frexp(blocks.top(x, count))[1] if bound else 0


@inline
def _factor(spec, k):
    """The factor on scores as a number of order one and a power of two."""
    scale = number(spec.mix_scale, k)
    mantissa, power = math.frexp(scale)
    return (mantissa, power) if spec.bound else (scale, 0)


@inline
def _two_to(e):
    return math.ldexp(1.0, max(min(e, 1000), -1000))


@inline
def _array(spec, work, k, d, i):
    """Room for the i-th of six arrays of a head, then for six of one position, then for two of all keys."""
    wide, T = (d + 15) // 16 * 16, (entry(spec.mix_positions, k) + 15) // 16 * 16
    return advance(pointer(work.mix, 1.0), min(i, 6) * wide * T + min(max(i - 6, 0), 6) * wide + max(i - 12, 0) * T)


@inline
def _keys(spec, k, t):
    """How many keys query t looks at."""
    return t + 1 if entry(spec.mix_causal, k) else entry(spec.mix_positions, k)


@inline
def _score(keys_turned, d, u, keys, factor, s):
    _product(keys_turned, keys, d, d, u, s)
    for i in range(keys):
        s[i] *= factor


@jit
def forward(spec, work, op, k, replica, index):
    """o, and what is seen of weights and scores."""
    x, y, z = slot(work, entry(op, IN)), slot(work, entry(op, SECOND_IN)), slot(work, entry(op, THIRD_IN))
    out = slot(work, first(spec))
    n, B, size, shared = x[UNITS], x[COLUMNS], count(x), count(y)
    foot = push(work, (size + 2 * shared) * spec.item, n, B)
    kept = block(spec, work.tape + foot[BEGINS])
    blocks.copy(block(spec, x[BLOCK]), 0, kept, 0, size)
    blocks.copy(block(spec, y[BLOCK]), 0, kept, size, shared)
    blocks.copy(block(spec, z[BLOCK]), 0, kept, size + shared, shared)
    foot[KEPT_E], foot[KEPT_E2], foot[KEPT_E3] = x[E], y[E], z[E]
    shape(out, n, B)
    to = block(spec, out[BLOCK])
    entropy, deviation = _mix(spec, work, k, kept, foot, n, B, to)
    put(spec, ENTROPY, index, k, entropy)
    put(spec, DEVIATION, index, k, deviation)
    blocks.clear_padding(to, n, B)
    out[E] = blocks.renormalise(to, size, z[E], spec.bound)
    write(work, entry(op, OUT), first(spec))


@jit
def _mix(spec, work, k, kept, foot, n, B, to):
    """o from what is kept; the mean entropy and the standard deviation of the scores."""
    T, heads, kv_heads = entry(spec.mix_positions, k), entry(spec.mix_heads, k), entry(spec.mix_kv_heads, k)
    d = n // heads
    size, shared = _size(n, B), _size(d * kv_heads, B)
    key, value = advance(kept, size), advance(kept, size + shared)
    p_q, p_k, p_v = _power(kept, size, spec.bound), _power(key, shared, spec.bound), _power(value, shared, spec.bound)
    factor, e = _factor(spec, k)
    e += foot[KEPT_E] + foot[KEPT_E2] - p_q - p_k
    scale, back = _two_to(e), _two_to(-p_v)
    keys_of_head, turned, values = _array(spec, work, k, d, 0), _array(spec, work, k, d, 1), _array(spec, work, k, d, 2)
    u, o, s = _array(spec, work, k, d, 6), _array(spec, work, k, d, 7), _array(spec, work, k, d, 12)
    entropy, seen, mean, square = 0.0, 0.0, 0.0, 0.0
    for head in range(B // T * heads):
        h, column = head % heads, head // heads * T
        group = h // (heads // kv_heads)
        if stopped(spec):
            return 0.0, 0.0
        _gather(key, B, group * d, d, column, T, p_k, keys_of_head)
        _turn(keys_of_head, d, T, turned)
        _gather(value, B, group * d, d, column, T, p_v, values)
        for t in range(T):
            keys = _keys(spec, k, t)
            _gather(kept, B, h * d, d, column + t, 1, p_q, u)
            _score(turned, d, u, keys, factor, s)
            own_mean, own_square = _moments(s, keys)
            distance, together = own_mean - mean, seen + keys
            square += own_square + distance * distance * (seen * keys / together)
            mean += distance * (keys / together)
            seen = together
            whole = 1.0
            if spec.bound:
                own_entropy, _, whole = _weigh(s, keys, scale)
            else:
                own_entropy = _weigh_plainly(s, keys, to)
            entropy += own_entropy
            _product(values, d, keys, T, s, o)
            _divide(o, d, whole)
            _scatter(o, B, h * d, d, column + t, 1, back, to)
    return entropy / (B * heads), math.ldexp(math.sqrt(square / seen), max(min(e, 3000), -3000))


@jit
def _moments(s, keys):
    """Mean, and sum of squared distances from it."""
    mean, square = 0.0, 0.0
    for i in range(keys):
        mean += s[i]
    mean /= keys
    for i in range(keys):
        square += (s[i] - mean) ** 2
    return mean, square


@jit
def _gap(spec, work, k, kept, n, B, p_q, p_k, factor, scale):
    """How far below a query's largest score another comes at best, over all queries, where their largest weights leave
    next to nothing to others; else 0."""
    T, heads, kv_heads = entry(spec.mix_positions, k), entry(spec.mix_heads, k), entry(spec.mix_kv_heads, k)
    d = n // heads
    key, gap = advance(kept, _size(n, B)), -math.inf
    keys_of_head, turned = _array(spec, work, k, d, 0), _array(spec, work, k, d, 1)
    u, s = _array(spec, work, k, d, 6), _array(spec, work, k, d, 12)
    for head in range(B // T * heads):
        h, column = head % heads, head // heads * T
        _gather(key, B, h // (heads // kv_heads) * d, d, column, T, p_k, keys_of_head)
        _turn(keys_of_head, d, T, turned)
        for t in range(T):
            keys = _keys(spec, k, t)
            _gather(kept, B, h * d, d, column + t, 1, p_q, u)
            _score(turned, d, u, keys, factor, s)
            place, top, other = _two_largest(s, keys)
            if _rest(s, keys, place, top, scale) >= NEXT_TO_NOTHING:
                return 0.0
            gap = max(gap, other - top)
    return gap


@jit
def backward(spec, work, op, k, replica, index):
    """dV = dO A^T; dS = A (dA - sum A dA), dA = V^T dO; dQ = scale K dS, dK = scale Q dS^T; on the tape, in the places
    of v, q and k."""
    take(spec, work, entry(op, OUT))
    foot, x = pop(work), slot(work, first(spec))
    n, B, g = x[UNITS], x[COLUMNS], block(spec, x[BLOCK])
    units = n // entry(spec.mix_heads, k) * entry(spec.mix_kv_heads, k)
    kept, size, shared = block(spec, work.tape + foot[BEGINS]), count(x), _size(units, B)
    e_q, e_k, e_v = _flow_back(spec, work, k, kept, foot, n, B, g, x[E])
    _hand_over(spec, work, entry(op, THIRD_IN), advance(kept, size + shared), units, B, e_v)
    _hand_over(spec, work, entry(op, IN), kept, n, B, e_q)
    _hand_over(spec, work, entry(op, SECOND_IN), advance(kept, size), units, B, e_k)


@jit
def _hand_over(spec, work, r, source, n, B, e):
    """A gradient on the tape to its register."""
    x = slot(work, second(spec))
    shape(x, n, B)
    to = block(spec, x[BLOCK])
    blocks.copy(source, 0, to, 0, count(x))
    blocks.clear_padding(to, n, B)
    x[E] = blocks.renormalise(to, count(x), e, spec.bound)
    give(spec, work, r, second(spec))


@jit
def _flow_back(spec, work, k, kept, foot, n, B, g, e_g):
    """Gradients in the places of q, k and v; their exponents."""
    T, heads, kv_heads = entry(spec.mix_positions, k), entry(spec.mix_heads, k), entry(spec.mix_kv_heads, k)
    d = n // heads
    each, size, shared = heads // kv_heads, _size(n, B), _size(d * kv_heads, B)
    key, value = advance(kept, size), advance(kept, size + shared)
    p_q, p_k, p_v = _power(kept, size, spec.bound), _power(key, shared, spec.bound), _power(value, shared, spec.bound)
    p_g = _power(g, size, spec.bound)
    factor, e_factor = _factor(spec, k)
    e = e_factor + foot[KEPT_E] + foot[KEPT_E2] - p_q - p_k
    scale, gap, below = _two_to(e), 0.0, 0.0
    if spec.bound:
        gap = _gap(spec, work, k, kept, n, B, p_q, p_k, factor, scale)
        below = math.ldexp(gap, max(min(e, 3000), -3000)) * LOG2_E if gap < 0.0 else 0.0
        if not below > -FAINTEST_WEIGHT:  # nothing flows
            gap, below = 0.0, 0.0
    e_all = foot[KEPT_E3] - p_v + e_g - p_g + e_factor + math.floor(below)
    last = factor * 2.0 ** (below - math.floor(below))
    keys_of_head, turned, dk = _array(spec, work, k, d, 0), _array(spec, work, k, d, 1), _array(spec, work, k, d, 2)
    values, turned_values, dv = _array(spec, work, k, d, 3), _array(spec, work, k, d, 4), _array(spec, work, k, d, 5)
    for head in range(B // T * kv_heads):
        group, column = head % kv_heads, head // kv_heads * T
        _gather(key, B, group * d, d, column, T, p_k, keys_of_head)
        _turn(keys_of_head, d, T, turned)
        _gather(value, B, group * d, d, column, T, p_v, values)
        _turn(values, d, T, turned_values)
        blocks.clear(dk, _size(d, T))
        blocks.clear(dv, _size(d, T))
        for h in range(group * each, (group + 1) * each):
            if stopped(spec):
                return 0, 0, 0
            _flow_through_head(spec, work, k, kept, g, B, d, h, column, p_q, p_g, factor, scale, gap, last)
        _scatter(dk, B, group * d, d, column, T, last, key)
        _scatter(dv, B, group * d, d, column, T, 1.0, value)
    return e_all + foot[KEPT_E2] - p_k, e_all + foot[KEPT_E] - p_q, e_g - p_g


@jit
def _flow_through_head(spec, work, k, kept, g, B, d, h, column, p_q, p_g, factor, scale, gap, last):
    """The queries of a head of one input: their gradients in their places, their shares of those of keys and values."""
    T = entry(spec.mix_positions, k)
    keys_of_head, turned, dk = _array(spec, work, k, d, 0), _array(spec, work, k, d, 1), _array(spec, work, k, d, 2)
    turned_values, dv = _array(spec, work, k, d, 4), _array(spec, work, k, d, 5)
    u, v, o = _array(spec, work, k, d, 6), _array(spec, work, k, d, 7), _array(spec, work, k, d, 8)
    s, flow = _array(spec, work, k, d, 12), _array(spec, work, k, d, 13)
    for t in range(T):
        keys = _keys(spec, k, t)
        _gather(kept, B, h * d, d, column + t, 1, p_q, u)
        _gather(g, B, h * d, d, column + t, 1, p_g, v)
        _score(turned, d, u, keys, factor, s)
        _product(turned_values, keys, d, d, v, flow)
        whole = 1.0
        if gap < 0.0:
            _through_one_hot(s, flow, keys, scale, gap)
            _, _, whole = _weigh(s, keys, scale)
        elif spec.bound:
            _, place, whole = _weigh(s, keys, scale)
            _through_softmax(s, whole, flow, keys, place)
        else:
            _weigh_plainly(s, keys, g)
            _through_softmax(s, 1.0, flow, keys, -1)
        _divide(v, d, whole)
        _add_outer(dv, d, T, v, s, keys)
        _add_outer(dk, d, T, u, flow, keys)
        _product(keys_of_head, d, keys, T, flow, o)
        _scatter(o, B, h * d, d, column + t, 1, last, kept)


FORWARD, BACKWARD = (forward,), (backward,)
