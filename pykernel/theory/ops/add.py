# SPDX-License-Identifier: BSD-3-Clause
"""A sum with a skip at infinite width: mean squares add, with the product of the means; so do squared gradients, each
times its factor.

Yang, Schoenholz 2017 (arXiv 1712.08969).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from pykernel.program import Op, Stretch
from pykernel.theory.structure import Law, NoTheory, Structure

ROWS = ("kept", "added")
FAR_ROWS = ()


def law(walk: Structure, stretch: Stretch, op: Op) -> Law:
    a, v = (walk.laws[register] for register in op.ins)
    if a.sources & v.sources:
        raise NoTheory(
            "mean field needs weights in each branch: a skip around a branch without any is not known; use propagate"
        )
    if v.mean:
        walk.means.append(v.mean)
    both = [law for law in (a, v) if not law.gaussian]
    made, spread = both[0].made if both else "", max(a.spread, v.spread)
    uneven = a.uneven or v.uneven
    followed = bool(both) and a.followed and v.gaussian
    alike = a.alike and v.alike
    return type(a)(not both, made, a.sources | v.sources, a.mean or v.mean, spread, True, followed, alike, uneven)


def moments(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    square, mean, out = walk.square, walk.mean, op.out
    a, v = op.ins
    skip, branch, kept, added = walk.skip, walk.branch, walk.rows.kept, walk.rows.added

    def step(i: int) -> None:
        j = first + i * each
        (k, sign), (s, turn) = skip[j], branch[j]
        A, V, M, N = square[a] + k, square[v] + s, sign * mean[a], turn * mean[v]
        total, m = A, M
        if math.isfinite(V):
            top = max(A, V)
            x, y = math.exp((A - top) / 2), math.exp((V - top) / 2)
            both = x * x + y * y + 2 * x * y * M * N
            total = top + math.log(both) if both > 0 else -math.inf
            m = (x * M + y * N) / math.sqrt(both) if both > 0 else 0.0
        kept[j], added[j] = (math.exp(A - total), math.exp(V - total)) if total > -math.inf else (1.0, 0.0)
        square[out], mean[out] = total, m

    return step


def distance(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    far, out, kept, added = walk.distance, op.out, walk.rows.kept, walk.rows.added
    a, v = op.ins

    def step(i: int) -> None:
        j = first + i * each
        far[out] = min(far[a] * kept[j] + far[v] * added[j], 2.0)

    return step


def backward(walk: Any, op: Op, j: int | slice) -> None:
    (a, v), (g, o) = op.ins, walk.take(op.out)
    walk.give(v, g + walk.branch[j], o)
    walk.give(a, g + walk.skip[j], o)
