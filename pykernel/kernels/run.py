# SPDX-License-Identifier: BSD-3-Clause
"""The interpreter: a replica's program forward and backward, op by op, through a table of compiled kernels.

What the backward pass needs lies on a tape. Where that would be too long, the repetitions are cut into segments: the
signal at the beginning of each is kept, and a segment is computed again before its backward pass; what is computed
again is written down again, the same bits.
"""

from __future__ import annotations

import math

import numpy as np
from numba import types

from pykernel import stream
from pykernel.kernels import address_of, blocks, jit, ops, rounding, totals
from pykernel.kernels.calls import call
from pykernel.kernels.memory import advance, pointer
from pykernel.kernels.ops import KINDS
from pykernel.kernels.records import (
    BLOCK,
    COLUMNS,
    EACH,
    FIRST,
    FIRST_OP,
    HELD,
    KIND,
    KNOWN,
    OP,
    OPS,
    ROOM,
    ROW,
    START,
    STRETCH,
    TOP,
    UNITS,
    E,
    block,
    count,
    entry,
    log10_norm,
    put,
    record_type,
    shape,
    slot,
    stopped,
    stream_address,
    swap,
    work_dtype,
)

GRAD_ACTIVATION = ROW["log10_grad_activation"]
ALL = 1 << 40  # the end of a range that is not cut
# Of each kind of op three kernels forward and three backward, the second and third may be none; then those of the
# whole.
KERNELS = 6
BEGIN, COTANGENT, SAVE, RESUME, RESTORE, FINISH, STORE_SIGNAL, STORE_GRADIENT = range(8)


@jit
def begin(spec, work, replica):
    """a[0] in register 0, nothing on the tape."""
    x, state = slot(work, 0), pointer(work.state, 1)
    shape(x, spec.units, spec.columns)
    size, a, e = count(x), block(spec, x[BLOCK]), 0
    if spec.x != 0:
        blocks.copy(block(spec, spec.x), 0, a, 0, size)
        e = spec.x_exponent
    else:
        ops.drive.draw(spec, work, x, 0, replica)
    x[E] = blocks.renormalise(a, size, e, spec.bound)
    rounding.store_block(spec, work, 0, rounding.SIGNALS)
    state[TOP], state[KNOWN] = 0, -1
    totals.clear(spec, work)
    for s in range(spec.registers + ROOM):
        slot(work, s)[HELD] = 0


@jit
def cotangent(spec, work, replica):
    """dJ/da[N] = C as the gradient of register 0, drawn or given."""
    x = slot(work, 0)
    n, B, g, e = x[UNITS], x[COLUMNS], block(spec, x[BLOCK]), 0
    if spec.cotangent != 0:
        blocks.copy(block(spec, spec.cotangent), 0, g, 0, count(x))
        e = spec.cotangent_exponent
    else:
        blocks.draw_tall(
            g, n, B, False, spec.key0, spec.key1, stream_address(spec.depth, stream.COTANGENT), np.uint32(replica)
        )
        blocks.multiply_by(g, count(x), 1 / math.sqrt(n * B))
    x[E] = blocks.scale(g, count(x), rounding.loss_scale(spec), e, spec.bound)
    x[HELD] = 1


@jit
def save(spec, work, s):
    """Keep what the forward pass needs to begin segment s again, and begin its tape."""
    x, facts = slot(work, 0), pointer(work.checkpoint_facts + 24 * s, 1)
    blocks.copy(block(spec, x[BLOCK]), 0, advance(block(spec, work.checkpoints), s * work.checkpoint_size), 0, count(x))
    facts[0], facts[1], facts[2] = x[UNITS], x[COLUMNS], x[E]
    pointer(work.state, 1)[TOP] = 0


@jit
def resume(spec, work, s):
    """Go back to the beginning of segment s. The gradient of register 0 waits in a slot of its own until it is over."""
    swap(work, 0, spec.registers)
    x, facts, state = slot(work, 0), pointer(work.checkpoint_facts + 24 * s, 1), pointer(work.state, 1)
    shape(x, facts[0], facts[1])
    x[E] = facts[2]
    blocks.copy(advance(block(spec, work.checkpoints), s * work.checkpoint_size), 0, block(spec, x[BLOCK]), 0, count(x))
    state[TOP], state[KNOWN] = 0, -1


@jit
def forward(spec, work, s, replica, index):
    """The repetitions of segment s."""
    stretch, kernels = spec.stretches, pointer(spec.kernels, 1)
    whole = advance(kernels, KERNELS * len(KINDS))
    for q in range(entry(work.cuts, s), entry(work.cuts, s + 1)):
        if stopped(spec):
            return
        while q >= entry(stretch, STRETCH + START):
            stretch += 8 * STRETCH
        for o in range(entry(stretch, OPS)):
            op = spec.ops + 8 * OP * (entry(stretch, FIRST_OP) + o)
            k = entry(op, FIRST) + (q - entry(stretch, START)) * entry(op, EACH)
            f = advance(kernels, KERNELS * entry(op, KIND))
            call(f[0], spec, work, op, k, replica, index)
            if f[1] != 0:
                call(f[1], spec, work, op, k, replica, 0, 0, ALL)
                call(f[2], spec, work, op, k, replica, index)
            if spec.formats != 0 and entry(op, KIND) != spec.node_kind:
                call(whole[STORE_SIGNAL], spec, work, op, q - entry(stretch, START))


@jit
def backward(spec, work, s, replica, index):
    """The repetitions of segment s, the last first."""
    stretch, kernels = spec.stretches, pointer(spec.kernels, 1)
    whole = advance(kernels, KERNELS * len(KINDS))
    while entry(stretch, STRETCH + START) < entry(work.cuts, s + 1):
        stretch += 8 * STRETCH
    for q in range(entry(work.cuts, s + 1) - 1, entry(work.cuts, s) - 1, -1):
        if stopped(spec):
            return
        while q < entry(stretch, START):
            stretch -= 8 * STRETCH
        for o in range(entry(stretch, OPS) - 1, -1, -1):
            op = spec.ops + 8 * OP * (entry(stretch, FIRST_OP) + o)
            k = entry(op, FIRST) + (q - entry(stretch, START)) * entry(op, EACH)
            f = advance(kernels, KERNELS * entry(op, KIND) + KERNELS // 2)
            if spec.formats != 0 and entry(op, KIND) != spec.node_kind:
                call(whole[STORE_GRADIENT], spec, work, op)
            call(f[0], spec, work, op, k, replica, index)
            if f[1] != 0:
                call(f[1], spec, work, op, k, replica, 0, 0, ALL)
                call(f[2], spec, work, op, k, replica, index)


@jit
def restore(spec, work, s):
    """The gradient of register 0 takes its place again."""
    swap(work, 0, spec.registers)


@jit
def finish(spec, work, index):
    """The row of the input's gradient, and those of sums over uses."""
    totals.finish(spec, work, index)
    rounding.store_block(spec, work, 0, rounding.GRADIENTS)
    put(spec, GRAD_ACTIVATION, index, 0, log10_norm(spec, slot(work, 0)))


@jit
def replicas(spec, work, first, start, stop, parts):
    """Replicas first + start .. first + stop - 1 into rows start ..; parts: 1 forward, 2 cotangent, 4 backward."""
    whole = advance(pointer(spec.kernels, 1), KERNELS * len(KINDS))
    for index in range(start, stop):
        r = first + index
        if parts & 1:
            call(whole[BEGIN], spec, work, r)
            for s in range(work.segments):
                if work.segments > 1:
                    call(whole[SAVE], spec, work, s)
                forward(spec, work, s, r, index)
        if parts & 2:
            call(whole[COTANGENT], spec, work, r)
        if parts & 4:
            for s in range(work.segments - 1, -1, -1):
                if s < work.segments - 1:
                    call(whole[RESUME], spec, work, s)
                    forward(spec, work, s, r, index)
                    call(whole[RESTORE], spec, work, s)
                backward(spec, work, s, r, index)
            if not stopped(spec):
                call(whole[FINISH], spec, work, index)


def kernels(dtype, kinds):
    """Addresses of what the loop calls for these kinds of ops in a dtype, int64; 0 for what there is not."""
    records = record_type(ops.spec_dtype(dtype)), record_type(work_dtype())
    address = lambda kernel, numbers: address_of(kernel, (*records, *([types.int64] * numbers)))
    out = np.zeros((len(KINDS), KERNELS), np.int64)
    for kind in kinds:
        module, place = ops.OPS[kind], out[KINDS.index(kind)]
        for at, functions in ((0, module.FORWARD), (KERNELS // 2, module.BACKWARD)):
            for i, kernel in enumerate(functions):
                place[at + i] = address(kernel, 6 if i == 1 else 4)
    whole = ((begin, 1), (cotangent, 1), (save, 1), (resume, 1), (restore, 1), (finish, 1))
    whole = (*whole, (rounding.store_signal, 2), (rounding.store_gradient, 1))
    return np.concatenate([out.ravel(), [address(kernel, numbers) for kernel, numbers in whole]])
