# SPDX-License-Identifier: BSD-3-Clause
"""Layers for other people's njit loops: plain (units, columns) arrays outside, the engine's blocks inside."""

from __future__ import annotations

import numpy as np

from pykernel import stream
from pykernel.kernels import blocks, inline, jit, product
from pykernel.kernels.memory import advance

_LOW, _UP = np.uint64(0xFFFFFFFF), np.uint64(32)


@inline
def seed_keys(seed):
    return np.uint32(np.uint64(seed) & _LOW), np.uint32(np.uint64(seed) >> _UP)


@inline
def weight_address(seed, layer, replica):
    key0, key1 = seed_keys(seed)
    return key0, key1, np.uint32(layer | stream.WEIGHT << 24), np.uint32(layer | stream.MASK << 24), np.uint32(replica)


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
    """z = D u for blocks, D the unit draw at an address (`where`); with `keep` its transposed tiles into `kept`."""
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
