# SPDX-License-Identifier: BSD-3-Clause
"""An input that arrives at a step, at infinite width: independent of all that came before, mean square 1."""

from __future__ import annotations

from pykernel.theory.structure import Law

ROWS = FAR_ROWS = ()


def law(walk, stretch, op):
    return Law(sources=walk.fresh())


def moments(walk, op, number):
    square, mean, out = walk.square, walk.mean, op.out

    def step(i):
        square[out] = mean[out] = 0.0

    return step


def distance(walk, op, number):
    far, out, apart = walk.distance, op.out, 1.0 - walk.program.correlation

    def step(i):
        far[out] = apart

    return step


def backward(walk, op, m):
    walk.take(op.out)
