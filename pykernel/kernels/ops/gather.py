# SPDX-License-Identifier: BSD-3-Clause
"""Patches: what each window of positions sees, side by side as units; nothing is kept."""

from __future__ import annotations

from pykernel.kernels import blocks, inline, jit, windows
from pykernel.kernels.memory import load, store
from pykernel.kernels.records import (
    BLOCK,
    COLUMNS,
    IN,
    OUT,
    UNITS,
    E,
    block,
    count,
    entry,
    first,
    give,
    second,
    shape,
    slot,
    take,
    write,
)

NUMBERS = ("window_steps", "windows")


def numbers(program):
    """Of each gather and pool its window, and the windows."""
    return program.window_steps, windows.table(program)


def result(program, number, n, B):
    """Units and columns of the patches."""
    taps, columns = windows.places(program, number, B)
    return n * taps, columns


@inline
def _unit(w, n, unit, tap):
    """The unit of patches that a tap of a unit becomes."""
    return unit * windows.taps(w) + tap if w[windows.BY_UNITS] else tap * n + unit


@jit
def _move(w, x, n, B, y, columns, back):
    """Patches y of x; or, `back`, to each position of x the sum of those that see it, tap after tap."""
    each, positions = windows.count(w), windows.positions(w)
    whole = n % 16 == 0 and w[windows.BY_UNITS] == 0
    for tap in range(windows.taps(w)):
        for at in range(columns):
            seen = windows.source(w, tap, at % each)
            if seen < 0:
                continue
            b = at // each * positions + seen
            if whole:
                for p in range(n // 16):
                    i, j = (p * B + b) * 16, ((tap * (n // 16) + p) * columns + at) * 16
                    if back:
                        store(x, i, load(x, i) + load(y, j))
                    else:
                        store(y, j, load(x, i))
            else:
                for unit in range(n):
                    u = _unit(w, n, unit, tap)
                    i, j = (unit // 16 * B + b) * 16 + unit % 16, (u // 16 * columns + at) * 16 + u % 16
                    if back:
                        x[i] += y[j]
                    else:
                        y[j] = x[i]


@jit
def forward(spec, work, op, k, replica, index):
    """The patches."""
    w, x, y = windows.window(spec, k), slot(work, entry(op, IN)), slot(work, first(spec))
    n, B = x[UNITS], x[COLUMNS]
    shape(y, n * windows.taps(w), B // windows.positions(w) * windows.count(w))
    to = block(spec, y[BLOCK])
    blocks.clear(to, count(y))
    _move(w, block(spec, x[BLOCK]), n, B, to, y[COLUMNS], False)
    y[E] = x[E]
    write(work, entry(op, OUT), first(spec))


@jit
def backward(spec, work, op, k, replica, index):
    """To each position the sum over the taps that see it."""
    take(spec, work, entry(op, OUT))
    w, y, x = windows.window(spec, k), slot(work, first(spec)), slot(work, second(spec))
    shape(x, y[UNITS] // windows.taps(w), y[COLUMNS] // windows.count(w) * windows.positions(w))
    to = block(spec, x[BLOCK])
    blocks.clear(to, count(x))
    _move(w, to, x[UNITS], x[COLUMNS], block(spec, y[BLOCK]), y[COLUMNS], True)
    x[E] = blocks.renormalise(to, count(x), y[E], spec.bound)
    give(spec, work, entry(op, IN), second(spec))


FORWARD, BACKWARD = (forward,), (backward,)
