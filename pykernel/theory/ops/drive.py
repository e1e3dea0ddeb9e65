# SPDX-License-Identifier: BSD-3-Clause
"""An input that arrives at a step, at infinite width: independent of all that came before, mean square 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pykernel.program import Op, Stretch
from pykernel.theory.structure import Law, Structure

ROWS = FAR_ROWS = ()


def law(walk: Structure, stretch: Stretch, op: Op) -> Law:
    return Law(sources=walk.fresh())


def moments(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    square, mean, out = walk.square, walk.mean, op.out

    def step(i: int) -> None:
        square[out] = mean[out] = 0.0

    return step


def distance(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    far, out, apart = walk.distance, op.out, 1.0 - walk.program.correlation

    def step(i: int) -> None:
        far[out] = apart

    return step


def backward(walk: Any, op: Op, m: int | slice) -> None:
    walk.take(op.out)
