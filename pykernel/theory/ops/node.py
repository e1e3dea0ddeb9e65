# SPDX-License-Identifier: BSD-3-Clause
"""A node, the end of a block: what the signal and its gradient are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pykernel.program import Op, Stretch
from pykernel.theory.structure import Law, Structure

ROWS = ("activation", "mean")
FAR_ROWS = ("distance",)


def law(walk: Structure, stretch: Stretch, op: Op) -> Law:
    return walk.same(op.ins[0], sources=walk.fresh())


def moments(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    square, mean, source, out = walk.square, walk.mean, op.ins[0], op.out
    activation, means = walk.rows.activation, walk.rows.mean

    def step(i: int) -> None:
        n = first + i * each
        activation[n] = square[out] = square[source]
        means[n] = mean[out] = mean[source]

    return step


def distance(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    far, source, out, rows = walk.distance, op.ins[0], op.out, walk.rows.distance

    def step(i: int) -> None:
        rows[first + i * each] = far[out] = far[source]

    return step


def backward(walk: Any, op: Op, i: int | slice) -> None:
    g, o = walk.take(op.out)
    walk.rows.activation[i] = g
    walk.give(op.ins[0], g, o)
