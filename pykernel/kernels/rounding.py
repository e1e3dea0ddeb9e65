# SPDX-License-Identifier: BSD-3-Clause
"""Number formats in Numba: what a run stores, and how far that is from the run without formats, whose nodes are kept.

`spec.formats` is the address of numbers: of weights, signals and gradients FRACTION (0: not rounded), LOWEST, LARGEST
and BEYOND, then the loss scale. `spec.compares`: NEITHER, KEPT by a run without formats, or COMPARED with what it kept.
"""

from __future__ import annotations

import math

import numpy as np

from pykernel.kernels import blocks, inline, jit
from pykernel.kernels.blocks import LOG10_2
from pykernel.kernels.lanes import (
    absolute,
    fma,
    greater,
    larger,
    largest,
    less,
    smaller,
    spread,
    to_format,
    total,
    where,
    widen,
)
from pykernel.kernels.memory import advance, cast_like, load, pointer, store, zero_like
from pykernel.kernels.records import (
    BLOCK,
    COLUMNS,
    EACH,
    FIRST,
    IN,
    KIND,
    OP,
    OUT,
    ROW,
    UNITS,
    E,
    block,
    count,
    entry,
    number,
    put,
    slot,
)

WORDS = ("weights", "signals", "gradients")
WEIGHTS, SIGNALS, GRADIENTS, LOSS_SCALE = 0, 4, 8, 12
FRACTION, LOWEST, LARGEST, BEYOND = range(4)
NEITHER, KEPT, COMPARED = range(3)
APART = 200  # powers of two between two blocks whose difference is taken as it stands
MOST = 2200  # powers of two that a block is moved by: beyond, all is inf or zero
NAMES = ("flushed", "overflowed", "log10_error", "log10_smallest", "log10_largest")
SIGNAL_ROWS, GRADIENT_ROWS = (tuple(ROW[f"{name}_{what}"] for name in NAMES) for what in ("signal", "gradient"))
COSINE = ROW["gradient_cosine"]


def table(formats):
    """The numbers of a program's formats, float64."""
    if formats is None:
        return None
    found = []
    for word in WORDS:
        row = formats.row(word)
        if row is None:
            found += [0.0, 0.0, math.inf, math.inf]
        else:
            beyond = math.inf if row.infinite and formats.overflow == "inf" else row.largest
            found += [row.fraction, row.lowest, row.largest, beyond]
    return np.array([*found, formats.loss_scale])


@inline
def rounds(spec, word):
    """Whether weights, signals or gradients are rounded."""
    return spec.formats != 0 and number(spec.formats, word) != 0.0


@inline
def loss_scale(spec):
    """What the objective is multiplied with."""
    return number(spec.formats, LOSS_SCALE) if spec.formats != 0 else 1.0


@inline
def _held(e):
    """A power of two as far as math.ldexp needs it."""
    return min(max(e, -MOST), MOST)


@jit
def round_all(x, size, scale, fraction, lowest, most, beyond):
    """`size` numbers times a scale, as a format holds them."""
    f = spread(cast_like(scale, x))
    for i in range(0, size, 16):
        store(x, i, to_format(load(x, i) * f, fraction, lowest, most, beyond))


@inline
def round_weights(spec, tile, size, scale):
    """A tile of unit draws as weights of that scale are stored."""
    of = advance(pointer(spec.formats, 1.0), WEIGHTS)
    round_all(tile, size, scale, int(of[FRACTION]), int(of[LOWEST]), of[LARGEST], of[BEYOND])


@jit
def store_numbers(spec, numbers, e, size, word):
    """A block as it is stored; the exponent."""
    of = advance(pointer(spec.formats, 1.0), word)
    blocks.shift(numbers, size, _held(e))
    round_all(numbers, size, 1.0, int(of[FRACTION]), int(of[LOWEST]), of[LARGEST], of[BEYOND])
    return blocks.renormalise(numbers, size, 0, spec.bound)


@jit
def store_block(spec, work, s, word):
    """The block of slot s as it is stored; its exponent goes into the numbers, which formats bound."""
    if not rounds(spec, word):
        return
    x = slot(work, s)
    x[E] = store_numbers(spec, block(spec, x[BLOCK]), x[E], count(x), word)


@jit
def store_signal(spec, work, op, repetition):
    """What an op has made in a repetition, unless what comes next stores it: a node, or a step that passes formats."""
    following = op + 8 * OP
    kind = entry(following, KIND)
    if entry(following, IN) == entry(op, OUT):
        if kind == spec.node_kind:
            return
        number = entry(following, FIRST) + repetition * entry(following, EACH)
        if kind == spec.phi_kind and entry(spec.passes, number) != 0:
            return
    store_block(spec, work, entry(op, OUT), SIGNALS)


@jit
def store_gradient(spec, work, op):
    """The gradient of what an op has made."""
    store_block(spec, work, entry(op, OUT), GRADIENTS)


@jit
def pass_signal(spec, work, r, k, index):
    """Node k (from 0) of the signal, in register r: kept, or compared and stored."""
    if spec.compares == KEPT:
        _keep(spec, work, r, k)
    elif spec.compares == COMPARED:
        _compare(spec, work, r, k, k, index, SIGNALS, 1.0, SIGNAL_ROWS)
        store_block(spec, work, r, SIGNALS)


@jit
def pass_gradient(spec, work, r, k, index):
    """Node k of the gradient, the same."""
    place = spec.nodes + k
    if spec.compares == KEPT:
        _keep(spec, work, r, place)
    elif spec.compares == COMPARED:
        cosine = _compare(spec, work, r, place, k, index, GRADIENTS, 1.0 / loss_scale(spec), GRADIENT_ROWS)
        put(spec, COSINE, index, k, cosine)
        store_block(spec, work, r, GRADIENTS)


@inline
def _kept(spec, work, place):
    return advance(block(spec, work.nodes), place * work.checkpoint_size)


@inline
def _keep(spec, work, r, place):
    x = slot(work, r)
    pointer(work.node_exponents, 1)[place] = x[E]
    blocks.copy(block(spec, x[BLOCK]), 0, _kept(spec, work, place), 0, count(x))


@inline
def _order(x, size):
    """log2 of the largest magnitude, 0 where that is zero or inf."""
    largest_size = blocks.top(x, size)
    return math.frexp(largest_size)[1] if largest_size < math.inf else 0


@jit
def _compare(spec, work, r, place, k, index, word, factor, rows):
    """The rows of a node before it is rounded; the cosine with what was kept."""
    x, of = slot(work, r), advance(pointer(spec.formats, 1.0), word)
    numbers, plain, size = block(spec, x[BLOCK]), _kept(spec, work, place), count(x)
    e, e_plain, rounded = x[E], entry(work.node_exponents, place), rounds(spec, word)
    shift = _held(e)
    fraction, lowest = int(of[FRACTION]), min(max(int(of[LOWEST]) - shift, -120), 60)
    most = math.ldexp(of[LARGEST], -shift)
    # of the numbers without formats the largest is of order one here, of the others 2^-APART to 2^APART
    order = _order(plain, size)
    apart = e - e_plain - order if blocks.top(numbers, size) != 0.0 else 0  # zero has no size
    top = apart + _order(numbers, size)
    near = min(max(top, -APART), APART)
    f, f_plain = spread(math.ldexp(factor, _held(apart + near - top))), spread(math.ldexp(1.0, -order))
    none, one, zero, inf = spread(0.0), spread(1.0), zero_like(numbers), spread(cast_like(math.inf, numbers))
    error, squares, plain_squares, product, flushed, overflowed = none, none, none, none, none, none
    low, high, beyond = inf, zero, spread(most)
    for i in range(0, size, 16):
        v = load(numbers, i)
        a, b = widen(v) * f, widen(load(plain, i)) * f_plain
        d = a - b
        error, squares = fma(d, d, error), fma(a, a, squares)
        plain_squares, product = fma(b, b, plain_squares), fma(a, b, product)
        magnitude = absolute(v)
        finite = less(magnitude, inf)
        alive = greater(where(finite, magnitude, zero), zero)
        after = absolute(to_format(v, fraction, lowest, most, math.inf)) if rounded else magnitude
        flushed = flushed + where(alive, where(greater(after, zero), none, one), none)
        overflowed = overflowed + where(alive, where(less(widen(after), beyond), none, one), none)
        low = smaller(where(alive, magnitude, inf), low)
        high = larger(where(alive, magnitude, zero), high)
    entries, decades = x[UNITS] * x[COLUMNS], LOG10_2 * e
    smallest = -float(largest(low * cast_like(-1.0, numbers)))
    put(spec, rows[0], index, k, total(flushed) / entries)
    put(spec, rows[1], index, k, total(overflowed) / entries)
    decades_apart = LOG10_2 * max(0, top - near)
    put(spec, rows[2], index, k, np.log10(np.sqrt(total(error)) / np.sqrt(total(plain_squares))) + decades_apart)
    put(spec, rows[3], index, k, np.log10(smallest) + decades if smallest < math.inf else -math.inf)
    put(spec, rows[4], index, k, np.log10(float(largest(high))) + decades)
    return total(product) / (np.sqrt(total(squares)) * np.sqrt(total(plain_squares)))
