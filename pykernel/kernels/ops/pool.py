# SPDX-License-Identifier: BSD-3-Clause
"""The mean or the largest entry of each window of positions, unit by unit; the taps of the largest are kept."""

from __future__ import annotations

import numpy as np

from pykernel.kernels import blocks, jit, windows
from pykernel.kernels.memory import cast_like, pointer
from pykernel.kernels.records import (
    BEGINS,
    BLOCK,
    COLUMNS,
    IN,
    KEPT_COLUMNS,
    OUT,
    UNITS,
    E,
    block,
    count,
    entry,
    first,
    give,
    pop,
    push,
    second,
    shape,
    slot,
    take,
    write,
)


def tape(program, number, n, B, item):
    """Bytes on the tape: of a pool of the largest a number for each entry."""
    largest = windows.table(program)[program.window_steps[number]].T[windows.LARGEST]
    return 8 * ((n + 15) // 16 * 16) * windows.places(program, number, B)[1] * largest


def result(program, number, n, B):
    """Units and columns of the result."""
    return n, windows.places(program, number, B)[1]


@jit
def forward(spec, work, op, k, replica, index):
    """One position a window; padding lanes are zero as those of the input are."""
    w, x, y = windows.window(spec, k), slot(work, entry(op, IN)), slot(work, first(spec))
    n, B, largest, taps = x[UNITS], x[COLUMNS], w[windows.LARGEST], windows.taps(w)
    each, positions = windows.count(w), windows.positions(w)
    columns = B // positions * each
    foot = push(work, 8 * ((n + 15) // 16 * 16) * columns * largest, n, B)
    chosen = pointer(work.tape + foot[BEGINS], 1)
    shape(y, n, columns)
    a, to = block(spec, x[BLOCK]), block(spec, y[BLOCK])
    for p in range((n + 15) // 16):
        for at in range(columns):
            for lane in range(16):
                o = (p * columns + at) * 16 + lane
                most, of = cast_like(-np.inf if largest else 0.0, to), 0
                for tap in range(taps):
                    seen = windows.source(w, tap, at % each)
                    if seen < 0:
                        continue
                    v = a[(p * B + at // each * positions + seen) * 16 + lane]
                    if not largest:
                        most += v
                    elif v > most or v != v:
                        most, of = v, tap
                if largest:
                    to[o] = most
                    chosen[o] = of
                else:
                    to[o] = cast_like(float(most) / taps, to)
    y[E] = blocks.renormalise(to, count(y), x[E], spec.bound)
    write(work, entry(op, OUT), first(spec))


@jit
def backward(spec, work, op, k, replica, index):
    """To each position a share of every window that sees it, or all of those whose largest it is, tap after tap."""
    take(spec, work, entry(op, OUT))
    foot, w = pop(work), windows.window(spec, k)
    y, x = slot(work, first(spec)), slot(work, second(spec))
    n, B, columns, taps = y[UNITS], foot[KEPT_COLUMNS], y[COLUMNS], windows.taps(w)
    each, positions = windows.count(w), windows.positions(w)
    chosen, largest = pointer(work.tape + foot[BEGINS], 1), w[windows.LARGEST]
    shape(x, n, B)
    g, to = block(spec, y[BLOCK]), block(spec, x[BLOCK])
    blocks.clear(to, count(x))
    for p in range((n + 15) // 16):
        for tap in range(taps):
            for at in range(columns):
                seen = windows.source(w, tap, at % each)
                if seen < 0:
                    continue
                b = at // each * positions + seen
                for lane in range(16):
                    o, i = (p * columns + at) * 16 + lane, (p * B + b) * 16 + lane
                    if not largest:
                        to[i] += cast_like(float(g[o]) / taps, to)
                    elif chosen[o] == tap:
                        to[i] += g[o]
    x[E] = blocks.renormalise(to, count(x), y[E], spec.bound)
    give(spec, work, entry(op, IN), second(spec))


FORWARD, BACKWARD = (forward,), (backward,)
