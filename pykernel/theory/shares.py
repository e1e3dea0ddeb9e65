# SPDX-License-Identifier: BSD-3-Clause
"""Shares of units: saturated, and dead for the whole batch, at infinite width."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pykernel.program import Program
from pykernel.theory import correlation
from pykernel.theory.batch import batch_table
from pykernel.theory.signals import Signal

SAMPLED = 200  # activation steps whose dead units are computed, of many that differ slowly


def saturated_and_dead(program: Program, signal: Signal) -> tuple[np.ndarray, np.ndarray]:
    """Saturated pairs and dead units of each activation step."""
    saturated, dead = np.zeros((2, len(signal.preimage)))
    steps = program.steps
    for r, n in {*zip(steps.row.tolist(), steps.norm.tolist(), strict=True)}:
        chosen = (steps.row == r) & (steps.norm == n)
        row, norm = program.activations[r], program.norms[n]
        if norm.kind == "batch":
            saturated[chosen], dead[chosen] = _batch_fractions(row, norm.eps, program.columns, signal.spread[chosen])
        else:
            deviation = np.exp(np.clip(signal.preimage[chosen], -700, 345))
            saturated[chosen] = correlation.probability(correlation.saturated_set(row), deviation)
            dead[chosen] = _dead(row, deviation, signal.raw_distance[chosen], program.columns)
    return saturated, dead


def _batch_fractions(row: Any, eps: float, columns: int, spread: np.ndarray) -> tuple[Any, float]:
    """Behind batch norm a unit has both signs: with two columns or more a flat half-line never holds it; flat pieces on
    both sides are rare and left out.
    """
    if columns == 1:
        zero = float(np.abs(np.asarray(row.slope(np.zeros(1)))[0]))
        return float(zero < 0.01 * row.max_slope), float(zero == 0)
    table = batch_table(row, columns)
    return [table.at(float(s), math.log(eps)).saturated for s in spread], 0.0


def _dead(row: Any, deviation: np.ndarray, distance: np.ndarray, columns: int) -> Any:
    """Chance that a unit's slope is zero for all columns, at each of these deviations and distances."""
    flat = correlation.dead_set(row)
    if not flat:
        return 0.0
    if columns == 1:
        return correlation.probability(flat, deviation)
    keys = np.round(np.stack([np.log(deviation), distance]), 7)
    _, first, back = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    common = lambda i: correlation.common_probability(flat, float(deviation[i]), float(distance[i]), columns)
    count = len(deviation)
    if len(first) > SAMPLED:  # slowly varying: a sample of steps, the rest between
        chosen = np.unique(np.geomspace(1, count, SAMPLED).astype(int) - 1)
        return np.interp(np.arange(count), chosen, [common(i) for i in chosen])
    return np.array([common(i) for i in first])[np.ravel(back)]
