# SPDX-License-Identifier: BSD-3-Clause
"""Sines behind uniform biases: the one place where infinite width tells such biases from normal ones of their variance.

u = g + b, g normal, b uniform on -c .. c and the same for all columns of a unit. With q the variance of u, p that of g
and e = exp(-2p) sin(2c)/(2c) it is E cos 2u = e, and of two columns with correlation 1 - d E cos(u1 - u2) = exp(-q d)
and E cos(u1 + u2) = e exp(q d), since b is in both. Everywhere else a bias counts by its variance. Layers of this kind:
Sitzmann et al. 2020 (arXiv 2006.09661).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pykernel.ops import TABLES
from pykernel.program import BIASES, Program

PASSED = ("scale", "norm", "node")  # what leaves the share of the biases in the variance as it is


def sources(program: Program) -> np.ndarray | None:
    """Of each activation step that is a sine, the layer whose uniform biases it sees, else -1; None where none does."""
    uniform = (program.layers.bias_draw == BIASES.index("uniform")) & (program.layers.bias_scale != 0)
    sines = [row.name == "sin" for row in program.activations]
    if not uniform.any() or not any(sines):
        return None
    out, from_layer = np.full(len(program.steps.row), -1), [-1] * program.registers
    rows, norms = program.steps.row.tolist(), program.steps.norm.tolist()
    for stretch in program.stretches:
        for i in range(stretch.count):
            for op in stretch.ops:
                number, source = stretch.number(TABLES[op.kind], op, i), from_layer[op.ins[0]]
                if op.kind == "phi" and sines[rows[number]]:
                    out[number] = source
                passes = op.kind in PASSED or (
                    op.kind == "phi" and program.activations[rows[number]].name == "linear" and not norms[number]
                )
                from_layer[op.out] = number if op.kind == "linear" and uniform[number] else source if passes else -1
    return out if (out >= 0).any() else None


def _parts(log_std: Any, share: Any) -> Any:
    """2p and sin(2c)/(2c), from the log standard deviation of u and the share of its variance that the biases have."""
    q = np.exp(2 * np.minimum(log_std, 300.0))
    return 2 * q * (1 - share), np.sinc(2 * np.sqrt(3 * share * q) / math.pi)


def _lost(log_std: Any, share: Any) -> Any:
    """1 - e, with its digits where it is small."""
    p2, s = _parts(log_std, share)
    y = 12 * share * np.exp(2 * np.minimum(log_std, 300.0))  # (2c)^2
    series = y / 6 * (1 - y / 20 * (1 - y / 42))
    return -np.expm1(-p2) * s + np.where(y < 1e-2, series, 1 - s)


def value(log_std: float, share: float) -> float:
    """log E sin^2 u."""
    lost = float(_lost(log_std, share))
    return math.log(lost / 2) if lost > 0 else 2 * log_std  # q^2 is below the smallest number


def slope(log_std: np.ndarray, share: np.ndarray) -> np.ndarray:
    """log E cos^2 u."""
    return np.log1p(-_lost(log_std, share) / 2)


def apart(log_std: float, share: float, d: float) -> float:
    """1 - cosine of the sines of two columns that are d apart."""
    (p2, s), lost = _parts(log_std, share), float(_lost(log_std, share))
    x = math.exp(2 * min(log_std, 300.0)) * d
    if not lost > 0:
        return d
    # x is at most 2p, for the difference of two columns is all normal
    grown = s * math.exp(-p2) * math.expm1(x) if x < 1 else s * (math.exp(min(x - p2, 0.0)) - math.exp(-p2))
    return min(float(grown - math.expm1(-x)) / lost, 2.0)


def kept(log_std: np.ndarray, share: np.ndarray, d: np.ndarray) -> np.ndarray:
    """E cos u1 cos u2 / E cos^2 u."""
    p2, s = _parts(log_std, share)
    x = np.exp(2 * np.minimum(log_std, 300.0)) * d
    return (np.exp(-x) + s * np.exp(np.minimum(x - p2, 0.0))) / (2 - _lost(log_std, share))
