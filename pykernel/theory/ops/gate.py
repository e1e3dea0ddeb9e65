# SPDX-License-Identifier: BSD-3-Clause
"""A gate phi(g) v at infinite width: g and v come from weights of their own, so every mean is a product of two.

Mean square E phi^2 q_v; cosines of phi(g) and of v multiply; of the squared gradient q_v E phi'^2 goes to g and E phi^2
to v.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pykernel.program import Op, Stretch
from pykernel.theory.structure import Law, NoTheory, Structure

ROWS = ("raw", "preimage", "value", "factor")
FAR_ROWS = ("raw_distance", "value_distance", "factor_distance")


def law(walk: Structure, stretch: Stretch, op: Op) -> Law:
    names = ", ".join(sorted({str(row) for row in walk.rows(stretch, op)}))
    g, v = (walk.laws[register] for register in op.ins)
    walk.require_gaussian(op.ins[0], f"the {names} gate")
    if "sin" in names.split(", "):
        walk.require_narrow(op.ins[0], "a gate")
    if g.sources & v.sources:
        raise NoTheory("mean field needs a gate and a value of weights of their own; use propagate")
    return type(g)(
        False,
        f"a {names} gate",
        g.sources | v.sources,
        names if v.mean else "",
        uneven=g.uneven or v.uneven,
        alike=v.alike,
    )


def moments(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    square, mean, out, at, rows = walk.square, walk.mean, op.out, walk.at, walk.rows
    g, v = op.ins

    def step(i: int) -> None:
        s = first + i * each
        rows.raw[s] = q = square[g]
        rows.preimage[s] = q / 2
        rows.value[s], m = at[s][0].value(q / 2)
        rows.factor[s] = square[v]
        square[out] = rows.value[s] + square[v]
        mean[out] = m * mean[v]

    return step


def distance(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    far, out, at, rows = walk.distance, op.out, walk.at, walk.rows
    g, v = op.ins

    def step(i: int) -> None:
        s = first + i * each
        rows.raw_distance[s] = d = far[g]
        rows.value_distance[s] = x = at[s][0].apart(s, rows.preimage[s], d)
        rows.factor_distance[s] = y = far[v]
        far[out] = x + y - x * y

    return step


def backward(walk: Any, op: Op, s: int | slice) -> None:
    (g, v), (G, o) = op.ins, walk.take(op.out)
    signal = walk.signal
    to_gate, to_value = signal.factor[s] + walk.slope[s], signal.value[s]
    walk.rows.derivative[s] = np.logaddexp(to_gate, to_value)
    walk.give(g, G + to_gate, o * walk.kept[s] * walk.alike_factor[s])
    walk.give(v, G + to_value, o * walk.alike_value[s])
