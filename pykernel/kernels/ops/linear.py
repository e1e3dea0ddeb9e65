# SPDX-License-Identifier: BSD-3-Clause
"""A layer of weights: z = W u + b, and back W^T delta. Only products cost n^2; they take a range, for a team."""

from __future__ import annotations

import math

import numpy as np
from numba.extending import register_jitable

from pykernel import stream
from pykernel.kernels import blocks, draws, inline, jit, product, rounding, totals
from pykernel.kernels.memory import advance, cast_like, pointer
from pykernel.kernels.records import (
    BEGINS,
    BLOCK,
    COLUMNS,
    IN,
    KEPT_E,
    KEPT_UNITS,
    KNOWN,
    OUT,
    ROW,
    UNITS,
    E,
    block,
    count,
    entry,
    first,
    give,
    log10_norm,
    number,
    pop,
    push,
    put,
    second,
    shape,
    slot,
    square,
    stopped,
    stream_address,
    take,
    write,
)
from pykernel.program import BIASES, forms_gradient

MEAN_SQUARE, GRAD = ROW["log10_mean_square_preactivation"], ROW["log10_grad_preactivation"]
GRAD_WEIGHT, GRAD_BIAS, FACTOR = ROW["log10_grad_weight"], ROW["log10_grad_bias"], ROW["log10_weight_factor"]
ZERO, _, UNIFORM, GIVEN = (BIASES.index(name) for name in ("zero", "normal", "uniform", "given"))
DRAWS = {name: i for i, name in enumerate(draws.NAMES)} | {
    "identity": product.IDENTITY,
    "constant": product.CONSTANT,
    "haar": product.HAAR,
}
NUMBERS = (
    *("layer_units", "layer_address", "layer_draw", "layer_parameter", "layer_scale", "layer_centred"),
    *("layer_groups", "layer_taps", "layer_forms"),
    *("matrices", "matrix_at", "bias_draw", "bias_scale", "biases", "bias_at"),
    *totals.NUMBERS,
)


def numbers(program):
    """What the layers are (centred over so many columns at a time, 0 for none), and the caller's arrays one after
    another with the places where they begin."""
    layers = program.layers
    parameter = np.array([draw.parameter for draw in program.draws], np.float64)[layers.draw]
    matrices, biases = (_joined(arrays, program.depth) for arrays in (program.weights, program.biases))
    columns = program.batch * layers.positions
    centred = np.select([layers.centred == 1, layers.centred == 2], [columns, layers.positions], 0)  # of CENTRED
    facts = layers.units, layers.address, drawn_by(program), parameter, layers.scale, centred.astype(np.int64)
    grouping = layers.groups, layers.taps, _forms(program).astype(np.int64)
    return *facts, *grouping, *matrices, layers.bias_draw, layers.bias_scale, *biases, *totals.numbers(program)


def _forms(program):
    """Of each layer, whether the norm of dJ/dW is taken of dJ/dW itself."""
    layers = program.layers
    return forms_gradient(layers, np.arange(program.depth), program.batch * layers.positions)


def drawn_by(program):
    """What each layer's weights are drawn by, a number of `draws` or `product`; the caller's own are given."""
    drawn = np.array([DRAWS.get(draw.distribution, product.MATRIX) for draw in program.draws], np.int64)[
        program.layers.draw
    ]
    if program.weights is not None:
        drawn[[array is not None for array in program.weights]] = product.MATRIX
    return drawn


def _joined(arrays, depth):
    """The caller's arrays one after another, float64, and where each begins."""
    if arrays is None:
        return np.zeros(1), np.zeros(depth, np.int64)
    flat = [np.zeros(0) if array is None else np.ravel(array) for array in arrays]
    lengths = np.array([len(array) for array in flat])
    return np.concatenate([*flat, np.zeros(1)]), np.cumsum(lengths) - lengths


def tape(program, number, n, B, item):
    """Bytes on the tape."""
    return kept(n, B, item, program.clip_value > 0 or program.counts.weight > 0, _forms(program)[number])


def result(program, number, n, B):
    """Units and columns of the result."""
    return program.layers.units[number], B


@register_jitable
def keeps_inputs(n, B, item, wanted, forms):
    """Whether the tape holds u, not its Gram matrix: where it is wanted, or for dJ/dW, and where columns outnumber
    units."""
    return wanted | (forms != 0) | (item * ((n + 15) // 16 * 16) < 8 * B)


@register_jitable
def kept(n, B, item, wanted, forms):
    """Bytes on the tape for an input of n units and B columns; forms: whether dJ/dW is formed."""
    u = keeps_inputs(n, B, item, wanted, forms)
    return u * ((n + 15) // 16 * 16 * B * item) + (1 - u) * (8 * B * B)


@inline
def _wanted(spec):
    """Whether the backward pass needs the input itself: for clipped entries and sums over uses."""
    return (spec.clip != 0.0) | (spec.weights > 0)


@jit
def _keep(spec, work, op, l):
    """u or its Gram matrix onto the tape."""
    r = entry(op, IN)
    x = slot(work, r)
    n, B, u = x[UNITS], x[COLUMNS], block(spec, x[BLOCK])
    panels, forms = (n + 15) // 16, entry(spec.layer_forms, l)
    foot = push(work, kept(n, B, spec.item, _wanted(spec), forms), n, B)
    foot[KEPT_E] = x[E]
    to = work.tape + foot[BEGINS]
    if keeps_inputs(n, B, spec.item, _wanted(spec), forms):
        blocks.copy(u, 0, block(spec, to), 0, panels * B * 16)
        return
    out, known, state = pointer(to, 1.0), pointer(work.gram, 1.0), pointer(work.state, 1)
    if entry(spec.layer_centred, l):
        centred = block(spec, slot(work, first(spec))[BLOCK])
        blocks.centre(u, centred, panels, B, entry(spec.layer_centred, l))
        blocks.gram(centred, panels, B, out)
        return
    if state[KNOWN] != r:
        blocks.gram(u, panels, B, known)
        state[KNOWN] = r
    for i in range(B * B):
        out[i] = known[i]


@inline
def _is_haar(spec, l):
    return entry(spec.layer_draw, l) == product.HAAR


@inline
def _haar(spec, work, l, n_in, replica):
    q, v, out = pointer(work.matrix, 1.0), pointer(work.scratch0, 1.0), pointer(work.scratch1, 1.0)
    line, n_out = pointer(work.line, np.float32(0)), entry(spec.layer_units, l)
    c2 = stream_address(entry(spec.layer_address, l), stream.WEIGHT)
    taps = entry(spec.layer_taps, l) if number(spec.layer_parameter, l) > 0.0 else 1
    product.haar(q, v, out, line, n_out, n_in // taps, spec.key0, spec.key1, c2, np.uint32(replica))
    if taps > 1:
        product.set_apart(q, n_out, n_in // taps, taps)


@inline
def _matrix(spec, work, l):
    return (
        pointer(work.matrix, 1.0)
        if _is_haar(spec, l)
        else advance(pointer(spec.matrices, 1.0), entry(spec.matrix_at, l))
    )


@inline
def _weights(spec, l, replica):
    """Where the weights of a layer are drawn."""
    address = entry(spec.layer_address, l)
    return (
        spec.key0,
        spec.key1,
        stream_address(address, stream.WEIGHT),
        stream_address(address, stream.MASK),
        np.uint32(replica),
    )


@inline
def _scale(spec, l):
    """What products are multiplied with: rounded weights have their scale in them."""
    return 1.0 if rounding.rounds(spec, rounding.WEIGHTS) else number(spec.layer_scale, l)


@jit
def open_forward(spec, work, op, l, replica, index):
    """What the product needs: u on the tape, room for z."""
    _keep(spec, work, op, l)
    u = slot(work, entry(op, IN))
    shape(slot(work, first(spec)), entry(spec.layer_units, l), u[COLUMNS])
    if _is_haar(spec, l):
        _haar(spec, work, l, u[UNITS] // entry(spec.layer_groups, l), replica)


@jit
def multiply_forward(spec, work, op, l, replica, worker, p0, p1):
    """Panels p0 .. p1 - 1 of the unit draw of W times u."""
    x, y = slot(work, entry(op, IN)), slot(work, first(spec))
    n_in, n_out, B, u, z = x[UNITS], y[UNITS], x[COLUMNS], block(spec, x[BLOCK]), block(spec, y[BLOCK])
    kept_tiles, tile = block(spec, work.kept), advance(block(spec, work.tiles), worker * 4 * product.CHUNK * 16)
    height, at = (n_out + 15) // 16 * 16, entry(work.kept_at, l)
    draw, parameter, matrix = entry(spec.layer_draw, l), number(spec.layer_parameter, l), _matrix(spec, work, l)
    where = _weights(spec, l, replica)
    p1 = min(p1, height // 16)
    blocks.clear(advance(z, p0 * 16 * B), (p1 - p0) * 16 * B)
    groups, taps = entry(spec.layer_groups, l), entry(spec.layer_taps, l)
    n_in //= groups
    for p in range(p0, p1):
        if stopped(spec):
            return
        for k in range(0, n_in, product.CHUNK):
            terms = min(product.CHUNK, (n_in + 15) // 16 * 16 - k)
            if draw < draws.COUNT:
                product.draw_rows(tile, draw, parameter, where, 16 * p, k, terms, n_in)
            else:
                product.fill_rows(tile, draw, matrix, 16 * p, k, terms, n_out, n_in)
            if rounding.rounds(spec, rounding.WEIGHTS):
                rounding.round_weights(spec, tile, 16 * terms, number(spec.layer_scale, l))
            if groups > 1:
                product.multiply_groups(tile, min(terms, n_in - k), k, p, n_out, n_in, groups, taps, u, z, B, False)
                continue
            product.multiply(tile, terms, u, k, z, p, B)
            if at >= 0:
                product.turn(tile, terms, kept_tiles, at + k * height, 16 * p, height)


@jit
def close_forward(spec, work, op, l, replica, index):
    """z from the product of unit draws."""
    x = slot(work, first(spec))
    n, B, z = x[UNITS], x[COLUMNS], block(spec, x[BLOCK])
    panels = (n + 15) // 16
    blocks.clear_padding(z, n, B)
    e = blocks.scale(z, count(x), _scale(spec, l), slot(work, entry(op, IN))[E], spec.bound)
    kind = entry(spec.bias_draw, l)
    if kind != ZERO:
        v = block(spec, work.vector)
        if kind == GIVEN:
            blocks.clear(v, panels * 16)
            for i in range(n):
                v[i] = cast_like(number(spec.biases, entry(spec.bias_at, l) + i), v)
        else:
            c2 = stream_address(entry(spec.layer_address, l), stream.BIAS)
            blocks.draw_tall(v, n, 1, kind == UNIFORM, spec.key0, spec.key1, c2, np.uint32(replica))
        e_v = blocks.scale(v, panels * 16, number(spec.bias_scale, l), 0, spec.bound)
        e = blocks.add_vector(z, e, v, e_v, panels, B, spec.bound)
    x[E] = e
    put(spec, MEAN_SQUARE, index, l, 2 * blocks.log10_norm(square(spec, x) / (n * B), e))
    write(work, entry(op, OUT), first(spec))


@jit
def open_backward(spec, work, op, l, replica, index):
    """delta, the rows of the parameter gradients, and room for W^T delta."""
    take(spec, work, entry(op, OUT))
    foot = pop(work)
    x, y = slot(work, first(spec)), slot(work, second(spec))
    n, n_in, B, delta = x[UNITS], foot[KEPT_UNITS], x[COLUMNS], block(spec, x[BLOCK])
    panels, panels_in, at = (n + 15) // 16, (n_in + 15) // 16, work.tape + foot[BEGINS]
    put(spec, GRAD, index, l, log10_norm(spec, x))
    shape(y, n_in, B)
    groups, taps, forms = entry(spec.layer_groups, l), entry(spec.layer_taps, l), entry(spec.layer_forms, l)
    clip = spec.clip if spec.weights == 0 else 0.0  # of shared weights the totals are clipped
    if clip != 0.0 or groups > 1:
        bound = clip if clip != 0.0 else math.inf
        weight, bias = blocks.clipped_norms(
            delta, block(spec, at), n, n_in // groups, groups, taps, B, x[E], foot[KEPT_E], bound
        )
    elif forms:
        weight = blocks.log10_norm(blocks.outer_square(delta, block(spec, at), panels, n_in, B), x[E] + foot[KEPT_E])
        bias = blocks.log10_norm(blocks.batch_sum_square(delta, panels, B), x[E])
        if spec.weights > 0:
            totals.add(spec, work, l, delta, x[E], block(spec, at), foot[KEPT_E], n, n_in, B)
    else:
        mine, theirs = pointer(work.gram_delta, 1.0), pointer(at, 1.0)
        blocks.gram(delta, panels, B, mine)
        if keeps_inputs(n_in, B, spec.item, _wanted(spec), forms):
            u, theirs = block(spec, at), pointer(work.gram_u, 1.0)
            if entry(spec.layer_centred, l):
                centred = block(spec, y[BLOCK])
                blocks.centre(u, centred, panels_in, B, entry(spec.layer_centred, l))
                u = centred
            blocks.gram(u, panels_in, B, theirs)
            if spec.weights > 0:
                totals.add(spec, work, l, delta, x[E], u, foot[KEPT_E], n, n_in, B)
        weight = blocks.log10_norm(blocks.gram_product(mine, theirs, B * B), x[E] + foot[KEPT_E])
        bias = blocks.log10_norm(blocks.batch_sum_square(delta, panels, B), x[E])
    put(spec, GRAD_WEIGHT, index, l, weight)
    put(spec, GRAD_BIAS, index, l, bias)
    if _is_haar(spec, l) and entry(work.kept_at, l) < 0:
        _haar(spec, work, l, n_in // groups, replica)


@jit
def multiply_backward(spec, work, op, l, replica, worker, group0, group1):
    """Units 64 group0 .. 64 group1 - 1 of the unit draw of W, transposed, times delta."""
    x, y = slot(work, first(spec)), slot(work, second(spec))
    n_out, n_in, B, delta, out = x[UNITS], y[UNITS], x[COLUMNS], block(spec, x[BLOCK]), block(spec, y[BLOCK])
    height, panels, at = (n_out + 15) // 16 * 16, (n_in + 15) // 16, entry(work.kept_at, l)
    group1 = min(group1, (panels + 3) // 4)
    if entry(spec.layer_groups, l) > 1:
        if group0 == 0 and group1 > 0:  # rows share units, so one worker has them all
            _multiply_groups_back(spec, work, l, replica, worker)
        return
    if at >= 0:
        tiles, p0, p1 = block(spec, work.kept), 4 * group0, min(4 * group1, panels)
        blocks.clear(advance(out, p0 * 16 * B), (p1 - p0) * 16 * B)
        for p in range(p0, p1):
            if stopped(spec):
                return
            for i in range(0, height, product.CHUNK):
                product.multiply(
                    advance(tiles, at + (p * height + i) * 16), min(product.CHUNK, height - i), delta, i, out, p, B
                )
        return
    tile, mixed = (
        advance(block(spec, work.tiles), worker * 4 * product.CHUNK * 16),
        advance(block(spec, work.mixed), worker * 64 * B),
    )
    draw, parameter, matrix = entry(spec.layer_draw, l), number(spec.layer_parameter, l), _matrix(spec, work, l)
    where = _weights(spec, l, replica)
    for group in range(group0, group1):
        if stopped(spec):
            return
        blocks.clear(mixed, 64 * B)
        for i in range(0, height, product.CHUNK):
            terms = min(product.CHUNK, height - i)
            if draw < draws.COUNT:
                product.draw_columns(tile, draw, parameter, where, i, group, terms, n_out)
            else:
                product.fill_columns(tile, draw, matrix, i, group, terms, n_out, n_in)
            if rounding.rounds(spec, rounding.WEIGHTS):
                rounding.round_weights(spec, tile, 64 * terms, number(spec.layer_scale, l))
            for w in range(4):
                product.multiply(advance(tile, w * terms * 16), terms, delta, i, mixed, w, B)
        product.sort_columns(mixed, out, group, panels, B)


@jit
def _multiply_groups_back(spec, work, l, replica, worker):
    """The unit draw of W in groups, transposed, times delta."""
    x, y = slot(work, first(spec)), slot(work, second(spec))
    n_out, B, delta, out = x[UNITS], x[COLUMNS], block(spec, x[BLOCK]), block(spec, y[BLOCK])
    groups, taps = entry(spec.layer_groups, l), entry(spec.layer_taps, l)
    n_in, tile = y[UNITS] // groups, advance(block(spec, work.tiles), worker * 4 * product.CHUNK * 16)
    draw, parameter, matrix = entry(spec.layer_draw, l), number(spec.layer_parameter, l), _matrix(spec, work, l)
    where = _weights(spec, l, replica)
    blocks.clear(out, count(y))
    for p in range((n_out + 15) // 16):
        if stopped(spec):
            return
        for k in range(0, n_in, product.CHUNK):
            terms = min(product.CHUNK, (n_in + 15) // 16 * 16 - k)
            if draw < draws.COUNT:
                product.draw_rows(tile, draw, parameter, where, 16 * p, k, terms, n_in)
            else:
                product.fill_rows(tile, draw, matrix, 16 * p, k, terms, n_out, n_in)
            if rounding.rounds(spec, rounding.WEIGHTS):
                rounding.round_weights(spec, tile, 16 * terms, number(spec.layer_scale, l))
            product.multiply_groups(tile, min(terms, n_in - k), k, p, n_out, n_in, groups, taps, delta, out, B, True)


@jit
def close_backward(spec, work, op, l, replica, index):
    """dJ/du from the product of unit draws."""
    x, y = slot(work, first(spec)), slot(work, second(spec))
    out = block(spec, y[BLOCK])
    blocks.clear_padding(out, y[UNITS], y[COLUMNS])
    y[E] = blocks.scale(out, count(y), _scale(spec, l), x[E], spec.bound)
    put(spec, FACTOR, index, l, log10_norm(spec, y) - log10_norm(spec, x))
    give(spec, work, entry(op, IN), second(spec))


FORWARD = open_forward, multiply_forward, close_forward
BACKWARD = open_backward, multiply_backward, close_backward
