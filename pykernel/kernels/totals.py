# SPDX-License-Identifier: BSD-3-Clause
"""Gradients of weights that layers share: their sums over all uses in float64, and the norms of those."""

from __future__ import annotations

import math

import numpy as np

from pykernel.kernels import blocks, inline, jit
from pykernel.kernels.lanes import absolute, fma, smaller, spread, total, widen
from pykernel.kernels.memory import advance, load, pointer, store, zero_like
from pykernel.kernels.records import ROW, entry, put

GRAD_WEIGHT, GRAD_BIAS = ROW["log10_grad_weight_total"], ROW["log10_grad_bias_total"]
NOTHING = -(2**62)  # the exponent of a sum that nothing was added to
NUMBERS = ("weight_of_layer", "total_at", "total_bias_at")


def numbers(program):
    """The weight of each layer, and where the sums of each weight begin, and their end."""
    weights, biases = (np.concatenate([[0], np.cumsum(lengths)]) for lengths in _lengths(program))
    return program.layers.weight, weights, biases


def _lengths(program):
    """Numbers in the sums of each weight and bias, rows of whole lanes."""
    if not program.counts.weight:
        return np.zeros((2, 0), np.int64)
    rows, columns = (n[program.first_uses] for n in (program.layers.units, program.layers.columns))
    padded = lambda n: (n + 15) // 16 * 16
    return rows * padded(columns), padded(rows)


def sizes(program):
    """Arrays of a workspace: shape and dtype by name."""
    weights, biases = (int(lengths.sum()) for lengths in _lengths(program))
    return {
        "totals": (weights, "float64"),
        "bias_totals": (biases, "float64"),
        "total_exponents": (2 * program.counts.weight, "int64"),
    }


@jit
def clear(spec, work):
    """Nothing is in the sums."""
    exponents = pointer(work.total_exponents, 1)
    for i in range(2 * spec.weights):
        exponents[i] = NOTHING


@inline
def _aligned(sums, count, exponents, i, e):
    """The factor on numbers of exponent e that are added to a sum, which takes the larger exponent."""
    known = exponents[i]
    if known == NOTHING:
        blocks.clear(sums, count)
        exponents[i] = e
        return 1.0
    if e <= known:
        return math.ldexp(1.0, max(e - known, -3000))
    blocks.multiply_by(sums, count, math.ldexp(1.0, max(known - e, -3000)))
    exponents[i] = e
    return 1.0


@jit
def add(spec, work, l, d, e_d, u, e_u, n_out, n_in, B):
    """One more use: delta u^T, and delta summed over the columns."""
    panels, panels_in = (n_out + 15) // 16, (n_in + 15) // 16
    if blocks.top(d, panels * B * 16) == 0.0:  # its exponent says nothing
        return
    w, exponents = entry(spec.weight_of_layer, l), pointer(work.total_exponents, 1)
    bias = advance(pointer(work.bias_totals, 1.0), entry(spec.total_bias_at, w))
    f = spread(_aligned(bias, panels * 16, exponents, 2 * w + 1, e_d))
    for p in range(panels):
        s = zero_like(bias)
        for b in range(B):
            s = s + widen(load(d, (p * B + b) * 16))
        store(bias, p * 16, fma(s, f, load(bias, p * 16)))
    if blocks.top(u, panels_in * B * 16) == 0.0:
        return
    sums = advance(pointer(work.totals, 1.0), entry(spec.total_at, w))
    factor = _aligned(sums, n_out * panels_in * 16, exponents, 2 * w, e_d + e_u)
    for i in range(n_out):
        for b in range(B):
            g = spread(float(d[(i // 16 * B + b) * 16 + i % 16]) * factor)
            for p in range(panels_in):
                at = (i * panels_in + p) * 16
                store(sums, at, fma(g, widen(load(u, (p * B + b) * 16)), load(sums, at)))


@inline
def _log10_norm(sums, count, e, bound):
    """log10 of a sum's norm, its entries clamped to +-bound where that is not 0."""
    if e == NOTHING:
        return -math.inf
    if bound == 0.0:
        return blocks.log10_norm(blocks.sum_of_squares(sums, count), e)
    most = math.ldexp(bound, max(min(-e, 2000), -2000))
    if most < 1e-150:  # every entry that is not zero is clamped
        hits = 0
        for i in range(count):
            hits += sums[i] != 0.0
        return np.log10(bound) + 0.5 * np.log10(float(hits))
    s = zero_like(sums)
    for i in range(0, count, 16):
        v = smaller(spread(most), absolute(load(sums, i)))  # nan stays
        s = fma(v, v, s)
    return blocks.log10_norm(total(s), e)


@jit
def finish(spec, work, index):
    """The rows of shared weights."""
    exponents, at, bias_at = (
        pointer(work.total_exponents, 1),
        pointer(spec.total_at, 1),
        pointer(spec.total_bias_at, 1),
    )
    for w in range(spec.weights):
        sums = advance(pointer(work.totals, 1.0), at[w])
        bias = advance(pointer(work.bias_totals, 1.0), bias_at[w])
        weight = _log10_norm(sums, at[w + 1] - at[w], exponents[2 * w], spec.clip)
        put(spec, GRAD_WEIGHT, index, w, weight)
        put(spec, GRAD_BIAS, index, w, _log10_norm(bias, bias_at[w + 1] - bias_at[w], exponents[2 * w + 1], spec.clip))
