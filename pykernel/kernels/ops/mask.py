# SPDX-License-Identifier: BSD-3-Clause
"""Dropout: entries zeroed with probability p, the rest divided by 1 - p; both passes draw the mask at its address."""

from __future__ import annotations

import numpy as np

from pykernel import stream
from pykernel.kernels import blocks, inline, jit
from pykernel.kernels.records import (
    BLOCK,
    COLUMNS,
    IN,
    OUT,
    UNITS,
    E,
    block,
    copy,
    count,
    entry,
    first,
    give,
    number,
    slot,
    stream_address,
    take,
    write,
)

NUMBERS = ("masks",)


def numbers(program):
    """The probabilities."""
    return (program.masks,)


@inline
def _mask(spec, work, k, replica):
    x, p = slot(work, first(spec)), number(spec.masks, k)
    c2 = stream_address(k + 1, stream.DROPOUT)
    y = block(spec, x[BLOCK])
    blocks.mask(y, x[UNITS], x[COLUMNS], p, spec.key0, spec.key1, c2, np.uint32(replica))
    x[E] = blocks.scale(y, count(x), 1 / (1 - p), x[E], spec.bound)


@jit
def forward(spec, work, op, k, replica, index):
    """What is left."""
    copy(spec, work, entry(op, IN), first(spec))
    _mask(spec, work, k, replica)
    write(work, entry(op, OUT), first(spec))


@jit
def backward(spec, work, op, k, replica, index):
    """The gradient through the same mask."""
    take(spec, work, entry(op, OUT))
    _mask(spec, work, k, replica)
    give(spec, work, entry(op, IN), first(spec))


FORWARD, BACKWARD = (forward,), (backward,)
