# SPDX-License-Identifier: BSD-3-Clause
"""A residual network of SwiGLU blocks with dropout in one's own njit code, both passes by pykernel's functions.

Block b from 0: a + W3 mask(silu(W1 u) * (W2 u)) with u the layer norm of a; its layers are 3 b + 1 .. 3 b + 3, its mask
is number b + 1.
"""

import numpy as np
from numba import njit, prange

import pykernel.numba as pkn
from pykernel import stream

P = 0.25  # of dropout
EPS = 1e-5


@njit(cache=True)
def norms(n, m, columns, depth, seed, replica, row, parameter):
    """log10 of the norm of what reaches a[0], for blocks n -> m -> n of weights of variance 1 / fan in."""
    a, da = np.empty((n, columns), np.float64), np.empty((n, columns), np.float64)
    pkn.normals(a, seed, stream.INPUT, 0, replica)
    pkn.normals(da, seed, stream.COTANGENT, 3 * depth, replica)
    da /= np.sqrt(n * columns)
    wide, out, u, du, more = (
        np.empty((m, columns)),
        np.empty((n, columns)),
        np.empty((n, columns)),
        np.empty((n, columns)),
        np.empty((n, columns)),
    )
    g, v = np.empty((depth, m, columns)), np.empty((depth, m, columns))
    y, kept = np.empty((depth, n, columns)), np.empty((depth, pkn.norm_size(pkn.LAYER_NORM, n, columns)))
    dwide, dg, dv = np.empty((m, columns)), np.empty((m, columns)), np.empty((m, columns))
    to_m, to_n = 1 / np.sqrt(n), 1 / np.sqrt(m)
    for b in range(depth):
        pkn.norm(u, kept[b], a, pkn.LAYER_NORM, EPS)
        y[b] = u
        pkn.layer_forward(g[b], u, to_m, seed, 3 * b + 1, replica, pkn.NORMAL, 0.0)
        pkn.layer_forward(v[b], u, to_m, seed, 3 * b + 2, replica, pkn.NORMAL, 0.0)
        pkn.gate(wide, g[b], v[b], row, parameter)
        pkn.mask(wide, wide, P, seed, b + 1, replica)
        pkn.layer_forward(out, wide, to_n, seed, 3 * b + 3, replica, pkn.NORMAL, 0.0)
        pkn.add(a, a, out, 1.0, 1.0)
    for b in range(depth - 1, -1, -1):
        pkn.layer_backward(dwide, da, to_n, seed, 3 * b + 3, replica, pkn.NORMAL, 0.0)
        pkn.mask(dwide, dwide, P, seed, b + 1, replica)
        pkn.gate_backward(dg, dv, dwide, g[b], v[b], row, parameter)
        pkn.layer_backward(du, dv, to_m, seed, 3 * b + 2, replica, pkn.NORMAL, 0.0)
        pkn.layer_backward(more, dg, to_m, seed, 3 * b + 1, replica, pkn.NORMAL, 0.0)
        pkn.add(du, more, du, 1.0, 1.0)
        pkn.norm_backward(du, du, y[b], kept[b], pkn.LAYER_NORM)
        pkn.add(da, da, du, 1.0, 1.0)
    return np.log10(np.sqrt((da * da).sum()))


@njit(parallel=True)
def ensemble(n, m, columns, depth, seed, replicas, row, parameter):
    """`norms` of every replica, side by side."""
    out = np.empty(replicas)
    for r in prange(replicas):
        out[r] = norms(n, m, columns, depth, seed, r, row, parameter)
    return out
