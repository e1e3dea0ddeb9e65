# SPDX-License-Identifier: BSD-3-Clause
"""Scale and shift by unit, w x + b, at infinite width: means over units of w^2, w b, b^2; the shift is the same for
both columns.

Where units differ in w or b this is exact only between units that are alike: behind a norm, before weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pykernel.program import AffineRow, Op, Stretch
from pykernel.theory.logs import log_square
from pykernel.theory.structure import Law, NoTheory, Structure, place

ROWS = ("scaled",)
FAR_ROWS = ()

PASSING = ("scale", "mask")  # ops that act on every unit alike


def law(walk: Structure, stretch: Stretch, op: Op) -> Law:
    first, each = place(stretch, op)
    chosen = np.unique(walk.program.affine_steps[first : first + each * stretch.count : each])
    rows = [walk.program.affines[i] for i in chosen]
    law = walk.laws[op.ins[0]]
    own = any(np.ptp(part) > 0 for row in rows for part in row)
    if own and not _before_weights(walk, stretch, op):
        raise NoTheory(
            "mean field needs weights behind a norm or scale that has numbers of its own for each unit: activation "
            "functions and sums would meet units that differ; use propagate"
        )
    shifted = any(row.bias.any() for row in rows)
    made = "a norm with a bias" if shifted else "numbers of its own for each unit"
    return walk.same(
        op.ins[0],
        gaussian=law.gaussian and not (own or shifted),
        followed=law.followed and not (own or shifted),
        made=made if own or shifted else law.made,
        alike=law.alike and not own,
        mean=made if shifted else law.mean,
        spread=law.spread * max(float(np.abs(row.weight).max()) for row in rows),
    )


def _before_weights(walk: Any, stretch: Stretch, op: Op) -> bool:
    """Whether only weights, or the end of the program, read what an op writes."""
    behind = stretch.ops[stretch.ops.index(op) + 1 :]
    held = {op.out}
    for later in behind:
        if held & set(later.ins):
            last = later is stretch.ops[-1] and stretch is walk.program.stretches[-1] and stretch.count == 1
            if later.kind in PASSING:
                held.add(later.out)
                continue
            if later.kind != "linear" and not (later.kind == "node" and last):
                return False
        held.discard(later.out)
    return True


def _facts(row: AffineRow) -> tuple[float, float, float, float, float]:
    """log E w^2, log E b^2, and E w b, E w, E b in units of their roots; means over units."""
    w, b = np.abs(row.weight).max() or 1.0, np.abs(row.bias).max() or 1.0
    x, y = row.weight / w, row.bias / b
    roots = [math.sqrt(float(np.mean(part * part))) for part in (x, y)]
    over = [1 / root if root else 0.0 for root in roots]
    return (
        log_square(roots[0]) + log_square(w),
        log_square(roots[1]) + log_square(b),
        float(np.mean(x * y)) * over[0] * over[1],
        float(np.mean(x)) * over[0],
        float(np.mean(y)) * over[1],
    )


def moments(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    square, mean, source, out, scaled = walk.square, walk.mean, op.ins[0], op.out, walk.rows.scaled
    rows, facts = walk.program.affine_steps.tolist(), [_facts(row) for row in walk.program.affines]

    def step(i: int) -> None:
        n = first + i * each
        weight, bias, both, w, b = facts[rows[n]]
        q, m = square[source] + weight, mean[source]
        top = max(q, bias)
        total, relative = q, w * m
        if math.isfinite(bias):
            x, y = math.exp((q - top) / 2), math.exp((bias - top) / 2)
            sum_ = x * x + y * y + 2 * x * y * both * m
            total = top + math.log(sum_) if sum_ > 0 else -math.inf
            relative = (x * w * m + y * b) / math.sqrt(sum_) if sum_ > 0 else 0.0
        scaled[n] = math.exp(q - total) if total > -math.inf else 1.0
        square[out], mean[out] = total, relative

    return step


def distance(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    far, source, out, scaled = walk.distance, op.ins[0], op.out, walk.rows.scaled

    def step(i: int) -> None:
        far[out] = min(far[source] * scaled[first + i * each], 2.0)

    return step


def backward(walk: Any, op: Op, n: int | slice) -> None:
    g, o = walk.take(op.out)
    weights = np.array([_facts(row)[0] for row in walk.program.affines])
    walk.give(op.ins[0], g + weights[walk.program.affine_steps[n]], o)
