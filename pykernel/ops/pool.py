# SPDX-License-Identifier: BSD-3-Clause
"""The mean or the largest entry of each window of positions, unit by unit."""

from __future__ import annotations

import numpy as np

from pykernel.dtypes import Ints
from pykernel.ops.gather import by_position
from pykernel.program import Op
from pykernel.seen import Run
from pykernel.window import OUTSIDE, Window

TABLE = "window"


def forward(run: Run, op: Op, number: int) -> Ints | None:
    """One position a window into `out`; of the largest the taps that have it are kept."""
    window, x = _window(run, number), run.registers[op.ins[0]]
    inputs = by_position(x.x, run.program.batch)
    none = np.full_like(inputs[:, :, :1], -np.inf if window.largest else 0)
    seen = np.concatenate([inputs, none], axis=2)[:, :, window.sources()]  # (units, inputs, taps, windows)
    chosen = seen.argmax(axis=2) if window.largest else None
    out = seen.max(axis=2) if window.largest else seen.sum(axis=2) / x.x.dtype.type(seen.shape[2])
    run.registers[op.out] = x.like(out.reshape(len(out), -1), x.e)
    return chosen


def backward(run: Run, op: Op, number: int, chosen: Ints | None) -> None:
    """To each position a share of every window that sees it, or all of those whose largest it is, tap after tap."""
    window, g = _window(run, number), run.take(op.out)
    sources = window.sources()
    each = by_position(g.x, run.program.batch)
    out = np.zeros((*each.shape[:2], window.field[0] * window.field[1]), g.x.dtype)
    for tap, source in enumerate(sources):
        inside = source != OUTSIDE
        share = each / g.x.dtype.type(len(sources)) if chosen is None else each * (chosen == tap)
        out[:, :, source[inside]] += share[:, :, inside]
    run.give(op.ins[0], g.like(out.reshape(len(out), -1), g.e))


def _window(run: Run, number: int) -> Window:
    return run.program.windows[run.program.window_steps[number]]
