# SPDX-License-Identifier: BSD-3-Clause
"""Products of a weight with a block of units, one tile of sixteen lanes at a time, for njit code.

Letters: n_out rows and n_in columns of W, B inputs. A block (units x batch) is a flat array with unit i of input b at (i // 16 * B + b) * 16 + i % 16,
units padded to a multiple of 16 with zeros. A tile is a flat array with term k of lane j at k * 16 + j, terms padded to a multiple of 16.
Every output is one chain of fused multiply-adds over its terms in order, so tiles, chunks and threads do not change its bits.
"""

from __future__ import annotations

import numpy as np

from pykernel.kernels import draws, inline, jit
from pykernel.kernels.lanes import count_from, fma, load, load_spread, spread, store, transpose, zero_like

CHUNK = 256  # terms of a tile: 16 KiB of float32, half of a first-level cache; plateau 128 to 512 on Zen 3


@inline
def padded(n):
    """n rounded up to whole lanes."""
    return (n + 15) // 16 * 16


@jit
def multiply(tile, start, terms, x, first, out, panel, B):
    """out[panel] += tile^T x[first : first + terms] for all inputs; terms and first are multiples of 16.

    Args:
        tile: flat, from `start`; x: block read from unit `first`; out: block written at units 16 panel .. 16 panel + 15.
    """
    x0 = first * B
    b = 0
    while b + 4 <= B:
        at = (panel * B + b) * 16
        s0, s1, s2, s3 = load(out, at), load(out, at + 16), load(out, at + 32), load(out, at + 48)
        for k in range(0, terms, 16):
            t = start + k * 16
            i = x0 + k * B + b * 16
            for j in range(16):
                w = load(tile, t + j * 16)
                s0 = fma(w, load_spread(x, i + j), s0)
                s1 = fma(w, load_spread(x, i + j + 16), s1)
                s2 = fma(w, load_spread(x, i + j + 32), s2)
                s3 = fma(w, load_spread(x, i + j + 48), s3)
        store(out, at, s0)
        store(out, at + 16, s1)
        store(out, at + 32, s2)
        store(out, at + 48, s3)
        b += 4
    while b + 2 <= B:
        at = (panel * B + b) * 16
        s0, s1 = load(out, at), load(out, at + 16)
        for k in range(0, terms, 16):
            t = start + k * 16
            i = x0 + k * B + b * 16
            for j in range(16):
                w = load(tile, t + j * 16)
                s0 = fma(w, load_spread(x, i + j), s0)
                s1 = fma(w, load_spread(x, i + j + 16), s1)
        store(out, at, s0)
        store(out, at + 16, s1)
        b += 2
    if b < B:
        at = (panel * B + b) * 16
        s0 = load(out, at)
        for k in range(0, terms, 16):
            t = start + k * 16
            i = x0 + k * B + b * 16
            for j in range(16):
                s0 = fma(load(tile, t + j * 16), load_spread(x, i + j), s0)
        store(out, at, s0)


@jit
def draw_rows(tile, start, draw, parameter, address, line, first, terms, columns):
    """Rows line .. line + 15 of a weight, columns first .. first + terms - 1, as a tile: lane j holds row line + j.

    Args:
        draw: distribution number; parameter: float64; address: (key0, key1, c2 of the weight, c2 of the mask, replica) uint32.
        terms: multiple of 16; entries from `columns` on are zero.
    """
    key0, key1, c2, mask_c2, replica = address
    rows = count_from(np.uint32(line))
    drawn = min(terms, (columns - first + 3) // 4 * 4)
    if draw == draws.NORMAL:
        for k in range(0, drawn, 4):
            x0, x1, x2, x3 = draws.four_normals(key0, key1, c2, replica, rows, spread(np.uint32((first + k) // 4)))
            at = start + k * 16
            store(tile, at, x0)
            store(tile, at + 16, x1)
            store(tile, at + 32, x2)
            store(tile, at + 48, x3)
    else:
        for k in range(0, drawn, 4):
            x0, x1, x2, x3 = draws.four(draw, parameter, key0, key1, c2, mask_c2, replica, rows, spread(np.uint32((first + k) // 4)))
            at = start + k * 16
            store(tile, at, x0)
            store(tile, at + 16, x1)
            store(tile, at + 32, x2)
            store(tile, at + 48, x3)
    for k in range(columns - first, terms):
        store(tile, start + k * 16, zero_like(tile))


@jit
def draw_columns(tile, start, draw, parameter, address, line, group, terms, rows):
    """Columns 64 group .. 64 group + 63 of a weight, rows line .. line + terms - 1, as four tiles of `terms` * 16 numbers.

    Tile w, lane j holds column 64 group + 4 j + w, so that no shuffle is needed; rows from `rows` on are zero.
    """
    key0, key1, c2, mask_c2, replica = address
    blocks = count_from(np.uint32(16 * group))
    step = terms * 16
    drawn = min(terms, rows - line)
    if draw == draws.NORMAL:
        for i in range(drawn):
            x0, x1, x2, x3 = draws.four_normals(key0, key1, c2, replica, spread(np.uint32(line + i)), blocks)
            at = start + i * 16
            store(tile, at, x0)
            store(tile, at + step, x1)
            store(tile, at + 2 * step, x2)
            store(tile, at + 3 * step, x3)
    else:
        for i in range(drawn):
            x0, x1, x2, x3 = draws.four(draw, parameter, key0, key1, c2, mask_c2, replica, spread(np.uint32(line + i)), blocks)
            at = start + i * 16
            store(tile, at, x0)
            store(tile, at + step, x1)
            store(tile, at + 2 * step, x2)
            store(tile, at + 3 * step, x3)
    for i in range(max(drawn, 0), terms):
        for w in range(4):
            store(tile, start + w * step + i * 16, zero_like(tile))


@jit
def turn(tile, start, terms, kept, line, height):
    """Copy a tile of sixteen rows (from `line`, a multiple of 16) into transposed tiles: kept[(k // 16 * height + i) * 16 + k % 16] = W[i, k]."""
    for k in range(0, terms, 16):
        transpose(tile, start + k * 16, kept, (k // 16 * height + line) * 16)
