# SPDX-License-Identifier: BSD-3-Clause
"""Attention at infinite width: scores are normal, and means over their softmax are all that is asked for
(`pykernel.theory.softmax`).

With q and p the mean square and the mean product of two positions of value, q' = p + (q - p) E sum A^2 and
p' = p + (q - p) E sum A A'; products of positions of different inputs stay, since weights sum to one. Backward, the
transpose of that for values; through the scores dS = A (dA - sum A dA), whose sum over keys is zero: so what positions
share of keys and values counts for nothing. Two terms of first order in positions / units are kept, since both may be
alike: weights pull the mean over keys along W_k^T q, and products of two keys go with those of their values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pykernel.program import Op, Stretch
from pykernel.theory.softmax import HIGHEST, Weights, softmax
from pykernel.theory.structure import Law, NoTheory, Structure, place, positions_apart

ROWS = ("query", "key", "mixed", "mix_lost", "mix_lean")
FAR_ROWS = ("query_distance", "key_distance", "mixed_distance")


def law(walk: Structure, stretch: Stretch, op: Op) -> Law:
    value = op.ins[2]
    if positions_apart(walk.program) == 1:
        return walk.laws[value]
    first, each = place(stretch, op)
    causal = bool(walk.program.mixes.causal[first : first + each * stretch.count : each].any())
    if causal and walk.laws[value].uneven:
        raise NoTheory(
            "mean field follows causal attention where all positions have one mean square, behind a layer or rms norm; "
            "here other causal attention has made them differ; use propagate"
        )
    return walk.same(value, gaussian=False, made="attention", uneven=causal)


def weights(walk: Any, m: int, query: float, key: float, key_distance: float) -> Weights:
    """Means over the softmax of attention number m, from the log mean squares of query and key and the distance of two
    keys."""
    spread = walk.mixes.score[m] + query + key + math.log(key_distance) if key_distance > 0 else -math.inf
    if spread > HIGHEST:
        raise NoTheory(
            f"mean field follows scores to a standard deviation of {math.exp(HIGHEST / 2):.3g}; in attention {m + 1} "
            f"it is {math.exp(min(spread / 2, 345.0)):.3g}, where rare queries carry the mean; use propagate"
        )
    return softmax(walk.positions, bool(walk.program.mixes.causal[m])).at(spread)


def moments(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    square, mean, far, out, rows = walk.square, walk.mean, walk.distance, op.out, walk.rows
    q, k, v = op.ins

    def step(i: int) -> None:
        m = first + i * each
        rows.query[m], rows.key[m], rows.mixed[m], rows.mix_lost[m] = square[q], square[k], square[v], 0.0
        rows.mix_lean[m] = 0.0
        square[out], mean[out] = square[v], 0.0
        if walk.positions > 1:
            rows.query_distance[m], rows.key_distance[m], rows.mixed_distance[m] = far[q], far[k], far[v]
            found = weights(walk, m, square[q], square[k], far[k])
            lean = found.variance * found.lean / walk.mixes.units[m]
            rows.mix_lost[m] = lost = far[v] * (1 - found.own - lean)
            rows.mix_lean[m] = far[v] * lean
            square[out] += math.log1p(-lost) if lost < 1 else -math.inf
            apart = far[v] * (found.gap(1 - far[q]) + far[q] * lean)
            far[out] = min(apart / (1 - lost), 2.0) if lost < 1 else 0.0

    return step


def distance(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    far, out, rows = walk.distance, op.out, walk.rows
    q, k, v = op.ins

    def step(i: int) -> None:
        if walk.positions > 1 and not walk.between:  # `moments` has done it
            return
        m = first + i * each
        rows.query_distance[m], rows.key_distance[m], rows.mixed_distance[m] = far[q], far[k], far[v]
        lost = rows.mix_lost[m]
        alike = rows.mix_lean[m] * (1 - far[q])
        far[out] = max(far[v] - lost - alike, 0.0) / (1 - lost) if lost < 1 else 0.0

    return step


def backward(walk: Any, op: Op, m: Any) -> None:
    (q, k, v), (g, o) = op.ins, walk.take(op.out)
    shares = walk.rows
    if walk.positions == 1:  # the only weight is 1
        walk.give(v, g, o)
        walk.give(q, g - np.inf, 0.0 * o)
        walk.give(k, g - np.inf, 0.0 * o)
    elif walk.between:
        walk.give(v, g + shares.to_value[m], o * np.exp(-shares.to_value[m]))
        walk.give(q, g + shares.to_query[m], 0.0)
        walk.give(k, g + shares.to_key[m], 0.0)
    else:
        to_value, to_query, to_key = _shares(walk, m, float(o))
        shares.to_value[m], shares.to_query[m], shares.to_key[m] = to_value[0], to_query[0], to_key[0]
        for register, (share, left, more) in ((v, to_value), (q, to_query), (k, to_key)):
            walk.give(register, g + share, left)
            walk.lean[register] = more


def _shares(walk: Any, m: int, o: float) -> tuple[tuple[float, float, float], ...]:
    """Of value, query and key: log of the share of the squared gradient, its correlation between two positions, and log
    of what the squared gradient of the weights has beside the two Gram matrices that it is taken from.

    `o` is that of the output's gradient. One column's squared norms: value own + (T - 1) o w; query D flow / q_q, key D
    (flow + (T - 1) o r_q flow(r_q)) / (q_k - p_k), with D = (q_v - p_v) s^2 and s^2 the variance of scores.
    """
    signal, others = walk.signal, walk.positions - 1
    query, key, value = (float(row[m]) for row in (signal.query, signal.key, signal.mixed))
    dq, dk, dv = (float(row[m]) for row in (signal.query_distance, signal.key_distance, signal.mixed_distance))
    found = weights(walk, m, query, key, dk)
    r = 1 - dq
    kept = found.own + others * o * (found.own - found.gap(r))
    lean = found.variance * found.lean / walk.mixes.units[m] * (1 + others * o * r)
    whole = (1 + others * o) * (1 - dv) + dv * kept
    more = math.log1p(dv * lean / whole) if whole > 0 else 0.0
    to_value = _log(kept), ((1 + others * o) / kept - 1) / others if kept > 0 else 0.0, more
    common = walk.mixes.score[m] + value + _log(dv)
    shared, pairs = o * found.shared_flow(r), (1 - found.own) ** 2 / walk.mixes.units[m]
    to_query = common + key + _log(dk) + _log(found.flow + pairs), (shared + o * pairs) / (found.flow + pairs), 0.0
    flow = found.flow + others * r * shared
    more = math.log1p(pairs * (1 + others * r * o) / flow) if flow > 0 else 0.0
    to_key = common + query + _log(flow), -1 / others, more
    return to_value, to_query, to_key


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf
