# SPDX-License-Identifier: BSD-3-Clause
"""Patches of positions at infinite width: what one position is, its neighbours are, so a patch has the mean square and
the cosines of a position.

Two positions that have a product have it tap by tap, since taps have weights of their own. So a circular convolution is
a dense layer of fan-in taps x units whose batch is inputs x positions, as far as means over positions go (Xiao et al.
2018, arXiv 1806.05393). Backward, taps send independent gradients to a position: squares add up over all positions, and
so do products of two columns. What zeros beyond an edge take is seen to in `pykernel.theory.edges`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pykernel.program import Op, Stretch
from pykernel.theory.structure import Law, Structure

ROWS = FAR_ROWS = ()


def law(walk: Structure, stretch: Stretch, op: Op) -> Law:
    return walk.same(op.ins[0], alike=walk.laws[op.ins[0]].gaussian)


def moments(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    square, mean, source, out = walk.square, walk.mean, op.ins[0], op.out

    def step(i: int) -> None:
        square[out], mean[out] = square[source], mean[source]

    return step


def distance(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    far, source, out = walk.distance, op.ins[0], op.out

    def step(i: int) -> None:
        far[out] = far[source]

    return step


def backward(walk: Any, op: Op, w: int | slice) -> None:
    g, o = walk.take(op.out)
    seen, made = (np.asarray(walk.spread.windows[w, side], float) for side in (0, 1))
    walk.give(op.ins[0], g, o * (made - 1) / np.maximum(seen - 1, 1.0))
