# SPDX-License-Identifier: BSD-3-Clause
"""A layer of weights at infinite width: q_z = sigma_w^2 q_u + sigma_b^2, and |W^T delta|^2 = sigma_w^2 |delta|^2 (Poole
et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pykernel.program import BIASES, Op, Stretch
from pykernel.theory.logs import log_add
from pykernel.theory.structure import Law, Structure, place

ROWS = ("input", "preactivation")
FAR_ROWS = ("input_distance",)


def law(walk: Structure, stretch: Stretch, op: Op) -> Law:
    first, each = place(stretch, op)
    layers, chosen = walk.program.layers, slice(first, first + each * stretch.count, each)
    uniform = layers.bias_draw[chosen] == BIASES.index("uniform")
    spread = float(np.abs(layers.bias_scale[chosen] * uniform).max())
    return Law(sources=walk.fresh(), spread=spread, uneven=walk.laws[op.ins[0]].uneven)


def moments(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    square, mean, out = walk.square, walk.mean, op.out
    source = op.ins[0]
    weight, bias, incoming, made = walk.weight, walk.bias, walk.rows.input, walk.rows.preactivation

    def step(i: int) -> None:
        l = first + i * each
        incoming[l] = u = square[source]
        z = weight[l] + u
        if bias[l] > -math.inf:
            z = log_add(z, bias[l])
        made[l] = square[out] = z
        mean[out] = 0.0

    return step


def distance(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    far, source, out, rows = walk.distance, op.ins[0], op.out, walk.rows
    weight, bias = walk.weight, walk.bias

    def step(i: int) -> None:
        l = first + i * each
        rows.input_distance[l] = d = far[source]
        if bias[l] > -math.inf:  # the bias is the same for both
            d *= math.exp(weight[l] + rows.input[l] - rows.preactivation[l])
        far[out] = d

    return step


def backward(walk: Any, op: Op, l: int | slice) -> None:
    g, o = walk.take(op.out)
    walk.rows.preactivation[l], walk.rows.coherence[l] = g, o
    walk.rows.lean[l] = walk.lean.pop(op.out, 0.0)
    walk.give(op.ins[0], g + walk.weight[l], o)
