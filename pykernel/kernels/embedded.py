# SPDX-License-Identifier: BSD-3-Clause
"""Layers and chains for other people's njit loops: plain (units, batch) arrays outside, the engine's blocks and sums inside, its bits."""

from __future__ import annotations

import collections
import math

import numpy as np

from pykernel import activations, stream
from pykernel.kernels import activate as engine
from pykernel.kernels import activation_lanes, blocks, inline, jit, product
from pykernel.kernels.lanes import address, advance, cast_like

BOUND_32, BOUND_64 = 40, 200  # log2 of the largest magnitude of a block, as in engines/numba_dense.py
KEPT_BYTES = 64 << 20  # of a chain's tiles, as there
_LOW, _UP = np.uint64(0xFFFFFFFF), np.uint64(32)
_STEP = 256  # numbers at a time through the activation functions: 4 KiB of scratch

# What `activate` reads of a program and of a workspace. Log2 forms are left out: they are the engine's where float64 underflows (2^-900).
_Spec = collections.namedtuple("_Spec", "bound facts calls")
_Work = collections.namedtuple("_Work", "wide0 wide1 wide2")


def _facts_of(name):
    facts = engine.facts(activations.get(name), 0.0)
    facts[engine.LOG2_VALUE] = facts[engine.LOG2_SLOPE] = 0
    return facts


_FACTS = np.array([_facts_of("linear"), *(_facts_of(name) for name in activation_lanes.NAMES[1:])])


@inline
def seed_keys(seed):
    return np.uint32(np.uint64(seed) & _LOW), np.uint32(np.uint64(seed) >> _UP)


@inline
def weight_address(seed, layer, replica):
    key0, key1 = seed_keys(seed)
    return key0, key1, np.uint32(layer | stream.WEIGHT << 24), np.uint32(layer | stream.MASK << 24), np.uint32(replica)


@inline
def _bound(x):
    return BOUND_32 if x.itemsize == 4 else BOUND_64


@jit
def pack(x, out):
    """The block of an (n, B) array."""
    n, B = x.shape
    for i in range(n):
        at = i // 16 * B * 16 + i % 16
        for b in range(B):
            out[at + b * 16] = x[i, b]
    blocks.clear_padding(out, n, B)


@jit
def unpack(flat, x):
    """The (n, B) array of a block."""
    n, B = x.shape
    for i in range(n):
        at = i // 16 * B * 16 + i % 16
        for b in range(B):
            x[i, b] = flat[at + b * 16]


@jit
def forward(where, distribution, parameter, u, z, n_in, n_out, B, tile, kept, keep):
    """z = D u for blocks, D the unit draw at an address (`where`); with `keep` its transposed tiles into `kept` for `backward_kept`."""
    height = (n_out + 15) // 16 * 16
    blocks.clear(z, height * B)
    for p in range(height // 16):
        for k in range(0, n_in, product.CHUNK):
            terms = min(product.CHUNK, (n_in + 15) // 16 * 16 - k)
            product.draw_rows(tile, distribution, parameter, where, 16 * p, k, terms, n_in)
            product.multiply(tile, terms, u, k, z, p, B)
            if keep:
                product.turn(tile, terms, kept, k * height, 16 * p, height)
    blocks.clear_padding(z, n_out, B)


@jit
def backward_kept(kept, g, z, n_in, n_out, B):
    """z = D^T g for blocks, from the tiles that `forward` kept."""
    height, panels = (n_out + 15) // 16 * 16, (n_in + 15) // 16
    blocks.clear(z, panels * 16 * B)
    for p in range(panels):
        for i in range(0, height, product.CHUNK):
            product.multiply(advance(kept, (p * height + i) * 16), min(product.CHUNK, height - i), g, i, z, p, B)
    blocks.clear_padding(z, n_in, B)


@jit
def backward(where, distribution, parameter, g, z, n_in, n_out, B, tile, mixed):
    """z = D^T g for blocks, D drawn again."""
    height, panels = (n_out + 15) // 16 * 16, (n_in + 15) // 16
    for group in range((panels + 3) // 4):
        blocks.clear(mixed, 64 * B)
        for i in range(0, height, product.CHUNK):
            terms = min(product.CHUNK, height - i)
            product.draw_columns(tile, distribution, parameter, where, i, group, terms, n_out)
            for w in range(4):
                product.multiply(advance(tile, w * terms * 16), terms, g, i, mixed, w, B)
        product.sort_columns(mixed, z, group, panels, B)
    blocks.clear_padding(z, n_in, B)


@jit
def kept_size(rows_, columns):
    """Numbers that `layer_forward_keep` keeps of a weight of so many rows and columns.

    Examples:
        >>> kept_size(20, 30)
        1024
    """
    return (rows_ + 15) // 16 * 16 * ((columns + 15) // 16 * 16)


@jit
def _layer_forward(z, u, scale, seed, layer, replica, distribution, parameter, kept, keep):
    n_in, B = u.shape
    n_out = z.shape[0]
    x, out = np.empty(blocks.size(n_in, B), u.dtype), np.empty(blocks.size(n_out, B), u.dtype)
    pack(u, x)
    tile = np.empty(product.CHUNK * 16, u.dtype)
    forward(weight_address(seed, layer, replica), distribution, parameter, x, out, n_in, n_out, B, tile, kept, keep)
    blocks.multiply_by(out, len(out), scale)
    unpack(out, z)


@jit
def layer_forward(z, u, scale, seed, layer, replica, distribution, parameter):
    """z = W u with W[i, k] = scale * unit draw (i, k) at (seed, layer, replica), drawn as it is used.

    Args:
        z: (rows, B), written; u: (columns, B) of the same dtype.

    Cost: rows columns draws, 2 rows columns B operations.
    """
    _layer_forward(z, u, scale, seed, layer, replica, distribution, parameter, z.reshape(-1), False)


@jit
def layer_forward_keep(z, u, scale, seed, layer, replica, distribution, parameter, kept):
    """`layer_forward` that keeps the draws for `layer_backward_kept`, so that they are drawn once.

    Args:
        kept: (kept_size(rows, columns),) of the dtype of z, written.
    """
    _layer_forward(z, u, scale, seed, layer, replica, distribution, parameter, kept, True)


@jit
def layer_backward(du, delta, scale, seed, layer, replica, distribution, parameter):
    """du = W^T delta, with the weight that `layer_forward` used at the same address.

    Args:
        du: (columns, B), written; delta: (rows, B) of the same dtype.
    """
    n_out, B = delta.shape
    n_in = du.shape[0]
    g, out = np.empty(blocks.size(n_out, B), delta.dtype), np.empty(blocks.size(n_in, B), delta.dtype)
    pack(delta, g)
    tile, mixed = np.empty(4 * product.CHUNK * 16, delta.dtype), np.empty(64 * B, delta.dtype)
    backward(weight_address(seed, layer, replica), distribution, parameter, g, out, n_in, n_out, B, tile, mixed)
    blocks.multiply_by(out, len(out), scale)
    unpack(out, du)


@jit
def layer_backward_kept(du, delta, scale, kept):
    """du = W^T delta from what `layer_forward_keep` kept: the bits of `layer_backward`."""
    n_out, B = delta.shape
    n_in = du.shape[0]
    g, out = np.empty(blocks.size(n_out, B), delta.dtype), np.empty(blocks.size(n_in, B), delta.dtype)
    pack(delta, g)
    backward_kept(kept, g, out, n_in, n_out, B)
    blocks.multiply_by(out, len(out), scale)
    unpack(out, du)


@jit
def activate(a, z, row, row_parameter):
    """a = phi(z), as the engine evaluates it.

    Args:
        a: written, z: C-contiguous arrays of one shape and dtype.
        row, row_parameter: what `activation(name)` gives.
    """
    x, y = z.reshape(-1), a.reshape(-1)
    if row == activation_lanes.PIECEWISE:
        slope = cast_like(row_parameter, x)
        for i in range(len(x)):
            y[i] = x[i] * slope if x[i] < 0 else x[i]
        return
    wide, out = np.zeros(_STEP), np.empty(_STEP)
    for start in range(0, len(x), _STEP):
        count = min(_STEP, len(x) - start)
        for i in range(count):
            wide[i] = x[start + i]
        activation_lanes.values(row, row_parameter, wide, out, (count + 15) // 16 * 16)
        for i in range(count):
            y[start + i] = out[i]


@jit
def activate_backward(dz, da, z, row, row_parameter):
    """dz = da phi'(z), as the engine evaluates it; dz may be da."""
    x, g, d = z.reshape(-1), da.reshape(-1), dz.reshape(-1)
    wide, out = np.zeros(_STEP), np.empty(_STEP)
    for start in range(0, len(x), _STEP):
        count = min(_STEP, len(x) - start)
        for i in range(count):
            wide[i] = x[start + i]
        if row == activation_lanes.PIECEWISE:
            for i in range(count):
                out[i] = 1.0 if wide[i] > 0 else row_parameter
        else:
            activation_lanes.slopes(row, row_parameter, wide, out, (count + 15) // 16 * 16)
        for i in range(count):
            d[start + i] = float(g[start + i]) * out[i]


@jit
def _facts(row, row_parameter):
    facts = _FACTS[row].copy()
    facts[engine.PARAMETER] = row_parameter
    if row == activation_lanes.PIECEWISE:
        facts[engine.LEFT] = facts[engine.BEFORE] = facts[engine.SLOPE_0] = row_parameter
    elif row == activation_lanes.ELU:
        facts[engine.BEFORE] = facts[engine.SLOPE_0] = row_parameter
    return facts


@inline
def _first_kept(depth, size):
    """Layers from here on (from 0) keep their draws: the backward pass meets them first."""
    return max(0, depth - KEPT_BYTES // size)


@jit
def chain_row(x, cotangent, depth, scale, row, row_parameter, seed, replica, distribution, parameter):
    """A chain of `depth` equal layers a = phi(W a), forward and backward: the bits of `propagate(backend="numba")` at the same address.

    Args:
        x: (n, B) input; cotangent: (n, B), dJ/da[L], of the same dtype.
        scale: factor on the unit draws of every layer.
        row, row_parameter: what `activation(name)` gives.
        seed, replica: the address of the weights; layers count from 1.
        distribution, parameter: of the unit draws.

    Returns:
        a[L] (n, B), dJ/da[0] (n, B), and log10 of the Frobenius norm of dJ/dW[l], (depth,) float64. Blocks carry exponents as in
        `propagate`, so the norms are right far beyond float range; the first two arrays then hold inf or 0.
    """
    n, B = x.shape
    count, panels, bound = blocks.size(n, B), (n + 15) // 16, _bound(x)
    a, z, g, tape = np.empty(count, x.dtype), np.empty(count, x.dtype), np.empty(count, x.dtype), np.empty(depth * count, x.dtype)
    wide0, wide1, wide2 = np.empty(count), np.empty(count), np.empty(count)
    facts, calls = _facts(row, row_parameter), np.zeros(engine.CALLS, np.int64)
    calls[engine.ROW] = row
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
        e = engine.values(spec, work, 0, z, e, a, n, B)
    pack(cotangent, g)
    e_g = blocks.renormalise(g, count, 0, bound)
    for t in range(depth - 1, -1, -1):
        y = tape[t * count : (t + 1) * count]
        e_g, _, _ = engine.slopes(spec, work, 0, y, e_z[t], g, e_g, n, B)
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
    """`chain_row` with an activation function of your own, in plain arithmetic: the bits of `propagate` within float range.

    Args:
        value, slope: your njit functions of one float64, phi and phi'. Numba keeps no code on disk that is given functions.
    """
    n, B = x.shape
    size = kept_size(n, n)
    first = _first_kept(depth, size * x.itemsize)
    kept = np.empty((depth - first) * size, x.dtype)
    tape, grams, mine, norms = np.empty((depth, n, B), x.dtype), np.empty((depth, B * B)), np.empty(B * B), np.empty(depth)
    block, panels = np.empty(blocks.size(n, B), x.dtype), (n + 15) // 16
    a, g, delta = x.copy(), cotangent.copy(), np.empty_like(x)
    for t in range(depth):
        pack(a, block)
        blocks.gram(block, panels, B, grams[t])
        if t >= first:
            layer_forward_keep(tape[t], a, scale, seed, t + 1, replica, distribution, parameter, kept[(t - first) * size :])
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
