# SPDX-License-Identifier: BSD-3-Clause
"""A norm at infinite width: "layer" and "rms" divide by a number, "batch" ties the columns together (Yang et al.
2019)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pykernel.program import NormRow, Op, Stretch
from pykernel.theory.logs import log_add
from pykernel.theory.structure import Law, NoTheory, Structure

ROWS = ("norm_raw", "norm_mean", "norm_level")
FAR_ROWS = ("norm_distance",)


def deviation(norm: NormRow, q: float, mean: float) -> float:
    """log standard deviation of Norm(x), from the log mean square and the relative mean of x."""
    if norm.kind is None:
        return q / 2
    if norm.kind == "batch":  # one input: its own mean is subtracted, nothing is left
        return -math.inf
    v = variance(norm, q, mean)
    return (v - log_add(v, math.log(norm.eps))) / 2


def variance(norm: NormRow, q: float, mean: float) -> float:
    """log of what the norm divides by the root of, without eps."""
    if norm.kind != "layer" or mean == 0:
        return q
    left = 1 - mean * mean
    return q + math.log(left) if left > 0 else -math.inf


def level(norm: NormRow, q: float, mean: float) -> float:
    """log(variance + eps)."""
    return log_add(variance(norm, q, mean), math.log(norm.eps))


def law(walk: Structure, stretch: Stretch, op: Op) -> Law:
    kinds, source = walk.norms(stretch, op, "norm"), op.ins[0]
    if source in walk.pooled and "batch" in kinds:
        raise NoTheory(
            "mean field follows batch norm on a max pool with a function behind it in one Block; put the norm before "
            "the pool, or use propagate"
        )
    if "batch" in kinds:
        if not walk.laws[source].gaussian:
            walk.follow(source, "batch norm", batch=True)
        return walk.same(source, gaussian=False, followed=False, summed=False, made="batch norm")
    return walk.same(source, mean="" if kinds == {"layer"} else walk.laws[source].mean, uneven=False)


def moments(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    square, mean, source, out = walk.square, walk.mean, op.ins[0], op.out
    raw, levels, norms, far = walk.rows.norm_raw, walk.rows.norm_level, walk.norms, walk.distance

    def step(i: int) -> None:
        n = first + i * each
        norm = norms[n]
        raw[n] = q = square[source]
        walk.rows.norm_mean[n] = m = mean[source]
        if norm.kind == "batch":
            square[out], mean[out] = -math.inf, 0.0
            if (B := int(walk.spread.norms[n])) > 1:
                walk.rows.norm_distance[n] = d = walk.apart(source)
                square[out], mean[out], far[out] = walk.batch(walk.line, norm, q, d, B)
            return
        levels[n] = level(norm, q, m)
        square[out] = variance(norm, q, m) - levels[n]
        mean[out] = 0.0 if norm.kind == "layer" else m

    return step


def distance(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    far, source, out, rows, norms = walk.distance, op.ins[0], op.out, walk.rows, walk.norms

    def step(i: int) -> None:
        n = first + i * each
        norm = norms[n]
        if norm.kind != "batch":
            rows.norm_distance[n] = d = far[source]
            far[out] = min(d / (1 - rows.norm_mean[n] ** 2), 2.0) if norm.kind == "layer" and d else d

    return step


def backward(walk: Any, op: Op, n: int | slice) -> None:
    g, o = walk.take(op.out)
    signal = walk.signal
    if walk.normed and walk.norms[n].kind == "batch":
        raw, apart, B = signal.norm_raw[n], signal.norm_distance[n], int(walk.spread.norms[n])
        factor, o = walk.through_batch(walk.line, walk.norms[n], raw, apart, o, B)
        walk.give(op.ins[0], g + factor, o)
    else:
        walk.give(op.ins[0], g - signal.norm_level[n], o)
