# SPDX-License-Identifier: BSD-3-Clause
"""How large weights and biases are at infinite width: log sigma_w^2 and log sigma_b^2 of every layer."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pykernel.distributions import unit_variance
from pykernel.program import BIASES, Draw, Op, Program, distinct, once
from pykernel.theory.plain import plain
from pykernel.theory.structure import NoTheory, place

BIAS_VARIANCE = {"zero": 0.0, "normal": 1.0, "uniform": 1 / 3, "given": math.nan}  # of unit draws


def weight_log(program: Program) -> np.ndarray:
    """log sigma_w^2 of each layer, (L,): fan-in times the variance of an entry.

    Raises:
        NoTheory: weights whose entries are not independent with a variance, except Haar matrices and identities in
            plain linear chains.
    """
    layers, out = program.layers, np.empty(program.depth)
    for number in distinct(layers.draw):
        chosen = layers.draw == number
        draw, n_in, n_out = (
            program.draws[number],
            layers.columns[chosen].astype(float),
            layers.units[chosen].astype(float),
        )
        if draw.distribution == "haar" and draw.parameter:  # delta-orthogonal: one tap has them all
            n_in = n_in / layers.taps[chosen]
        out[chosen] = _weight_log(program, draw, layers.scale[chosen], n_in, n_out)
    return out


class Scores(NamedTuple):
    """Of each attention, (M,).

    Attributes:
        score: log of scale^2 d, the variance of a score whose query and key have mean square 1 in heads of d units.
        units: that query, key and value act on.
    """

    score: np.ndarray
    units: np.ndarray


@once
def scores(program: Program) -> Scores:
    """What the scores of attentions are like, by their layers."""
    mixes, layers = program.mixes, program.layers
    query, units = np.ones((2, program.counts.mix))
    for stretch in program.stretches:
        made: dict[int, Op] = {}
        for op in stretch.ops:
            if op.kind == "linear":
                made[op.out] = op
            elif op.kind == "mix":
                (m, step), (l, every) = place(stretch, op), place(stretch, made[op.ins[0]])
                numbers = np.arange(stretch.count)
                query[m + step * numbers] = layers.units[l + every * numbers]
                units[m + step * numbers] = layers.columns[l + every * numbers]
    with np.errstate(divide="ignore"):
        return Scores(2 * np.log(np.abs(mixes.scale)) + np.log(query / mixes.heads), units)


def _weight_log(program: Program, draw: Draw, scale: np.ndarray, n_in: np.ndarray, n_out: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        if draw.distribution == "haar":
            return 2 * np.log(np.abs(scale)) + np.log(n_in / np.maximum(n_in, n_out))
        if draw.distribution == "identity" and _identity_is_known(program) and np.all(n_in == n_out):
            return 2 * np.log(np.abs(scale))
        variance = unit_variance(*draw)
        if not math.isfinite(variance):
            raise NoTheory(
                "mean field needs independent weights of finite variance or Haar matrices "
                "(identity: square, linear, without bias, norm or residual), "
                f"got {draw.distribution} weights; use propagate"
            )
        size = np.abs(scale)
        if np.all((size > 1e-150) & (size < 1e150)):
            return np.log(_plain(scale**2 * (n_in * variance)))
        return 2 * np.log(np.abs(scale)) + np.log(n_in * variance)


def _identity_is_known(program: Program) -> bool:
    facts = plain(program)
    return (
        facts is not None
        and {row.name for row in facts.rows} == {"linear"}
        and not (facts.norm or facts.every or facts.biased)
    )


def _plain(values: np.ndarray) -> np.ndarray:
    """Values to 14 digits: sqrt(2 / n)^2 n is 2, and a thousand layers of it leave no dust."""
    unique, back = np.unique(values, return_inverse=True)
    return np.array([float(f"{v:.14g}") for v in unique])[back].reshape(values.shape)


def bias_log(program: Program) -> np.ndarray:
    """log sigma_b^2 of each layer, (L,).

    Raises:
        NoTheory: the caller's own arrays.
    """
    kinds, scale = program.layers.bias_draw, program.layers.bias_scale
    if np.any(kinds == BIASES.index("given")):
        raise NoTheory("mean field needs random biases, got the caller's arrays; use propagate")
    with np.errstate(divide="ignore"):
        return 2 * np.log(np.abs(scale)) + np.log(np.array([BIAS_VARIANCE[name] for name in BIASES])[kinds])
