# SPDX-License-Identifier: BSD-3-Clause
"""The rows of a prediction from the numbers of its signals and gradients: what `propagate` measures, on average."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pykernel.program import Program, distinct
from pykernel.theory import attention, correlation, rounding
from pykernel.theory.batch import batch_table
from pykernel.theory.columns import columns
from pykernel.theory.neighbours import beside
from pykernel.theory.quadrature import HOMOGENEOUS
from pykernel.theory.signals import Gradient, Signal

LOG10 = math.log(10)
SAMPLED = 200  # activation steps whose dead units are computed, of many that differ slowly


def predicted(program: Program, signal: Signal, gradient: Gradient, loss: float) -> dict:
    """The rows of `observables.ROWS`, without an axis of replicas."""
    L = program.depth
    half = 0.5 / LOG10
    pairs = _pairs(program, signal, gradient)
    with np.errstate(divide="ignore", invalid="ignore"):
        (cross, shared), alike = _edges(gradient, L), np.ones(L)
        for count, s, g in pairs:
            cross += count * g.coherence * (1 - s.input_distance) * shared
            alike += count * g.coherence
        for l, near in ((number, near) for (table, number), near in signal.near.items() if table == "layer"):
            seen = int(columns(program).layers[l])
            cross[l] += beside(near, gradient.inside[l], signal.input_distance[l], gradient.coherence[l], seen)
        fan_in = program.layers.columns.astype(float)
        weight = (
            gradient.preactivation
            + gradient.lean
            + signal.input
            + np.log(fan_in)
            + np.log(np.maximum(np.nan_to_num(cross, nan=1.0), 0))
        )
        bias = gradient.preactivation + np.log(np.maximum(alike, 0))
        bias[np.abs(alike) < 1e-12] = -np.inf
        mean = signal.mean[1:] * np.exp(np.minimum(signal.activation[1:] / 2, 709.0))
        mean = np.where(signal.mean[1:] == 0, 0.0, mean)
    saturated, dead = _fractions(program, signal, _mean(pairs or [(0, signal, gradient)], "raw_distance"))
    return {
        "log10_grad_weight": half * weight,
        "log10_grad_bias": half * bias,
        **_totals(program, half * weight, half * bias),
        "log10_grad_preactivation": half * gradient.preactivation,
        "log10_grad_activation": half * gradient.activation,
        "log10_mean_square_preactivation": 2 * half * signal.preactivation,
        "log10_mean_square_activation": 2 * half * signal.activation[1:],
        "mean_activation": mean,
        "saturated": saturated,
        "dead": dead,
        "similarity": _similarity(program, pairs),
        "log10_weight_factor": half * signal.weight,
        "log10_derivative_factor": half * gradient.derivative,
        "attention_entropy": attention.entropies(program, signal),
        "score_std": attention.score_deviations(program, signal),
        **rounding.rows(program, signal, gradient),
        "loss": loss,
    }


def _edges(gradient: Gradient, layers: int) -> np.ndarray:
    """Of the weight gradients' squares, and of their products of two columns, what maps of positions make, (2, L)."""
    out = np.ones((2, layers))
    for l, both in gradient.edges.items():
        out[:, l] = both
    return out


def _similarity(program: Program, pairs: list) -> np.ndarray:
    """Of the nodes, nan where there is one column."""
    if not pairs:
        return np.full(program.counts.node, np.nan)
    return np.where(columns(program).nodes > 1, 1 - _mean(pairs, "distance"), np.nan)[1:]


def _totals(program: Program, weight: np.ndarray, bias: np.ndarray) -> dict:
    """Of shared weights: gradients of uses are orthogonal where a cotangent of its own comes back to each, so that
    their squares add up."""
    number = program.layers.weight
    rows = {}
    for name, uses in (("log10_grad_weight_total", weight), ("log10_grad_bias_total", bias)):
        each = [uses[number == w] * 2 * LOG10 for w in range(program.counts.weight)]
        rows[name] = np.array([np.logaddexp.reduce(squares) for squares in each]) / (2 * LOG10)
    return rows


def _pairs(program: Program, signal: Signal, gradient: Gradient) -> list[tuple[Any, Signal, Gradient]]:
    """How many partners a column has where each layer acts, and what they have in common: positions of its input and
    columns of others where attention tells them apart."""
    if program.columns == 1:
        return []
    if signal.between is None:
        return [(columns(program).layers - 1, signal, gradient)]
    positions = program.columns // program.batch
    return [(positions - 1, signal, gradient), (program.columns - positions, signal.between, gradient.between)]


def _mean(pairs: list[tuple[int, Signal, Gradient]], distance: str) -> Any:
    """A distance over all pairs of columns."""
    if len(pairs) == 1:
        return getattr(pairs[0][1], distance)
    return sum(count * getattr(s, distance) for count, s, _ in pairs) / sum(count for count, _, _ in pairs)


def _fractions(program: Program, signal: Signal, distance: Any) -> tuple[np.ndarray, np.ndarray]:
    """Saturated pairs and dead units of each activation step."""
    saturated, dead = np.zeros((2, len(signal.preimage)))
    steps, spread = program.steps, columns(program).steps
    pairs = steps.row * len(program.norms) + steps.norm
    for pair in distinct(pairs):
        chosen = pairs == pair
        row, norm = program.activations[pair // len(program.norms)], program.norms[pair % len(program.norms)]
        if norm.kind == "batch":
            for B in np.unique(spread[chosen]):
                some = chosen & (spread == B)
                saturated[some], dead[some] = _batch_fractions(row, norm.eps, int(B), signal.spread[some])
        else:
            deviation = np.exp(np.clip(signal.preimage[chosen], -700, 345))
            saturated[chosen] = correlation.probability(correlation.saturated_set(row), deviation)
            for B in np.unique(spread[chosen]):
                some = spread[chosen] == B
                dead[np.flatnonzero(chosen)[some]] = _dead(row, deviation[some], distance[chosen][some], int(B))
    own_deviations = ((s, own) for (table, s), own in signal.edges.items() if table == "step")
    for s, own in own_deviations:  # every position by its own
        row, norm = program.activations[steps.row[s]], program.norms[steps.norm[s]]
        if row.name not in HOMOGENEOUS and norm.kind != "batch":
            deviation = np.exp(np.clip(signal.preimage[s] + own.variance / 2, -700, 345))
            saturated[s] = np.mean(correlation.probability(correlation.saturated_set(row), deviation))
    for s, peak in signal.pooled.items():
        row, norm = program.activations[steps.row[s]], program.norms[steps.norm[s]]
        saturated[s], flat = peak.peaks.flat, correlation.dead_set(row) if norm.kind is None else []
        dead[s] = correlation.common_probability(flat, math.exp(peak.log_std), peak.distance, peak.entries)
    for s, found in (signal.fractions or {}).items():
        saturated[s], dead[s] = found[0], dead[s] if found[1] is None else found[1]
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
    if np.isnan(distance).any():  # of pairs nothing is known (`density`)
        return math.nan
    keys = np.round(np.stack([np.log(deviation), distance]), 7)
    _, first, back = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    common = lambda i: correlation.common_probability(flat, float(deviation[i]), float(distance[i]), columns)
    count = len(deviation)
    if len(first) > SAMPLED:  # slowly varying: a sample of steps, the rest between
        chosen = np.unique(np.geomspace(1, count, SAMPLED).astype(int) - 1)
        return np.interp(np.arange(count), chosen, [common(i) for i in chosen])
    return np.array([common(i) for i in first])[np.ravel(back)]
