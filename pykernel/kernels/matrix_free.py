# SPDX-License-Identifier: BSD-3-Clause
"""The two products of a matrix-free layer in njit code: D u and D^T delta from their exact joint law, the unit draw D never made.

`reference_matrix_free` is the definition, docs/matrix-free.md the derivation. Passes over units take a range of chunks of 64 panels and
leave partial sums, so that one wide network can be cut among threads; between them stands the algebra of B x B matrices, in float64.
Of the workspace: small (float64 matrices by slot, then B x 2 room), orders (int64: per factor its rank, the directions as taken, and in
ascending order; then how deep the columns of the two rounded factors are), rounded (the factors in the dtype of the run), partials,
draws and wide (room of each worker).
"""

from __future__ import annotations

import math

import numpy as np

from pykernel import stream
from pykernel.kernels import blocks, draws, inline, jit
from pykernel.kernels.chain import _address, _at, _block, _stopped, _units
from pykernel.kernels.lanes import (
    advance,
    cast_like,
    count_from,
    fma,
    load,
    load_spread,
    narrow_like,
    pointer,
    spread,
    store,
    total,
    widen,
    zero_like,
)
from pykernel.kernels.product import HAAR
from pykernel.plan import LOST, PREFER

CHUNK = 64  # panels
STRETCH = 16  # panels whose draws lie in a worker's room
# Directions that stick out less than this make the coefficients of nearly parallel columns large and opposite: sums are then in float64.
THIN = 2.0**-6
_TINY, _HUGE = 2.0**-80, 2.0**60
INPUT, COTANGENT, FRAME, INSIDE, ALONG, X, E, OWN, SLOTS = (np.int64(i) for i in range(9))


@inline
def _slot(spec, work, which):
    return advance(pointer(work.small, 1.0), which * spec.batch * spec.batch)


@inline
def _order(spec, work, which):
    """Rank, directions as taken, directions in ascending order."""
    return advance(pointer(work.orders, 1), which * (2 * spec.batch + 1))


@inline
def _live(spec, work, which):
    return advance(_order(spec, work, which), 1 + spec.batch)


@inline
def _deep(spec, work, which):
    return advance(pointer(work.orders, 1), 3 * (2 * spec.batch + 1) + which * spec.batch)


@inline
def _rounded(spec, work, which):
    return advance(_block(spec, work.rounded), which * spec.batch * spec.batch)


@inline
def _thin(spec, work):
    """Room for one number: the smallest remainder that the input's factor took."""
    return advance(pointer(work.small, 1.0), SLOTS * spec.batch * spec.batch + 2 * spec.batch)


@inline
def _chunks(units):
    return (units + 16 * CHUNK - 1) // (16 * CHUNK)


@inline
def _full(spec, l, units):
    """Units of a tall draw: a frame needs as many as the larger side has."""
    return max(_units(spec, l), _units(spec, l - 1)) if spec.draw == HAAR else units


# -- small matrices


@jit
def factor(gram, lengths2, stride, B, limit, rows, order, room):
    """Rows of C with C^T C = gram, rank-revealing, see `reference_matrix_free.factor`; lengths2: squared lengths, `stride` apart.

    Returns:
        The smallest remainder that was taken, as a fraction of its column's length.
    """
    unit, rest = room, advance(room, B)
    rank, smallest = 0, 1.0
    for i in range(B * B):
        rows[i] = 0.0
    for b in range(B):
        square = lengths2[b * stride]
        unit[b] = 1.0 / math.sqrt(square) if square > 0.0 else 0.0
        rest[b] = gram[b * B + b] * unit[b] * unit[b]
    while rank < min(B, limit):
        most = 0.0
        for b in range(B):
            most = max(most, rest[b])
        if not most > LOST:
            break
        k = 0
        while rest[k] < PREFER * most:
            k += 1
        row = advance(rows, k * B)
        for b in range(B):
            row[b] = gram[k * B + b] * unit[k] * unit[b]
        for i in range(rank):
            other = advance(rows, order[1 + i] * B)
            f = other[k]
            for b in range(B):
                row[b] -= f * other[b]
        root = math.sqrt(rest[k])
        smallest = min(smallest, root)
        for b in range(B):
            row[b] /= root
        for i in range(rank):
            row[order[1 + i]] = 0.0
        row[k] = root
        order[1 + rank] = k
        rank += 1
        for b in range(B):
            rest[b] -= row[b] * row[b]
        for i in range(rank):
            rest[order[1 + i]] = 0.0
    order[0] = rank
    i = 0
    for b in range(B):
        if rows[b * B + b] != 0.0:  # every direction has its diagonal entry
            order[1 + B + i] = b
            i += 1
            for c in range(B):
                if rows[b * B + c] != 0.0:
                    rows[b * B + c] /= unit[c]
    return smallest


@jit
def frame(gram, B, count, rows, order):
    """Cholesky of the leading (count, count) part of a Gram matrix of iid normal columns, rows B apart, without pivoting.

    Returns:
        The smallest diagonal entry, as a fraction of its column's length.
    """
    smallest = 1.0
    order[0] = count
    for k in range(count):
        order[1 + k] = k
        row = advance(rows, k * B)
        for b in range(count):
            row[b] = gram[k * B + b] if b >= k else 0.0
        for o in range(k):
            other = advance(rows, o * B)
            for b in range(k, count):
                row[b] -= other[k] * other[b]
        root = math.sqrt(max(row[k], 1e-300))
        smallest = min(smallest, root / math.sqrt(max(gram[k * B + k], 1e-300)))
        for b in range(k, count):
            row[b] /= root
    return smallest


@jit
def solve(rows, order, B, x, columns, transposed):
    """R x = y (transposed: R^T x = y) in place: x (rank, columns), row j for the j-th direction taken, R = rows[order][:, order]."""
    rank = order[0]
    for step in range(rank):
        i = step if transposed else rank - 1 - step
        diagonal = rows[order[1 + i] * B + order[1 + i]]
        for c in range(columns):
            x[i * columns + c] /= diagonal
        for j in range(i + 1 if transposed else 0, rank if transposed else i):
            entry = rows[order[1 + i] * B + order[1 + j]] if transposed else rows[order[1 + j] * B + order[1 + i]]
            if entry != 0.0:
                for c in range(columns):
                    x[j * columns + c] -= entry * x[i * columns + c]


@jit
def _compact(rows, live, count, B, out):
    """The live rows, in ascending order of their directions."""
    for i in range(count):
        for b in range(B):
            out[i * B + b] = rows[live[i] * B + b]


@jit
def _round(entries, count, B, out, deep):
    """A factor in the dtype of the run; deep[b]: rows that reach columns b .. b + 3."""
    for i in range(count * B):
        out[i] = cast_like(entries[i], out)
    for b in range(0, B, 4):
        deep[b] = 0
        for k in range(count):
            for c in range(b, min(b + 4, B)):
                if entries[k * B + c] != 0.0:
                    deep[b] = k + 1


@jit
def _uneven(x, count):
    """Whether float32 would lose some coefficient, or what it multiplies: inputs or gradients of very different size."""
    found = False
    for i in range(count):
        found |= x[i] != 0.0 and not _TINY < abs(x[i]) < _HUGE
    return found


# -- passes over units


@jit
def draw(out, live, count, panel, full, key0, key1, c2, replica):
    """Normals of STRETCH panels from `panel` as a block of `count` columns, column j from line live[j]; zero from unit `full` on."""
    panels = min(STRETCH, (full + 15) // 16 - panel)
    for j in range(count):
        line = spread(np.uint32(live[j]))
        for q in range(0, panels, 4):
            at = (q * count + j) * 16
            x0, x1, x2, x3 = draws.four_normals(key0, key1, c2, replica, line, count_from(np.uint32(4 * (panel + q))))
            store(out, at, x0)
            store(out, at + 16 * count, x1)
            store(out, at + 32 * count, x2)
            store(out, at + 48 * count, x3)
    left = full - 16 * panel
    if left < 16 * panels:
        for j in range(count):
            for lane in range(left % 16, 16):
                out[(left // 16 * count + j) * 16 + lane] = cast_like(0, out)
    return panels


@jit
def inner(x, K, y, B, panels, out):
    """out[k B + b] += <x_k, y_b> over so many panels, partial sums in float64."""
    for k in range(K):
        b = 0
        while b + 3 <= B:
            s, t, r = spread(0.0), spread(0.0), spread(0.0)
            for p in range(panels):
                v, j = widen(load(x, (p * K + k) * 16)), (p * B + b) * 16
                s = fma(v, widen(load(y, j)), s)
                t = fma(v, widen(load(y, j + 16)), t)
                r = fma(v, widen(load(y, j + 32)), r)
            out[k * B + b] += total(s)
            out[k * B + b + 1] += total(t)
            out[k * B + b + 2] += total(r)
            b += 3
        while b < B:
            s = spread(0.0)
            for p in range(panels):
                s = fma(widen(load(x, (p * K + k) * 16)), widen(load(y, (p * B + b) * 16)), s)
            out[k * B + b] += total(s)
            b += 1


@jit
def inner_plain(x, K, y, B, panels, out):
    """`inner` with partial sums of a stretch in the dtype of the run."""
    for k in range(K):
        b = 0
        while b + 4 <= B:
            s, t, r, q = zero_like(x), zero_like(x), zero_like(x), zero_like(x)
            for p in range(panels):
                v, j = load(x, (p * K + k) * 16), (p * B + b) * 16
                s = fma(v, load(y, j), s)
                t = fma(v, load(y, j + 16), t)
                r = fma(v, load(y, j + 32), r)
                q = fma(v, load(y, j + 48), q)
            out[k * B + b] += total(widen(s))
            out[k * B + b + 1] += total(widen(t))
            out[k * B + b + 2] += total(widen(r))
            out[k * B + b + 3] += total(widen(q))
            b += 4
        while b < B:
            s = zero_like(x)
            for p in range(panels):
                s = fma(load(x, (p * K + k) * 16), load(y, (p * B + b) * 16), s)
            out[k * B + b] += total(widen(s))
            b += 1


@jit
def mix(tile, terms, F, deep, B, out, add):
    """out = tile F over one panel (added to what is there if `add`): column k of the tile at k * 16, F (terms, B)."""
    b = 0
    while b + 4 <= B:
        at, n = b * 16, min(terms, deep[b])
        s0, s1, s2, s3 = zero_like(out), zero_like(out), zero_like(out), zero_like(out)
        if add:
            s0, s1, s2, s3 = load(out, at), load(out, at + 16), load(out, at + 32), load(out, at + 48)
        for k in range(n):
            v, i = load(tile, k * 16), k * B + b
            s0 = fma(v, load_spread(F, i), s0)
            s1 = fma(v, load_spread(F, i + 1), s1)
            s2 = fma(v, load_spread(F, i + 2), s2)
            s3 = fma(v, load_spread(F, i + 3), s3)
        store(out, at, s0)
        store(out, at + 16, s1)
        store(out, at + 32, s2)
        store(out, at + 48, s3)
        b += 4
    while b < B:
        s = load(out, b * 16) if add else zero_like(out)
        for k in range(min(terms, deep[b // 4 * 4])):
            s = fma(load(tile, k * 16), load_spread(F, k * B + b), s)
        store(out, b * 16, s)
        b += 1


@jit
def mix_wide(tile, terms, F, B, out, add):
    """`mix` with float64 factors and sums."""
    for b in range(B):
        s = load(out, b * 16) if add else spread(0.0)
        for k in range(terms):
            s = fma(widen(load(tile, k * 16)), load_spread(F, k * B + b), s)
        store(out, b * 16, s)


@inline
def _room(spec, work, worker):
    size = STRETCH * 16 * spec.batch
    return advance(_block(spec, work.draws), worker * size), advance(pointer(work.wide, 1.0), worker * 16 * spec.batch)


@jit
def sums(spec, work, l, replica, purpose, which, units, y, y_at, keep, worker, c0, c1):
    """Draws of layer l with the columns that live in factor `which`: per chunk their products with the block at y (`units` units, null for
    none) and, for frames, with each other, as partial sums; where `keep`, the draws for those units go into z."""
    B, count, full = spec.batch, _order(spec, work, which)[0], _full(spec, l, units)
    live, z = _live(spec, work, which), _block(spec, work.z)
    g, _ = _room(spec, work, worker)
    haar, careful = spec.draw == HAAR, spec.draw == HAAR or _thin(spec, work)[0] < THIN
    panels_y, c2 = (units + 15) // 16, _address(spec, l, purpose)
    for chunk in range(c0, c1):
        if _stopped(spec):
            return
        out = advance(pointer(work.partials, 1.0), chunk * 2 * B * B)
        own = advance(out, B * B)
        for i in range(2 * B * B):
            out[i] = 0.0
        for panel in range(chunk * CHUNK, min((chunk + 1) * CHUNK, (full + 15) // 16), STRETCH):
            panels = draw(g, live, count, panel, full, spec.key0, spec.key1, c2, np.uint32(replica))
            seen = max(0, min(panels, panels_y - panel))
            if y != 0 and seen:
                at = advance(_block(spec, y), y_at + panel * 16 * B)
                if careful:
                    inner(g, count, at, B, seen, out)
                else:
                    inner_plain(g, count, at, B, seen, out)
            if haar:
                inner(g, count, g, count, panels, own)
            if keep:
                for p in range(seen):
                    blocks.copy(g, p * count * 16, z, (panel + p) * B * 16, count * 16)


@jit
def _collect(spec, work, chunks, which, out, count):
    """Partial sums of all chunks, in order; which: 0 products with y, 1 with each other."""
    B = spec.batch
    partials = pointer(work.partials, 1.0)
    for i in range(count):
        out[i] = 0.0
    for chunk in range(chunks):
        for i in range(count):
            out[i] += partials[(2 * chunk + which) * B * B + i]


@jit
def _frame(spec, work, chunks, count, gram):
    """The factor of a frame's draws from their inner products, less `gram`'s part where it is given (ALONG: rank x count)."""
    B = spec.batch
    packed, own = _slot(spec, work, OWN), _slot(spec, work, FRAME)
    _collect(spec, work, chunks, 1, own, count * count)
    for j in range(count):
        for k in range(count):
            packed[j * B + k] = own[j * count + k]
    if gram:
        along = _slot(spec, work, ALONG)
        for i in range(_order(spec, work, INPUT)[0]):
            for j in range(count):
                for k in range(count):
                    packed[j * B + k] -= along[i * count + j] * along[i * count + k]
    return frame(packed, B, count, own, _order(spec, work, FRAME))


# -- forward: z = G R, G normal or a frame


@jit
def forward_open(spec, work, l):
    """The factor R of u."""
    B = spec.batch
    gram = advance(pointer(work.gram, 1.0), _at(work.gram_at, l - 1))
    order, room = _order(spec, work, INPUT), advance(pointer(work.small, 1.0), SLOTS * B * B)
    _thin(spec, work)[0] = factor(gram, gram, B + 1, B, _units(spec, l - 1), _slot(spec, work, INPUT), order, room)


@jit
def forward_close(spec, work, l):
    """What multiplies the draws, rounded."""
    B, count = spec.batch, _order(spec, work, INPUT)[0]
    e = _slot(spec, work, E)
    _compact(_slot(spec, work, INPUT), _live(spec, work, INPUT), count, B, e)
    smallest = 1.0
    if spec.draw == HAAR and count:
        smallest = _frame(spec, work, _chunks(_full(spec, l, 0)), count, False)
        solve(_slot(spec, work, FRAME), _order(spec, work, FRAME), B, e, B, False)
    _thin(spec, work)[0] = smallest
    _round(e, count, B, _rounded(spec, work, 1), _deep(spec, work, 1))


@jit
def expand(spec, work, l, replica, worker, c0, c1):
    """z = G F over chunks c0 .. c1 - 1."""
    B, n, count = spec.batch, _units(spec, l), _order(spec, work, INPUT)[0]
    live, z, F = _live(spec, work, INPUT), _block(spec, work.z), _rounded(spec, work, 1)
    deep, e, careful = _deep(spec, work, 1), _slot(spec, work, E), _thin(spec, work)[0] < THIN
    g, row = _room(spec, work, worker)
    c2 = _address(spec, l, stream.FORWARD)
    for panel in range(c0 * CHUNK, min(c1 * CHUNK, (n + 15) // 16), STRETCH):
        if _stopped(spec):
            return
        panels = draw(g, live, count, panel, n, spec.key0, spec.key1, c2, np.uint32(replica))
        for p in range(panels):
            tile, out = advance(g, p * count * 16), advance(z, (panel + p) * B * 16)
            if careful:
                mix_wide(tile, count, e, B, row, False)
                for i in range(0, 16 * B, 16):
                    store(out, i, narrow_like(load(row, i), out))
            else:
                mix(tile, count, F, deep, B, out, False)


# -- backward: u X + H E


@jit
def backward_middle(spec, work, l):
    """G^T delta (U^T delta of the frame), then the factor C of what of delta lies outside."""
    B, order = spec.batch, _order(spec, work, INPUT)
    n_in, n, rank = _units(spec, l - 1), _units(spec, l), order[0]
    inside, gram, delta = _slot(spec, work, INSIDE), _slot(spec, work, X), pointer(work.gram_g, 1.0)
    chunks = _chunks(_full(spec, l, n))
    _collect(spec, work, chunks, 0, inside, rank * B)
    for i in range(B * B):
        gram[i] = delta[i]
    if spec.draw == HAAR and rank:
        _frame(spec, work, chunks, rank, False)
        solve(_slot(spec, work, FRAME), _order(spec, work, FRAME), B, inside, B, True)
        for i in range(rank):
            for b in range(B):
                for c in range(B):
                    gram[b * B + c] -= inside[i * B + b] * inside[i * B + c]
    limit = min(n, max(n, n_in) - rank) if spec.draw == HAAR else n
    room = advance(pointer(work.small, 1.0), SLOTS * B * B)
    factor(gram, delta, B + 1, B, limit, _slot(spec, work, COTANGENT), _order(spec, work, COTANGENT), room)


@jit
def backward_close(spec, work, l):
    """X = R^-1 (G^T delta - Q^T H E) and E, rounded."""
    B, order = spec.batch, _order(spec, work, INPUT)
    rank, count = order[0], _order(spec, work, COTANGENT)[0]
    rows, live = _slot(spec, work, INPUT), _live(spec, work, INPUT)
    chunks = _chunks(_full(spec, l, _units(spec, l - 1)))
    inside, along, x, e = _slot(spec, work, INSIDE), _slot(spec, work, ALONG), _slot(spec, work, X), _slot(spec, work, E)
    _collect(spec, work, chunks, 0, x, count * B)
    for i in range(rank):
        for j in range(count):
            along[i * count + j] = x[j * B + order[1 + i]]
    solve(rows, order, B, along, count, True)
    _compact(_slot(spec, work, COTANGENT), _live(spec, work, COTANGENT), count, B, e)
    smallest = _thin(spec, work)
    if spec.draw == HAAR and count:
        smallest[0] = min(smallest[0], _frame(spec, work, chunks, count, True))
        solve(_slot(spec, work, FRAME), _order(spec, work, FRAME), B, e, B, False)
    for i in range(rank):
        at = 0
        while live[at] != order[1 + i]:
            at += 1
        for b in range(B):
            t = inside[at * B + b]
            for j in range(count):
                t -= along[i * count + j] * e[j * B + b]
            x[i * B + b] = t
    solve(rows, order, B, x, B, False)
    # rows of X by input, zero for those that add no direction: u is read as it lies
    for i in range(rank):
        for b in range(B):
            rows[i * B + b] = x[i * B + b]
    for i in range(B * B):
        x[i] = 0.0
    for i in range(rank):
        for b in range(B):
            x[order[1 + i] * B + b] = rows[i * B + b]
    if _uneven(x, B * B) or _uneven(e, count * B):
        smallest[0] = 0.0
    _round(x, B, B, _rounded(spec, work, 0), _deep(spec, work, 0))
    _round(e, count, B, _rounded(spec, work, 1), _deep(spec, work, 1))


@jit
def combine(spec, work, l, worker, c0, c1):
    """z = u X + z E over chunks c0 .. c1 - 1."""
    B, count, panels = spec.batch, _order(spec, work, COTANGENT)[0], (_units(spec, l - 1) + 15) // 16
    z, u = _block(spec, work.z), advance(_block(spec, work.inputs), _at(work.inputs_at, l - 1))
    x, e, careful = _slot(spec, work, X), _slot(spec, work, E), _thin(spec, work)[0] < THIN
    row, wide = _room(spec, work, worker)
    for p in range(c0 * CHUNK, min(c1 * CHUNK, panels)):
        at = p * B * 16
        theirs, mine = advance(u, at), advance(z, at)
        if careful:
            mix_wide(theirs, B, x, B, wide, False)
            mix_wide(mine, count, e, B, wide, True)
            for i in range(0, 16 * B, 16):
                store(mine, i, narrow_like(load(wide, i), mine))
        else:
            mix(theirs, B, _rounded(spec, work, 0), _deep(spec, work, 0), B, row, False)
            mix(mine, count, _rounded(spec, work, 1), _deep(spec, work, 1), B, row, True)
            blocks.copy(row, 0, mine, 0, 16 * B)


# -- a layer whole, in the place of the dense products


@jit
def forward_product(spec, work, l, replica, worker, p0, p1):
    """D u into z."""
    forward_open(spec, work, l)
    if spec.draw == HAAR:
        chunks = _chunks(_full(spec, l, 0))
        sums(spec, work, l, replica, stream.FORWARD, INPUT, _units(spec, l), 0, 0, False, 0, 0, chunks)
    forward_close(spec, work, l)
    expand(spec, work, l, replica, 0, 0, _chunks(_units(spec, l)))


@jit
def backward_product(spec, work, l, replica, worker, p0, p1):
    """D^T delta into z, of the D that forward_product has shown a part of."""
    n, n_in = _units(spec, l), _units(spec, l - 1)
    forward_open(spec, work, l)
    sums(spec, work, l, replica, stream.FORWARD, INPUT, n, work.g, 0, False, 0, 0, _chunks(_full(spec, l, n)))
    backward_middle(spec, work, l)
    at = _at(work.inputs_at, l - 1)
    sums(spec, work, l, replica, stream.BACKWARD, COTANGENT, n_in, work.inputs, at, True, 0, 0, _chunks(_full(spec, l, n_in)))
    backward_close(spec, work, l)
    combine(spec, work, l, 0, 0, _chunks(n_in))
