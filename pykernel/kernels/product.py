# SPDX-License-Identifier: BSD-3-Clause
"""Products of a weight with a block of units, one tile of sixteen lanes at a time, for njit code.

Letters: n_out rows and n_in columns of W, B inputs. A block (units x batch) is a flat array with unit i of input b at
(i // 16 * B + b) * 16 + i % 16, units padded to a multiple of 16 with zeros. A tile is a flat array with term k of lane
j at k * 16 + j, terms padded to a multiple of 16. Every output is one chain of fused multiply-adds over its terms in
order, so tiles, chunks and threads do not change its bits.
"""

from __future__ import annotations

import numpy as np

from pykernel.kernels import draws, inline, jit
from pykernel.kernels.lanes import count_from, fma, spread
from pykernel.kernels.memory import cast_like, load, load_spread, store, transpose, zero_like

# Weights beyond the distributions of `draws`.
IDENTITY, CONSTANT, MATRIX, HAAR = range(draws.COUNT, draws.COUNT + 4)
CHUNK = 256  # terms of a tile: 16 KiB of float32, half of a first-level cache; plateau 128 to 512 on Zen 3


@inline
def padded(n):
    """n rounded up to whole lanes."""
    return (n + 15) // 16 * 16


@jit
def multiply(tile, terms, x, first, out, panel, B):
    """out[panel] += tile^T x[first : first + terms] for all inputs; terms and first are multiples of 16.

    Args:
        tile: flat; x: block read from unit `first`; out: block written at units 16 panel .. 16 panel + 15.
    """
    x0 = first * B
    b = 0
    while b + 4 <= B:
        at = (panel * B + b) * 16
        s0, s1, s2, s3 = load(out, at), load(out, at + 16), load(out, at + 32), load(out, at + 48)
        for k in range(0, terms, 16):
            t = k * 16
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
            t = k * 16
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
            t = k * 16
            i = x0 + k * B + b * 16
            for j in range(16):
                s0 = fma(load(tile, t + j * 16), load_spread(x, i + j), s0)
        store(out, at, s0)


@inline
def group_unit(row, k, n_out, columns, groups, taps):
    """The unit of the input, tap by tap, that entry (row, k) of a weight in groups multiplies."""
    each = columns // taps
    return k // each * (groups * each) + row // (n_out // groups) * each + k % each


@jit
def multiply_groups(tile, terms, first, panel, n_out, columns, groups, taps, x, out, B, back):
    """Entries first .. first + terms - 1 of a panel of rows of a weight in groups, a tile: out += W x, each row on the
    units of its group; or, `back`, out += W^T x."""
    for k in range(terms):
        for lane in range(min(16, n_out - 16 * panel)):
            unit = group_unit(16 * panel + lane, first + k, n_out, columns, groups, taps)
            w, i, j = tile[k * 16 + lane], unit // 16 * B * 16 + unit % 16, panel * B * 16 + lane
            if back:
                i, j = j, i
            for b in range(B):
                out[j + b * 16] += w * x[i + b * 16]


@jit
def draw_rows(tile, draw, parameter, address, line, first, terms, columns):
    """Rows line .. line + 15 of a weight, columns first .. first + terms - 1, as a tile: lane j holds row line + j.

    Args:
        draw: distribution number; parameter: float64; address: (key0, key1, c2 of the weight, c2 of the mask, replica)
        uint32. terms: multiple of 16; entries from `columns` on are zero.
    """
    key0, key1, c2, mask_c2, replica = address
    rows = count_from(np.uint32(line))
    drawn = min(terms, (columns - first + 3) // 4 * 4)
    if draw == draws.NORMAL:
        for k in range(0, drawn, 4):
            x0, x1, x2, x3 = draws.four_normals(key0, key1, c2, replica, rows, spread(np.uint32((first + k) // 4)))
            at = k * 16
            store(tile, at, x0)
            store(tile, at + 16, x1)
            store(tile, at + 32, x2)
            store(tile, at + 48, x3)
    else:
        for k in range(0, drawn, 4):
            x0, x1, x2, x3 = draws.four(
                draw, parameter, key0, key1, c2, mask_c2, replica, rows, spread(np.uint32((first + k) // 4))
            )
            at = k * 16
            store(tile, at, x0)
            store(tile, at + 16, x1)
            store(tile, at + 32, x2)
            store(tile, at + 48, x3)
    for k in range(columns - first, terms):
        store(tile, k * 16, zero_like(tile))


@jit
def draw_columns(tile, draw, parameter, address, line, group, terms, rows):
    """Columns 64 group .. 64 group + 63 of a weight, rows line .. line + terms - 1, as four tiles of 16 terms.

    Tile w, lane j holds column 64 group + 4 j + w, so that no shuffle is needed; rows from `rows` on are zero.
    """
    key0, key1, c2, mask_c2, replica = address
    blocks = count_from(np.uint32(16 * group))
    step = terms * 16
    drawn = min(terms, rows - line)
    if draw == draws.NORMAL:
        for i in range(drawn):
            x0, x1, x2, x3 = draws.four_normals(key0, key1, c2, replica, spread(np.uint32(line + i)), blocks)
            at = i * 16
            store(tile, at, x0)
            store(tile, at + step, x1)
            store(tile, at + 2 * step, x2)
            store(tile, at + 3 * step, x3)
    else:
        for i in range(drawn):
            x0, x1, x2, x3 = draws.four(
                draw, parameter, key0, key1, c2, mask_c2, replica, spread(np.uint32(line + i)), blocks
            )
            at = i * 16
            store(tile, at, x0)
            store(tile, at + step, x1)
            store(tile, at + 2 * step, x2)
            store(tile, at + 3 * step, x3)
    for i in range(max(drawn, 0), terms):
        for w in range(4):
            store(tile, w * step + i * 16, zero_like(tile))


@jit
def turn(tile, terms, kept, at, line, height):
    """Sixteen rows from `line` into transposed tiles: kept[at + (k // 16 * height + i) * 16 + k % 16] = W[i, k]."""
    for k in range(0, terms, 16):
        transpose(tile, k * 16, kept, at + k * height + line * 16)


@inline
def _entry(draw, matrix, i, k, columns):
    if draw == IDENTITY:
        return 1.0 if i == k else 0.0
    if draw == CONSTANT:
        return 1.0
    return matrix[i * columns + k]


@jit
def fill_rows(tile, draw, matrix, line, first, terms, rows, columns):
    """As `draw_rows`, for weights that are not drawn: identity, constant, or a float64 matrix row by row."""
    for k in range(terms):
        for j in range(16):
            inside = line + j < rows and first + k < columns
            tile[k * 16 + j] = cast_like(_entry(draw, matrix, line + j, first + k, columns) if inside else 0.0, tile)


@jit
def fill_columns(tile, draw, matrix, line, group, terms, rows, columns):
    """As `draw_columns`, for weights that are not drawn."""
    for i in range(terms):
        for w in range(4):
            for j in range(16):
                k = 64 * group + 4 * j + w
                inside = line + i < rows and k < columns
                tile[(w * terms + i) * 16 + j] = cast_like(
                    _entry(draw, matrix, line + i, k, columns) if inside else 0.0, tile
                )


@jit
def sort_columns(mixed, out, group, panels, B):
    """Put the four panels of `draw_columns` order into their places of a block."""
    for b in range(B):
        for j in range(16):
            for w in range(4):
                k = 4 * j + w
                p = 4 * group + k // 16
                if p < panels:
                    out[(p * B + b) * 16 + k % 16] = mixed[(w * B + b) * 16 + j]


@jit
def haar(q, v, out, line, rows, columns, key0, key1, c2, replica):
    """Fill q, row by row, with orthonormal rows or columns, whichever are fewer: QR of normals with positive diagonal.

    Args:
        q, v, out: flat float64 of rows * columns; v and out are scratch. line: 64 float32 of scratch.

    Cost about 3 rows columns min(rows, columns), by Householder reflections in float64.
    """
    tall = rows >= columns
    m, n = (rows, columns) if tall else (columns, rows)
    # v holds column k of the taller orientation at k m, contiguous, reflected in place; from the diagonal on, the
    # reflector.
    for i in range(rows):
        for block in range(0, (columns + 3) // 4, 16):
            x0, x1, x2, x3 = draws.four_normals(
                key0, key1, c2, replica, spread(np.uint32(i)), count_from(np.uint32(block))
            )
            store(line, 0, x0)
            store(line, 16, x1)
            store(line, 32, x2)
            store(line, 48, x3)
            for j in range(min(64, columns - 4 * block)):
                at = (4 * block + j) * m + i if tall else i * m + 4 * block + j
                v[at] = float(line[j % 4 * 16 + j // 4])
    for k in range(n):
        c = k * m
        length = np.sqrt(_dot(v, c, v, c, k, m))
        head = v[c + k]
        alpha = -length if head > 0 else length
        v[c + k] = head - alpha
        root = np.sqrt(2.0 / _dot(v, c, v, c, k, m))
        for i in range(k, m):
            v[c + i] *= root
        for j in range(k + 1, n):
            _axpy(v, j * m, -_dot(v, c, v, j * m, k, m), v, c, k, m)
    # Q e_k = H_0 ... H_k e_k, with the sign that makes the diagonal of R positive: alpha has the sign opposite to the
    # reflector's head.
    for i in range(n * m):
        out[i] = 0.0
    for k in range(n - 1, -1, -1):
        out[k * m + k] = 1.0
        for j in range(k, n):
            _axpy(out, j * m, -_dot(v, k * m, out, j * m, k, m), v, k * m, k, m)
    for k in range(n):
        sign = -1.0 if v[k * m + k] > 0 else 1.0
        for i in range(m):
            q[i * columns + k if tall else k * columns + i] = sign * out[k * m + i]


@jit
def set_apart(q, rows, columns, taps):
    """A matrix row by row, with `columns` columns, becomes one that has it at the middle of `taps` taps."""
    for i in range(rows - 1, -1, -1):
        to = i * taps * columns
        for k in range(columns - 1, -1, -1):
            q[to + taps // 2 * columns + k] = q[i * columns + k]
        for k in range(taps * columns):
            if k < taps // 2 * columns or k >= (taps // 2 + 1) * columns:
                q[to + k] = 0.0


@inline
def _dot(x, a, y, b, start, stop):
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    i = start
    while i + 4 <= stop:
        s0 += x[a + i] * y[b + i]
        s1 += x[a + i + 1] * y[b + i + 1]
        s2 += x[a + i + 2] * y[b + i + 2]
        s3 += x[a + i + 3] * y[b + i + 3]
        i += 4
    while i < stop:
        s0 += x[a + i] * y[b + i]
        i += 1
    return (s0 + s1) + (s2 + s3)


@inline
def _axpy(y, b, factor, x, a, start, stop):
    for i in range(start, stop):
        y[b + i] += factor * x[a + i]
