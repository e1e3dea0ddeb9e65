# SPDX-License-Identifier: BSD-3-Clause
"""Whole chains of equal layers for other people's njit loops, forward and backward; the bits of the engine."""

from __future__ import annotations

import collections
import math

import numpy as np

from pykernel import activations
from pykernel.kernels import activate, activation_lanes, blocks, inline, jit, product
from pykernel.kernels.embedded import (
    backward,
    backward_kept,
    forward,
    kept_size,
    layer_backward,
    layer_backward_kept,
    layer_forward,
    layer_forward_keep,
    pack,
    unpack,
    weight_address,
)
from pykernel.kernels.memory import address

BOUND_32, BOUND_64 = 40, 200  # log2 of the largest magnitude of a block, as in engines/numba_records.py
KEPT_BYTES = 64 << 20  # of a chain's tiles, as in engines/numba_dense.py

# What `activate` reads of a program and of a workspace. Log2 forms are left out: they are the engine's where float64
# underflows (2^-900).
_Spec = collections.namedtuple("_Spec", "bound facts calls")
_Work = collections.namedtuple("_Work", "wide0 wide1 wide2")


def _facts_of(name):
    facts = activate.facts(activations.get(name), 0.0)
    facts[activate.LOG2_VALUE] = facts[activate.LOG2_SLOPE] = 0
    return facts


_FACTS = np.array([_facts_of("linear"), *(_facts_of(name) for name in activation_lanes.NAMES[1:])])


@inline
def _bound(x):
    return BOUND_32 if x.itemsize == 4 else BOUND_64


@jit
def _facts(row, row_parameter):
    facts = _FACTS[row].copy()
    facts[activate.PARAMETER] = row_parameter
    if row == activation_lanes.PIECEWISE:
        facts[activate.LEFT] = facts[activate.BEFORE] = facts[activate.SLOPE_0] = row_parameter
    elif row == activation_lanes.ELU:
        facts[activate.BEFORE] = facts[activate.SLOPE_0] = row_parameter
    return facts


@inline
def _first_kept(depth, size):
    """Layers from here on (from 0) keep their draws: the backward pass meets them first."""
    return max(0, depth - KEPT_BYTES // size)


@jit
def chain_row(x, cotangent, depth, scale, row, row_parameter, seed, replica, distribution, parameter):
    """A chain of `depth` equal layers a = phi(W a), forward and backward: the bits of `propagate` at the same address.

    Args:
        x: (n, B) input; cotangent: (n, B), dJ/da[L], of the same dtype.
        scale: factor on the unit draws of every layer.
        row, row_parameter: what `activation(name)` gives.
        seed, replica: the address of the weights; layers count from 1.
        distribution, parameter: of the unit draws.

    Returns:
        a[L] (n, B), dJ/da[0] (n, B), and log10 of the Frobenius norm of dJ/dW[l], (depth,) float64. Blocks carry
        exponents as in `propagate`, so the norms are right far beyond float range; the first two arrays then hold inf
        or 0.
    """
    n, B = x.shape
    count, panels, bound = blocks.size(n, B), (n + 15) // 16, _bound(x)
    a, z, g, tape = (
        np.empty(count, x.dtype),
        np.empty(count, x.dtype),
        np.empty(count, x.dtype),
        np.empty(depth * count, x.dtype),
    )
    wide0, wide1, wide2 = np.empty(count), np.empty(count), np.empty(count)
    facts, calls = _facts(row, row_parameter), np.zeros(activate.CALLS, np.int64)
    calls[activate.ROW] = row
    spec = _Spec(bound, address(facts), address(calls))
    work = _Work(address(wide0), address(wide1), address(wide2))
    grams, mine = np.empty((depth, B * B)), np.empty(B * B)
    e_u, e_z, norms = np.empty(depth, np.int64), np.empty(depth, np.int64), np.empty(depth)
    tile, mixed = np.empty(4 * product.CHUNK * 16, x.dtype), np.empty(64 * B, x.dtype)
    size = kept_size(n, n)
    first = _first_kept(depth, size * x.itemsize)
    kept = np.empty((depth - first) * size, x.dtype)
    pack(x, a)
    e = blocks.renormalise(a, count, 0, bound)
    for t in range(depth):
        e_u[t] = e
        blocks.gram(a, panels, B, grams[t])
        keep = t >= first
        tiles = kept[(t - first) * size :] if keep else kept
        forward(weight_address(seed, t + 1, replica), distribution, parameter, a, z, n, n, B, tile, tiles, keep)
        e = e_z[t] = blocks.scale(z, count, scale, e, bound)
        blocks.copy(z, 0, tape, t * count, count)
        e = activate.values(spec, work, 0, z, e, a, n, B)
    pack(cotangent, g)
    e_g = blocks.renormalise(g, count, 0, bound)
    for t in range(depth - 1, -1, -1):
        y = tape[t * count : (t + 1) * count]
        e_g, _, _ = activate.slopes(spec, work, 0, y, e_z[t], g, e_g, n, B)
        blocks.gram(g, panels, B, mine)
        norms[t] = blocks.log10_norm(blocks.gram_product(mine, grams[t], B * B), e_g + e_u[t])
        if t >= first:
            backward_kept(kept[(t - first) * size :], g, z, n, n, B)
        else:
            backward(weight_address(seed, t + 1, replica), distribution, parameter, g, z, n, n, B, tile, mixed)
        e_g = blocks.scale(z, count, scale, e_g, bound)
        blocks.copy(z, 0, g, 0, count)
    out, back = np.empty_like(x), np.empty_like(x)
    for block, exponent, array in ((a, e, out), (g, e_g, back)):
        if exponent != 0:
            for i in range(count):
                block[i] = math.ldexp(float(block[i]), max(min(exponent, 3000), -3000))
        unpack(block, array)
    # Numba frees an array after its last use, and an address is none: these must live to here.
    if len(facts) + len(calls) + len(wide0) + len(wide1) + len(wide2) == 0:
        norms[:] = np.nan
    return out, back, norms


@jit
def chain(x, cotangent, depth, scale, value, slope, seed, replica, distribution, parameter):
    """`chain_row` with an activation function of your own, in plain arithmetic: `propagate`'s bits within float range.

    Args:
        value, slope: your njit functions of one float64, phi and phi'. Numba keeps no code on disk that is given
        functions.
    """
    n, B = x.shape
    size = kept_size(n, n)
    first = _first_kept(depth, size * x.itemsize)
    kept = np.empty((depth - first) * size, x.dtype)
    tape, grams, mine, norms = (
        np.empty((depth, n, B), x.dtype),
        np.empty((depth, B * B)),
        np.empty(B * B),
        np.empty(depth),
    )
    block, panels = np.empty(blocks.size(n, B), x.dtype), (n + 15) // 16
    a, g, delta = x.copy(), cotangent.copy(), np.empty_like(x)
    for t in range(depth):
        pack(a, block)
        blocks.gram(block, panels, B, grams[t])
        if t >= first:
            layer_forward_keep(
                tape[t], a, scale, seed, t + 1, replica, distribution, parameter, kept[(t - first) * size :]
            )
        else:
            layer_forward(tape[t], a, scale, seed, t + 1, replica, distribution, parameter)
        for i in range(n):
            for b in range(B):
                a[i, b] = value(np.float64(tape[t, i, b]))
    for t in range(depth - 1, -1, -1):
        for i in range(n):
            for b in range(B):
                delta[i, b] = np.float64(g[i, b]) * slope(np.float64(tape[t, i, b]))
        pack(delta, block)
        blocks.gram(block, panels, B, mine)
        norms[t] = blocks.log10_norm(blocks.gram_product(mine, grams[t], B * B), 0)
        if t >= first:
            layer_backward_kept(g, delta, scale, kept[(t - first) * size :])
        else:
            layer_backward(g, delta, scale, seed, t + 1, replica, distribution, parameter)
    return a, g, norms
