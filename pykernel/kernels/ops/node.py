# SPDX-License-Identifier: BSD-3-Clause
"""A node: the end of a block, where signal and gradient are looked at on their way."""

from __future__ import annotations

import math

from pykernel.kernels import blocks, jit, rounding
from pykernel.kernels.memory import pointer
from pykernel.kernels.records import (
    BLOCK,
    COLUMNS,
    IN,
    KNOWN,
    OUT,
    ROW,
    UNITS,
    E,
    block,
    copy,
    count,
    entry,
    first,
    give,
    log10_norm,
    put,
    slot,
    square,
    take,
    write,
)
from pykernel.program import FEW_COLUMNS

MEAN_SQUARE, MEAN = ROW["log10_mean_square_activation"], ROW["mean_activation"]
SIMILARITY, GRAD = ROW["similarity"], ROW["log10_grad_activation"]


@jit
def forward(spec, work, op, k, replica, index):
    """Mean square, mean and similarity of what passes on; its Gram matrix serves a layer behind it, too."""
    r = entry(op, OUT)
    if entry(op, IN) != r:
        copy(spec, work, entry(op, IN), first(spec))
        write(work, r, first(spec))
    rounding.pass_signal(spec, work, r, k, index)
    x = slot(work, r)
    n, B, a, e = x[UNITS], x[COLUMNS], block(spec, x[BLOCK]), x[E]
    put(spec, MEAN_SQUARE, index, k, 2 * blocks.log10_norm(square(spec, x) / (n * B), e))
    put(spec, MEAN, index, k, math.ldexp(blocks.sum_all(a, count(x)) / (n * B), max(min(e, 3000), -3000)))
    if max(n, FEW_COLUMNS) < B:
        put(spec, SIMILARITY, index, k, blocks.directions_similarity(a, n, B, pointer(work.wide1, 1.0)))
    elif B > 1:
        gram = pointer(work.gram, 1.0)
        blocks.gram(a, (n + 15) // 16, B, gram)
        pointer(work.state, 1)[KNOWN] = r
        put(spec, SIMILARITY, index, k, blocks.similarity(gram, B))


@jit
def backward(spec, work, op, k, replica, index):
    """The norm of its gradient."""
    r = entry(op, OUT)
    rounding.pass_gradient(spec, work, r, k, index)
    put(spec, GRAD, index, k + 1, log10_norm(spec, slot(work, r)))
    if entry(op, IN) != r:
        take(spec, work, r)
        give(spec, work, entry(op, IN), first(spec))


FORWARD, BACKWARD = (forward,), (backward,)
