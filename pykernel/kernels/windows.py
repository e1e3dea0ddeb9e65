# SPDX-License-Identifier: BSD-3-Clause
"""Windows over positions as rows of numbers, and which position each of their taps sees: for patches and pools."""

from __future__ import annotations

import numpy as np

from pykernel.kernels import inline
from pykernel.kernels.memory import pointer
from pykernel.kernels.records import entry

ROWS, COLUMNS, TAP_ROWS, TAP_COLUMNS, STRIDE_ROWS, STRIDE_COLUMNS, PAD_ROWS, PAD_COLUMNS = range(8)
OUT_ROWS, OUT_COLUMNS, CIRCULAR, LARGEST, BY_UNITS, APART_ROWS, APART_COLUMNS, WINDOW = range(8, 16)


def table(program):
    """The program's windows, (windows, WINDOW) int64."""
    rows = [(*w.field, *w.taps, *w.stride, *w.padding, *w.out, *w[4:7], *w.dilation) for w in program.windows]
    return np.array(rows, np.int64).reshape(-1, WINDOW)


def places(program, number, B):
    """Of window steps, taps of each and columns that come out of B."""
    rows = table(program)[program.window_steps[number]].T
    taps, count = rows[TAP_ROWS] * rows[TAP_COLUMNS], rows[OUT_ROWS] * rows[OUT_COLUMNS]
    return taps, B // (rows[ROWS] * rows[COLUMNS]) * count


@inline
def window(spec, k):
    """The row of window step k."""
    return pointer(spec.windows + 8 * WINDOW * entry(spec.window_steps, k), 1)


@inline
def taps(w):
    """How many positions a window has."""
    return w[TAP_ROWS] * w[TAP_COLUMNS]


@inline
def count(w):
    """How many windows an input has."""
    return w[OUT_ROWS] * w[OUT_COLUMNS]


@inline
def positions(w):
    """Positions of an input."""
    return w[ROWS] * w[COLUMNS]


@inline
def source(w, tap, at):
    """The position that a tap of window `at` sees; -1 beyond an edge."""
    row = tap // w[TAP_COLUMNS] * w[APART_ROWS] + w[STRIDE_ROWS] * (at // w[OUT_COLUMNS]) - w[PAD_ROWS]
    column = tap % w[TAP_COLUMNS] * w[APART_COLUMNS] + w[STRIDE_COLUMNS] * (at % w[OUT_COLUMNS]) - w[PAD_COLUMNS]
    if w[CIRCULAR]:
        return row % w[ROWS] * w[COLUMNS] + column % w[COLUMNS]
    if row < 0 or row >= w[ROWS] or column < 0 or column >= w[COLUMNS]:
        return -1
    return row * w[COLUMNS] + column
