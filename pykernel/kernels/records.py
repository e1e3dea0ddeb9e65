# SPDX-License-Identifier: BSD-3-Clause
"""What ops and their loop share: a program and a replica's room as records of numbers and addresses; registers; tape.

Arrays as arguments cost minutes of compilation, and counting references at each call. Letters as in docs/design.md; B
is the number of columns of a block.
"""

from __future__ import annotations

import functools
import zlib

import numpy as np
from numba.np.numpy_support import from_dtype

from pykernel import observables
from pykernel.kernels import blocks, inline
from pykernel.kernels.memory import pointer

# Places of the rows in their array; not plain ints: Numba would compile once for each literal.
ROW = {name: np.int64(i) for i, name in enumerate(observables.NAMES)}

_INT, _FLOAT, _WORD = np.int64, np.float64, np.uint32
# A program, read only, shared by all threads; addresses are those of arrays. `stride`: numbers of a replica in a row.
# `item`: bytes of a number in the dtype of the run, which is that of `zero`.
SPEC = {
    **dict.fromkeys(("count", "stride", "registers", "units", "columns", "depth", "item", "bound"), _INT),
    **dict.fromkeys(("correlation", "clip"), _FLOAT),
    **dict.fromkeys(("key0", "key1"), _WORD),
    **dict.fromkeys(("stretches", "ops", "kernels", "rows", "stop"), _INT),
    # the rows that ops name: activation functions (see `activate`) and norms
    **dict.fromkeys(("facts", "calls", "norm_kind", "norm_eps"), _INT),
    **dict.fromkeys(("x", "x_exponent", "cotangent", "cotangent_exponent"), _INT),
    # number formats, see `rounding`; how many nodes there are; the kinds of op of nodes and activation steps, and which
    # steps pass formats
    **dict.fromkeys(("formats", "compares", "nodes", "node_kind", "phi_kind", "passes"), _INT),
    # distinct weights where layers share some, else 0
    "weights": _INT,
}
# What one replica needs while it runs. slots: addresses of facts, see SLOT; state: see STATE; cuts: first repetition of
# each segment, and the end. tiles, mixed: room of each worker's product. wide0 .. wide2: a block of float64 each; mix:
# room of attention. gram, gram_delta, gram_u: Gram matrices, the first that of register state[KNOWN]. kept:
# transposed tiles of weights, of a layer at kept_at (-1: drawn again). matrix, scratch0, scratch1, line: room for Haar
# weights. checkpoints: register 0 where each segment begins, `checkpoint_size` apart, with `checkpoint_facts`. nodes:
# where formats are compared, what the run without them has at nodes, signals before gradients, as far apart, with
# `node_exponents`. totals, bias_totals: gradients of shared weights summed over uses, float64, with `total_exponents`.
WORK = dict.fromkeys(
    (
        *(
            "slots",
            "state",
            "tape",
            "vector",
            "tiles",
            "mixed",
            "wide0",
            "wide1",
            "wide2",
            "gram",
            "gram_delta",
            "gram_u",
            "mix",
        ),
        *("kept", "kept_at", "matrix", "scratch0", "scratch1", "line"),
        *("segments", "cuts", "checkpoints", "checkpoint_size", "checkpoint_facts", "nodes", "node_exponents"),
        *("totals", "bias_totals", "total_exponents"),
    ),
    _INT,
)
# A slot holds a block: forward that of a register, backward its gradient. Slots of the registers come first, then the
# gradient of register 0 while a segment is computed again, then two of room.
BLOCK, E, UNITS, COLUMNS, HELD, SLOT = range(6)
ROOM = 3
TOP, KNOWN, STATE = range(3)
# An op of the program: KIND is a place in `ops.KINDS`, its number in repetition i is FIRST + i * EACH. A stretch: its
# first op, how many, its first repetition among all.
KIND, OUT, IN, SECOND_IN, THIRD_IN, FIRST, EACH, OP = range(8)
FIRST_OP, OPS, START, STRETCH = range(4)
# Behind what an op keeps on the tape: where that begins, and of what shape and exponents it is.
BEGINS, KEPT_UNITS, KEPT_COLUMNS, KEPT_E, KEPT_E2, KEPT_E3, FOOT = range(7)


def spec_dtype(dtype, numbers):
    """The structured dtype of SPEC for a run in `dtype`; numbers: names of what ops have of their own, see `ops`."""
    return np.dtype([*SPEC.items(), *((name, _INT) for name in numbers), ("zero", dtype)], align=True)


def work_dtype():
    """The structured dtype of WORK."""
    return np.dtype([*WORK.items()], align=True)


@functools.cache
def record_type(dtype):
    """Numba's type of a structured dtype, kept alive under a number that does not depend on the process.

    Numba names compiled functions by the number at which a process first met a record type. Machine code that another
    process wrote to the cache, having met float32 and float64 in the other order, would then answer for the wrong one.
    """
    found = from_dtype(dtype)
    found._code = 1 << 30 | zlib.crc32(str(found).encode()) >> 2
    return found


@inline
def entry(table, i):
    """Entry i of the int64 array at an address."""
    return pointer(table, 1)[i]


@inline
def number(table, i):
    """Entry i of the float64 array at an address."""
    return pointer(table, 1.0)[i]


@inline
def put(spec, row, index, column, value):
    """An entry of a row, of replica `index` of the run."""
    pointer(spec.rows, 1.0)[(row * spec.count + index) * spec.stride + column] = value


@inline
def stopped(spec):
    """Whether somebody has asked the run to end."""
    return pointer(spec.stop, 1)[0] != 0


@inline
def block(spec, address):
    """The block at an address, in the dtype of the run."""
    return pointer(address, spec.zero)


@inline
def stream_address(layer, purpose):
    """Word c2 of a counter, see docs/design.md section 3."""
    return np.uint32(layer | purpose << 24)


# -- registers


@inline
def slot(work, s):
    """The facts of a slot."""
    return pointer(entry(work.slots, s), 1)


@inline
def first(spec):
    """A slot of room."""
    return spec.registers + 1


@inline
def second(spec):
    """Another slot of room."""
    return spec.registers + 2


@inline
def count(x):
    """Numbers in the block of a slot."""
    return blocks.size(x[UNITS], x[COLUMNS])


@inline
def square(spec, x):
    """Sum of the squares of a slot's block."""
    return blocks.sum_of_squares(block(spec, x[BLOCK]), count(x))


@inline
def log10_norm(spec, x):
    """log10 of the Frobenius norm of a slot's block."""
    return blocks.log10_norm(square(spec, x), x[E])


@inline
def shape(x, units, columns):
    """Make room for a block of so many units and columns."""
    x[UNITS] = units
    x[COLUMNS] = columns


@inline
def swap(work, r, s):
    """Exchange the blocks of two slots."""
    slots = pointer(work.slots, 1)
    slots[r], slots[s] = slots[s], slots[r]


@inline
def copy(spec, work, r, s):
    """Slot s becomes what slot r is."""
    x, y = slot(work, r), slot(work, s)
    shape(y, x[UNITS], x[COLUMNS])
    y[E] = x[E]
    blocks.copy(block(spec, x[BLOCK]), 0, block(spec, y[BLOCK]), 0, count(x))


@inline
def write(work, r, s):
    """Register r becomes what slot s of room holds."""
    swap(work, r, s)
    state = pointer(work.state, 1)
    if state[KNOWN] == r:
        state[KNOWN] = -1


@inline
def take(spec, work, r):
    """The gradient of register r goes into the first slot of room; the register has none then."""
    swap(work, r, first(spec))
    slot(work, first(spec))[HELD] = 0


@inline
def give(spec, work, r, s):
    """Add what slot s of room holds to the gradient of register r."""
    held, given = slot(work, r), slot(work, s)
    if held[HELD]:
        n = count(given)
        given[E] = blocks.add(block(spec, given[BLOCK]), given[E], block(spec, held[BLOCK]), held[E], n, spec.bound)
        held[HELD] = 0
    swap(work, r, s)
    slot(work, r)[HELD] = 1


# -- the tape: what an op keeps for its backward pass, last in, first out


@inline
def push(work, size, units, columns):
    """The foot of so many bytes on the tape, to be filled with exponents; the bytes begin at tape + foot[BEGINS]."""
    state = pointer(work.state, 1)
    foot = pointer(work.tape + state[TOP] + size, 1)
    foot[BEGINS] = state[TOP]
    shape_kept(foot, units, columns)
    state[TOP] += size + 8 * FOOT
    return foot


@inline
def shape_kept(foot, units, columns):
    """Note the shape of what is kept."""
    foot[KEPT_UNITS] = units
    foot[KEPT_COLUMNS] = columns


@inline
def pop(work):
    """The foot of what was kept last."""
    state = pointer(work.state, 1)
    foot = pointer(work.tape + state[TOP] - 8 * FOOT, 1)
    state[TOP] = foot[BEGINS]
    return foot
