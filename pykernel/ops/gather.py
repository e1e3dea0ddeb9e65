# SPDX-License-Identifier: BSD-3-Clause
"""Patches: what each window of positions sees, side by side as units. A convolution is this and a layer."""

from __future__ import annotations

import numpy as np

from pykernel.program import Op
from pykernel.seen import Run
from pykernel.window import OUTSIDE, Window

TABLE = "window"


def forward(run: Run, op: Op, number: int) -> None:
    """The patches into `out`: unit by unit, or tap by tap with the units of a tap together."""
    window, x = _window(run, number), run.registers[op.ins[0]]
    inputs = by_position(x.x, run.program.batch)
    beyond = np.concatenate([inputs, np.zeros_like(inputs[:, :, :1])], axis=2)  # where OUTSIDE, the last, is
    seen = np.moveaxis(beyond[:, :, window.sources()], 2, 1 if window.by_units else 0)
    run.registers[op.out] = x.like(seen.reshape(-1, run.program.batch * seen.shape[-1]), x.e)


def backward(run: Run, op: Op, number: int, kept: None) -> None:
    """To each position the sum over the taps that see it, tap after tap."""
    window, g = _window(run, number), run.take(op.out)
    sources = window.sources()
    taps, count = sources.shape
    seen = g.x.reshape(*((-1, taps) if window.by_units else (taps, -1)), run.program.batch, count)
    seen = np.moveaxis(seen, 1 if window.by_units else 0, 0)
    out = np.zeros((*seen.shape[1:3], window.field[0] * window.field[1]), g.x.dtype)
    for tap in range(taps):
        inside = sources[tap] != OUTSIDE
        out[:, :, sources[tap, inside]] += seen[tap][:, :, inside]
    run.give(op.ins[0], g.like(out.reshape(len(out), -1), g.e))


def by_position(x: np.ndarray, batch: int) -> np.ndarray:
    """A block's columns as (units, inputs, positions)."""
    return x.reshape(len(x), batch, -1)


def _window(run: Run, number: int) -> Window:
    return run.program.windows[run.program.window_steps[number]]
