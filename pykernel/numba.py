# SPDX-License-Identifier: BSD-3-Clause
"""pykernel inside your own Numba code: functions for `@njit` and `prange`, pure Numba, cached on disk, the bits of `propagate`.

Letters: rows = n[l], columns = n[l-1], B inputs; arrays are C-contiguous, float32 or float64. A weight is never stored: every function
takes its address (seed, layer from 1, replica) and draws what it needs. Distributions: NORMAL, UNIFORM (on (-1, 1)), TRUNCATED (at 2),
and with a parameter SPARSE (density), STUDENT (degrees of freedom), STABLE (alpha). Your functions may use `cache=True`;
Numba does not notice a new version of pykernel then, so clear `__pycache__` when you upgrade.

    import numpy as np
    from numba import njit
    import pykernel.numba as pkn

    @njit
    def reservoir(steps, x, seed):
        z = np.empty_like(x)
        for t in range(steps):
            pkn.layer_forward(z, x, 1.2 / np.sqrt(len(x)), seed, 1, 0, pkn.NORMAL, 0.0)
            x = np.tanh(z)
        return x

    reservoir(10, np.ones((64, 1), np.float32), 7)
"""

from __future__ import annotations

import math

import numpy as np

from pykernel import stream
from pykernel.kernels import blocks, inline, jit, product
from pykernel.kernels.draws import NORMAL, SPARSE, STABLE, STUDENT, TRUNCATED, UNIFORM

__all__ = [
    "NORMAL",
    "SPARSE",
    "STABLE",
    "STUDENT",
    "TRUNCATED",
    "UNIFORM",
    "chain",
    "layer_backward",
    "layer_forward",
    "normals",
    "philox",
    "weight_tile",
]

_LOW = np.uint64(0xFFFFFFFF)
_UP = np.uint64(32)


@jit
def philox(c0, c1, c2, c3, seed):
    """The four words of one Philox4x32-10 block.

    Args:
        c0, c1, c2, c3: the counter, integers below 2^32; seed: integer below 2^64.

    Returns:
        Four uint32.

    Examples:
        >>> [hex(w) for w in philox(0, 0, 0, 0, 0)]
        ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    a, b, c, d = np.uint64(c0), np.uint64(c1), np.uint64(c2), np.uint64(c3)
    k0, k1 = np.uint64(seed) & _LOW, np.uint64(seed) >> _UP
    for _ in range(10):
        p, q = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (q >> _UP) ^ b ^ k0, q & _LOW, (p >> _UP) ^ d ^ k1, p & _LOW
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _LOW, (k1 + np.uint64(0xBB67AE85)) & _LOW
    return np.uint32(a), np.uint32(b), np.uint32(c), np.uint32(d)


@inline
def _keys(seed):
    return np.uint32(np.uint64(seed) & _LOW), np.uint32(np.uint64(seed) >> _UP)


@inline
def _address(seed, layer, replica):
    key0, key1 = _keys(seed)
    return key0, key1, np.uint32(layer | stream.WEIGHT << 24), np.uint32(layer | stream.MASK << 24), np.uint32(replica)


@jit
def normals(out, seed, purpose, layer, replica):
    """Fill out, (n, B), with standard normals at the tall addresses of the stream: what inputs, cotangents and biases are.

    Args:
        purpose: pykernel.stream.INPUT (layer 0), COTANGENT (layer L), BIAS (B = 1) ...
    """
    n, B = out.shape
    flat = np.empty(blocks.size(n, B), out.dtype)
    key0, key1 = _keys(seed)
    blocks.draw_tall(flat, n, B, False, key0, key1, np.uint32(layer | purpose << 24), np.uint32(replica))
    _unpack(flat, out)


@jit
def weight_tile(out, row, column, seed, layer, replica, distribution, parameter):
    """Unit draws of a tile of W[layer] into out: rows row .. row + len(out) - 1, columns from `column`, a multiple of 4.

    Args:
        out: (rows, columns) float32 or float64.
        distribution, parameter: see the head of this file.
    """
    rows, columns = out.shape
    tile = np.empty((columns + 15) // 16 * 256, out.dtype)
    for i in range(0, rows, 16):
        product.draw_rows(
            tile, distribution, parameter, _address(seed, layer, replica), row + i, column, (columns + 15) // 16 * 16, column + columns
        )
        for j in range(min(16, rows - i)):
            for k in range(columns):
                out[i + j, k] = tile[k * 16 + j]


@jit
def _pack(x):
    n, B = x.shape
    flat = np.zeros(blocks.size(n, B), x.dtype)
    for i in range(n):
        for b in range(B):
            flat[(i // 16 * B + b) * 16 + i % 16] = x[i, b]
    return flat


@jit
def _unpack(flat, x):
    n, B = x.shape
    for i in range(n):
        for b in range(B):
            x[i, b] = flat[(i // 16 * B + b) * 16 + i % 16]


@jit
def layer_forward(z, u, scale, seed, layer, replica, distribution, parameter):
    """z = W u with W[i, k] = scale * unit draw (i, k) at (seed, layer, replica), drawn as it is used.

    Args:
        z: (rows, B), written; u: (columns, B) of the same dtype.

    Cost: rows columns draws, 2 rows columns B operations.
    """
    n_in, B = u.shape
    x, out = _pack(u), np.zeros(blocks.size(z.shape[0], B), u.dtype)
    tile = np.empty(product.CHUNK * 16, u.dtype)
    address = _address(seed, layer, replica)
    for p in range((z.shape[0] + 15) // 16):
        for k in range(0, n_in, product.CHUNK):
            terms = min(product.CHUNK, (n_in + 15) // 16 * 16 - k)
            product.draw_rows(tile, distribution, parameter, address, 16 * p, k, terms, n_in)
            product.multiply(tile, terms, x, k, out, p, B)
    blocks.multiply_by(out, len(out), scale)
    _unpack(out, z)


@jit
def layer_backward(du, delta, scale, seed, layer, replica, distribution, parameter):
    """du = W^T delta, with the weight that `layer_forward` used at the same address.

    Args:
        du: (columns, B), written; delta: (rows, B) of the same dtype.
    """
    rows, B = delta.shape
    panels = (du.shape[0] + 15) // 16
    height = (rows + 15) // 16 * 16
    g, out, mixed = _pack(delta), np.zeros(blocks.size(du.shape[0], B), delta.dtype), np.zeros(64 * B, delta.dtype)
    tile = np.empty(4 * product.CHUNK * 16, delta.dtype)
    address = _address(seed, layer, replica)
    for group in range((panels + 3) // 4):
        mixed[:] = 0
        for i in range(0, height, product.CHUNK):
            terms = min(product.CHUNK, height - i)
            product.draw_columns(tile, distribution, parameter, address, i, group, terms, rows)
            for w in range(4):
                product.multiply(tile[w * terms * 16 :], terms, g, i, mixed, w, B)
        product.sort_columns(mixed, out, group, panels, B)
    blocks.multiply_by(out, len(out), scale)
    _unpack(out, du)


@jit
def chain(x, cotangent, depth, scale, value, slope, seed, replica, distribution, parameter):
    """A chain of `depth` equal layers a = phi(W a), forward and backward, in plain arithmetic.

    Args:
        x: (n, B) input; cotangent: (n, B), dJ/da[L], of the same dtype.
        value, slope: your njit functions of one number, phi and phi'.

    Returns:
        a[L] (n, B), dJ/da[0] (n, B), and log10 of the Frobenius norm of dJ/dW[l], (depth,) float64.
    """
    n, B = x.shape
    tape_u, tape_z = np.empty((depth, n, B), x.dtype), np.empty((depth, n, B), x.dtype)
    a, g, norms = x.copy(), cotangent.copy(), np.empty(depth)
    for t in range(depth):
        tape_u[t] = a
        layer_forward(tape_z[t], a, scale, seed, t + 1, replica, distribution, parameter)
        for i in range(n):
            for b in range(B):
                a[i, b] = value(tape_z[t, i, b])
    for t in range(depth - 1, -1, -1):
        for i in range(n):
            for b in range(B):
                g[i, b] *= slope(tape_z[t, i, b])
        square = 0.0
        for b in range(B):
            for c in range(B):
                left, right = 0.0, 0.0
                for i in range(n):
                    left += float(g[i, b]) * float(g[i, c])
                    right += float(tape_u[t, i, b]) * float(tape_u[t, i, c])
                square += left * right
        norms[t] = 0.5 * math.log10(square) if square > 0 else -np.inf
        delta = g.copy()
        layer_backward(g, delta, scale, seed, t + 1, replica, distribution, parameter)
    return a, g, norms
