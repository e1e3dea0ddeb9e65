# SPDX-License-Identifier: BSD-3-Clause
"""A node, the end of a block: what the signal and its gradient are there."""

from __future__ import annotations

ROWS = ("activation", "mean")
FAR_ROWS = ("distance",)


def law(walk, stretch, op):
    return walk.same(op.ins[0], sources=walk.fresh())


def moments(walk, op, number):
    first, each = number
    square, mean, source, out = walk.square, walk.mean, op.ins[0], op.out
    activation, means = walk.rows.activation, walk.rows.mean

    def step(i):
        n = first + i * each
        activation[n] = square[out] = square[source]
        means[n] = mean[out] = mean[source]

    return step


def distance(walk, op, number):
    first, each = number
    far, source, out, rows = walk.distance, op.ins[0], op.out, walk.rows.distance

    def step(i):
        rows[first + i * each] = far[out] = far[source]

    return step


def backward(walk, op, i):
    g, o = walk.take(op.out)
    walk.rows.activation[i] = g
    walk.give(op.ins[0], g, o)
