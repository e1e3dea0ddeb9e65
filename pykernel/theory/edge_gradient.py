# SPDX-License-Identifier: BSD-3-Clause
"""Backward through zeros beyond the edge: of every register's gradient a map of its squares over the positions.

Correlations of two columns' gradients are kept as sums of products over squared norms, as other rooms have them; of
pairs all count as equally correlated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pykernel.program import Op
from pykernel.theory.edges import NOTHING, Map, mean_product, moments_at, normal, sent, shared, sources, whole
from pykernel.theory.quadrature import LOG_SLOPE2


class Sent(NamedTuple):
    """What edges do to a gradient on its way through an op: its map behind, log of a factor on its squared norm, and a
    factor on the correlation of two columns'."""

    map: Map
    log: float = 0.0
    alike: float = 1.0


def sent_back(walk: Any, op: Op, number: int) -> dict[int, Sent]:
    """What an op does to the map of the gradient that comes back to it, for each register that it has read."""
    u, backward = walk.map.pop(op.out, None), BACKWARD.get(op.kind)
    if backward is None:
        return dict.fromkeys(op.ins, Sent(u))
    return backward(walk, op, number, u)


def noted(walk: Any, op: Op, number: int, sent: dict[int, Sent]) -> None:
    """What edges make of the factor of a function on the squared norm, in its row."""
    if op.kind == "phi":
        walk.rows.derivative[number] += sent[op.ins[0]].log
    elif op.kind == "gate" and (sent[op.ins[0]].log or sent[op.ins[1]].log):
        size, value = walk.signal.factor[number] + walk.slope[number], walk.signal.value[number]
        g, v = op.ins
        walk.rows.derivative[number] += np.logaddexp(size + sent[g].log, value + sent[v].log) - np.logaddexp(
            size, value
        )


def mixed(one: Map, other: Map, share: float) -> Map:
    """Of a sum of independent gradients, of which the first has this share of the squared norm."""
    if one is None and other is None:
        return None
    return share * (1.0 if one is None else one) + (1 - share) * (1.0 if other is None else other)


def _gather_back(walk: Any, op: Op, number: int, u: Map) -> dict[int, Sent]:
    window, batch = walk.window(number), walk.program.batch
    at, out = sources(window), math.prod(window.out)
    u = whole(u, out)
    if number in walk.edged.windows:
        return {op.ins[0]: Sent(normal(np.bincount(at[len(at) // 2], u, math.prod(window.field)))[0])}
    found, log = normal(sent(window, u) / len(at))
    log -= math.log(out / math.prod(window.field))
    inside = np.where(at < math.prod(window.field), u, 0.0)
    return {op.ins[0]: Sent(found, log, shared(inside, u, batch) * math.exp(-log))}


def _pool_back(walk: Any, op: Op, number: int, u: Map) -> dict[int, Sent]:
    window = walk.window(number)
    u = whole(u, math.prod(window.out))
    if window.largest:
        u = u / (sources(window) < math.prod(window.field)).sum(axis=0)
    return {op.ins[0]: Sent(normal(sent(window, u))[0])}


def _linear_back(walk: Any, op: Op, l: int, u: Map) -> dict[int, Sent]:
    patch, batch = walk.signal.edges.get(("layer", l)), walk.program.batch
    if u is not None or patch is not None:
        both: Any = (1.0 if u is None else u) * (1.0 if patch is None else patch)
        walk.rows.edges[l] = float(both.mean()), mean_product(both, batch) / max(mean_product(u, batch), NOTHING)
    return {op.ins[0]: Sent(u)}


def _times(walk: Any, u: Map, factor: Any, ties: bool = False) -> Sent:
    """A gradient times a factor of each position; `ties`: whether correlations do not follow."""
    if factor is None:
        return Sent(u)
    found, log = normal((1.0 if u is None else u) * factor)
    batch = walk.program.batch
    alike = 1.0 if ties else mean_product(found, batch) / max(mean_product(u, batch), NOTHING)
    return Sent(found, log, alike)


def _slopes(walk: Any, s: int) -> Any:
    """Of each position, E phi'^2 over what it is on average, less what its norm divides by; None for no difference."""
    own, function = walk.signal.edges.get(("step", s)), walk.at[s][0]
    if own is None or (own.level is None and function.table.level is not None):
        return None
    log = np.zeros(len(own.variance))
    if function.table.level is None:
        slope = moments_at(function, float(walk.signal.preimage[s]), own, (LOG_SLOPE2,))[0]
        log = slope[:-1] - slope[-1]
    return np.exp(log if own.level is None else log - own.level)


def _phi_back(walk: Any, op: Op, s: int, u: Map) -> dict[int, Sent]:
    return {op.ins[0]: _times(walk, u, _slopes(walk, s), walk.at[s][1].kind == "batch")}


def _gate_back(walk: Any, op: Op, s: int, u: Map) -> dict[int, Sent]:
    (g, v), own, value = op.ins, walk.signal.edges.get(("step", s)), walk.signal.edges.get(("value", s))
    slopes, to_value = _slopes(walk, s), None
    if own is not None:
        square, _ = moments_at(walk.at[s][0], float(walk.signal.preimage[s]), own)
        to_value = np.exp(square[:-1] - square[-1])
    to_gate = value if slopes is None else slopes * (1.0 if value is None else value)
    return {g: _times(walk, u, to_gate), v: _times(walk, u, to_value)}


def _norm_back(walk: Any, op: Op, n: int, u: Map) -> dict[int, Sent]:
    own = walk.signal.edges.get(("norm", n))
    return {op.ins[0]: _times(walk, u, None if own is None or own.level is None else np.exp(-own.level))}


# (walk, op, number, map of the gradient of what it has written) -> register -> Sent
BACKWARD: dict[str, Callable] = {
    "gather": _gather_back,
    "pool": _pool_back,
    "linear": _linear_back,
    "phi": _phi_back,
    "gate": _gate_back,
    "norm": _norm_back,
    "mix": lambda walk, op, number, u: {},
    "drive": lambda walk, op, number, u: {},
}
