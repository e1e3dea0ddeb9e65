# SPDX-License-Identifier: BSD-3-Clause
"""A factor s at infinite width: s^2 on mean squares and squared gradients, nothing on cosines."""

from __future__ import annotations

import numpy as np

from pykernel.theory.structure import place

ROWS = FAR_ROWS = ()


def law(walk, stretch, op):
    first, each = place(stretch, op)
    widest = float(np.abs(walk.program.factors[first : first + each * stretch.count : each]).max())
    return walk.same(op.ins[0], spread=walk.laws[op.ins[0]].spread * widest)


def moments(walk, op, number):
    first, each = number
    square, mean, source, out, factors = walk.square, walk.mean, op.ins[0], op.out, walk.factors

    def step(i):
        shift, sign = factors[first + i * each]
        square[out], mean[out] = square[source] + shift, sign * mean[source]

    return step


def distance(walk, op, number):
    far, source, out = walk.distance, op.ins[0], op.out

    def step(i):
        far[out] = far[source]

    return step


def backward(walk, op, f):
    g, o = walk.take(op.out)
    walk.give(op.ins[0], g + walk.factors[f], o)
