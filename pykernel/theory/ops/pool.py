# SPDX-License-Identifier: BSD-3-Clause
"""Means over windows of k positions at infinite width: q' = q (1 + (k - 1) c) / k, products of two columns stay.

Backward every position gets 1/k of its window's gradient: 1/k of the squared norm, and the sum of all products of two
columns, each with itself among them, stays. Of largest entries nothing is said.
"""

from __future__ import annotations

import math

from pykernel.theory.structure import NoTheory, place

ROWS = FAR_ROWS = ()


def law(walk, stretch, op):
    first, each = place(stretch, op)
    steps = walk.program.window_steps[first : first + each * stretch.count : each]
    windows = [walk.program.windows[i] for i in {*steps.tolist()}]
    if any(window.largest for window in windows):
        raise NoTheory(
            "mean field follows mean pools; of the largest of several entries no closed law is known; use "
            'Pool("mean"), a stride, or propagate'
        )
    if any(window.taps != window.stride or max(window.padding) for window in windows):
        raise NoTheory("mean field follows pools whose windows lie side by side without padding; use propagate")
    return walk.same(op.ins[0], alike=walk.laws[op.ins[0]].gaussian)


def _taps(walk, w) -> int:
    return math.prod(walk.program.windows[walk.program.window_steps[w]].taps)


def moments(walk, op, number):
    first, each = number
    square, mean, far, source, out = walk.square, walk.mean, walk.distance, op.ins[0], op.out

    def step(i):
        k = _taps(walk, first + i * each)
        left = (1 + (k - 1) * (1 - far[source])) / k
        log = math.log(left) if left > 0 else -math.inf
        square[out], mean[out] = square[source] + log, mean[source] / math.sqrt(left) if left > 0 else 0.0
        far[out] = max(1 - (1 - far[source]) / left, 0.0) if left > 0 else 0.0

    return step


def distance(walk, op, number):
    return lambda i: None  # `moments` has done it


def backward(walk, op, w):
    g, o = walk.take(op.out)
    k, (seen, made) = _taps(walk, w), walk.spread.windows[w].tolist()
    whole = k * (1 + (made - 1) * o)
    walk.give(op.ins[0], g - math.log(k), (whole - 1) / (seen - 1) if seen > 1 else 0.0)
