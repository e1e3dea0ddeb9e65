# SPDX-License-Identifier: BSD-3-Clause
"""Largest and smallest singular value of a product of wide Jacobians: Lanczos iteration, sizes kept as logs. Called by
`spectrum`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

STEPS = 300  # of Lanczos; products of layers need a dozen, one layer with crowded ends more
CLOSE = 1e-12  # of the squared singular value, from one step to the next


def extremes(layers: Sequence[Callable], start: np.ndarray, singular: bool) -> tuple[float, float]:
    """Logs of the largest and the smallest singular value of layers[-1] ... layers[0].

    Args:
        layers: each maps a vector or the columns of a matrix, with a second argument True by its transpose.
        start: a vector of the input's size, without structure.
        singular: whether the smallest is known to be zero.

    Returns:
        Two floats; -inf for zero, nan for the smallest where some layer is not square: no inverse leads to it.
    """
    transposed: list[Callable] = [_transposed(layer) for layer in reversed(layers)]
    largest = _top([layers, transposed], start)
    if singular or largest == -math.inf:
        return largest, -math.inf
    inverses = []
    for layer in layers:
        matrix = layer(np.eye(len(start)))
        if matrix.shape[0] != matrix.shape[1]:
            return largest, math.nan
        try:
            inverses.append(np.linalg.inv(matrix))
        except np.linalg.LinAlgError:
            return largest, -math.inf
    halves = [[_times(m.T) for m in inverses], [_times(m) for m in reversed(inverses)]]  # J^-T, then J^-1
    return largest, -_top(halves, start)


def _times(matrix: np.ndarray) -> Callable:
    return lambda v: matrix @ v


def _transposed(layer: Callable) -> Callable:
    return lambda v: layer(v, True)


def _top(halves: Sequence[Sequence[Callable]], start: np.ndarray) -> float:
    """Log of the largest singular value of J, the two halves being J and its transpose: Lanczos on J^T J,
    orthogonalised in full.

    Notes:
        Golub, Van Loan 2013, Matrix Computations, section 10.1. Power iteration would take thousands of steps where
        singular values crowd.
    """
    basis = np.empty((0, len(start)))
    v, scale = start / np.linalg.norm(start), math.nan
    diagonal: list[float] = []
    beside: list[float] = []
    top = 0.0
    for step in range(min(STEPS, len(start))):
        w, log = v, 0.0
        for half in halves:
            for apply in half:
                w = apply(w)
                size = float(np.linalg.norm(w))
                if size == 0:
                    return -math.inf
                w, log = w / size, log + math.log(size)
        scale = log if step == 0 else scale  # the first step sees at least a share 1/n of the largest
        w = w * math.exp(log - scale)
        basis = np.concatenate([basis, v[None]])
        diagonal.append(float(v @ w))
        for _ in range(2):
            w = w - basis.T @ (basis @ w)
        before, top = top, float(np.linalg.eigvalsh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))[-1])
        size = float(np.linalg.norm(w))
        if abs(top - before) <= CLOSE * top or size <= 1e-14 * top:
            break
        beside.append(size)
        v = w / size
    return (scale + math.log(top)) / 2
