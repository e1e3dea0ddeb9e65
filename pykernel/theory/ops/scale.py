# SPDX-License-Identifier: BSD-3-Clause
"""A factor s at infinite width: s^2 on mean squares and squared gradients, nothing on cosines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pykernel.program import Op, Stretch
from pykernel.theory.structure import Law, Structure, place

ROWS = FAR_ROWS = ()


def law(walk: Structure, stretch: Stretch, op: Op) -> Law:
    first, each = place(stretch, op)
    widest = float(np.abs(walk.program.factors[first : first + each * stretch.count : each]).max())
    return walk.same(op.ins[0], spread=walk.laws[op.ins[0]].spread * widest)


def moments(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    square, mean, source, out, factors = walk.square, walk.mean, op.ins[0], op.out, walk.factors

    def step(i: int) -> None:
        shift, sign = factors[first + i * each]
        square[out], mean[out] = square[source] + shift, sign * mean[source]

    return step


def distance(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    far, source, out = walk.distance, op.ins[0], op.out

    def step(i: int) -> None:
        far[out] = far[source]

    return step


def backward(walk: Any, op: Op, f: int | slice) -> None:
    g, o = walk.take(op.out)
    walk.give(op.ins[0], g + walk.factors[f], o)
