# SPDX-License-Identifier: BSD-3-Clause
"""Dropout at infinite width: 1/(1 - p) on mean squares and squared gradients, and none of it on products of two
columns.

Each column has a mask of its own, so cosines, and the correlation of two gradients, are multiplied by 1 - p (Schoenholz
et al. 2017, arXiv 1611.01232, section 5).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pykernel.program import Op, Stretch
from pykernel.theory.structure import Law, Structure

ROWS = FAR_ROWS = ()


def law(walk: Structure, stretch: Stretch, op: Op) -> Law:
    return walk.same(op.ins[0], gaussian=False, followed=False, made="dropout")


def moments(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    square, mean, source, out = walk.square, walk.mean, op.ins[0], op.out
    left = [1 - p for p in walk.program.masks.tolist()]

    def step(i: int) -> None:
        p = left[first + i * each]
        square[out], mean[out] = square[source] - math.log(p), mean[source] * math.sqrt(p)

    return step


def distance(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    far, source, out, masks = walk.distance, op.ins[0], op.out, walk.program.masks.tolist()

    def step(i: int) -> None:
        p = masks[first + i * each]
        far[out] = p + (1 - p) * far[source]

    return step


def backward(walk: Any, op: Op, m: int | slice) -> None:
    left = 1 - walk.program.masks[m]
    g, o = walk.take(op.out)
    walk.give(op.ins[0], g - np.log(left), o * left)
