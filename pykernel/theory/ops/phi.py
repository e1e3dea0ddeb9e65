# SPDX-License-Identifier: BSD-3-Clause
"""An activation function behind its norm, at infinite width: Gaussian means of phi, phi^2 and phi'^2, of one column and
two."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pykernel.program import Op, Stretch
from pykernel.theory import uniform
from pykernel.theory.ops import pool
from pykernel.theory.ops.norm import deviation
from pykernel.theory.structure import ODD, Law, NoTheory, Structure

ROWS = ("raw", "preimage", "uniform")
FAR_ROWS = ("raw_distance",)

ROUNDING = 1e-9  # of a squared norm


def law(walk: Structure, stretch: Stretch, op: Op) -> Law:
    rows, source = walk.rows(stretch, op), op.ins[0]
    norms = walk.norms(stretch, op)
    names = ", ".join(sorted({str(row) for row in rows}))
    if norms == {None} and names == "linear":
        return walk.laws[source]
    known = "batch" not in norms
    if source in walk.pooled:
        if not norms <= {None, "batch"}:
            raise NoTheory(
                "mean field follows functions on max pools behind batch norm or no norm; put the norm before the pool, "
                "or use propagate"
            )
        known = False
    elif not walk.laws[source].gaussian:
        walk.follow(source, names, batch=not known)
    if walk.laws[source].summed and norms == {None} and "sin" in names.split(", "):
        walk.require_narrow(source, "a sum")
    leaning = "" if all(row.name in ODD for row in rows) else names
    uneven = walk.laws[source].uneven and not norms <= {"layer", "rms"}
    changed = {"made": names, "mean": leaning, "spread": 0.0, "summed": False, "uneven": uneven, "followed": known}
    return walk.same(source, gaussian=False, **changed)


def moments(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    square, mean, source, out = walk.square, walk.mean, op.ins[0], op.out
    raw, preimage, at, far = walk.rows.raw, walk.rows.preimage, walk.at, walk.distance
    wide, share, bias, made = walk.wide, walk.rows.uniform, walk.bias, walk.rows.preactivation

    def step(i: int) -> None:
        s = first + i * each
        row, norm = at[s]
        raw[s] = q = square[source]
        if (w := walk.pooled.get(source)) is not None:
            pool.acted_on(walk, s, w, out)
            return
        if norm.kind == "batch" and (B := int(walk.spread.steps[s])) > 1:
            preimage[s], walk.rows.raw_distance[s] = 0.0, walk.apart(source)
            square[out], mean[out], far[out] = walk.batch(row, norm, q, walk.rows.raw_distance[s], B)
            return
        preimage[s] = t = deviation(norm, q, mean[source])
        if wide is not None and wide[s] >= 0:
            share[s] = math.exp(bias[wide[s]] - made[wide[s]])
            square[out], mean[out] = uniform.value(t, share[s]), 0.0
            return
        square[out], m = row.value(t)
        mean[out] = mean[source] if row.passes else m

    return step


def distance(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    far, source, out = walk.distance, op.ins[0], op.out
    rows, at = walk.rows, walk.at

    def step(i: int) -> None:
        s = first + i * each
        row, norm = at[s]
        if norm.kind != "batch" and s not in rows.pooled:
            rows.raw_distance[s] = d = far[source]
            if walk.wide is not None and walk.wide[s] >= 0:
                far[out] = uniform.apart(rows.preimage[s], rows.uniform[s], d)
            else:
                far[out] = row.apart(s, rows.preimage[s], d)

    return step


def backward(walk: Any, op: Op, s: Any) -> None:
    g, o = walk.take(op.out)
    if walk.peaks and s in walk.peaks:
        _from_pool(walk, op, s, g, o)
        return
    walk.rows.derivative[s], o = _passed(walk, s, o)
    walk.give(op.ins[0], g + walk.rows.derivative[s], o)


def _passed(walk: Any, s: Any, o: Any) -> tuple[Any, Any]:
    """log factor on the squared norm of the gradient, and its correlation."""
    if walk.signal.pooled and s in walk.signal.pooled:
        return pool.slopes(walk, s, o)
    if walk.normed and walk.at[s][1].kind == "batch":
        B, signal = int(walk.spread.steps[s]), walk.signal
        return walk.through_batch(*walk.at[s], signal.raw[s], signal.raw_distance[s], o, B)
    return walk.rows.derivative[s], o * walk.kept[s]


def _from_pool(walk: Any, op: Op, s: int, g: Any, o: Any) -> None:
    """A max pool has sent the gradient, or a part of it: to where the function is largest, with the slope there."""
    sent, before, factor, alike = pool.through(walk, s)
    walk.give(op.ins[0], sent + factor, alike)
    made = sent + factor
    rest = 1 - math.exp(min(sent - g, 0.0))
    if rest > ROUNDING:
        more, alike = _passed(walk, s, (o - (1 - rest) * before) / rest)
        walk.give(op.ins[0], g + math.log(rest) + more, alike)
        made = np.logaddexp(made, g + math.log(rest) + more)
    walk.rows.derivative[s] = made - g
