# SPDX-License-Identifier: BSD-3-Clause
"""One replica of a dense chain, forward and backward, in njit code: the phases of a layer, and the loops over layers.

A layer is before -> product -> after, and backwards the same; only products cost n^2, and they take a range of panels,
so that one large network can be cut among threads. Letters as in docs/design.md; a, u, z, g are blocks (see `blocks`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pykernel import stream
from pykernel.kernels import activate, blocks, draws, jit, norms, product
from pykernel.observables import NAMES

(
    GRAD_WEIGHT,
    GRAD_BIAS,
    GRAD_PREACTIVATION,
    GRAD_ACTIVATION,
    MEAN_SQUARE_PREACTIVATION,
    MEAN_SQUARE_ACTIVATION,
    MEAN_ACTIVATION,
    SATURATED,
    DEAD,
    SIMILARITY,
    WEIGHT_FACTOR,
    DERIVATIVE_FACTOR,
    LOSS,
) = range(len(NAMES))
A, U, Z, G, HELD = range(5)  # exponents of the running blocks
BIAS_ZERO, BIAS_NORMAL, BIAS_UNIFORM, BIAS_GIVEN = range(4)


class Spec(NamedTuple):
    """A plan in plain numbers: read only, shared by all threads."""

    widths: np.ndarray  # (L + 1,) int64
    scale: np.ndarray  # (L,) float64, like the next two
    residual_scale: np.ndarray
    bias_scale: np.ndarray
    facts: np.ndarray  # see activate.facts
    matrices: np.ndarray  # the caller's weights, row by row, float64
    matrix_at: np.ndarray  # (L,) int64 where each begins
    biases: np.ndarray  # the caller's biases, float64
    bias_at: np.ndarray
    x: np.ndarray  # block of the caller's input, or empty
    cotangent: np.ndarray  # block of the caller's cotangent, or empty
    batch: int
    norm: int
    order: int
    every: int  # residual_every
    bound: int  # log2 of the largest magnitude of a block; 0: plain arithmetic
    draw: int  # number of the distribution, see product
    parameter: float
    bias_draw: int
    row: int  # number of the activation function, see rows
    row_parameter: float
    correlation: float
    clip: float
    key0: np.uint32
    key1: np.uint32
    compiled: int  # address of the user's compiled row, or 0
    callback: int  # address of the row's Python functions
    stop: np.ndarray  # (1,) int64: not zero, return as soon as possible


class Work(NamedTuple):
    """What one replica needs while it runs."""

    a: np.ndarray
    u: np.ndarray
    z: np.ndarray
    g: np.ndarray
    held: np.ndarray  # a[l - k] forward, dJ/da[l] of the skip backward
    vector: np.ndarray
    tiles: np.ndarray  # (workers, 4 * CHUNK * 16)
    columns: np.ndarray  # (workers, 64 B)
    wide0: np.ndarray  # float64 blocks
    wide1: np.ndarray
    wide2: np.ndarray
    preimage: np.ndarray  # tape: what phi acts on, every layer
    preimage_at: np.ndarray
    r: np.ndarray  # tape: reciprocal deviations of the norms
    r_at: np.ndarray
    inputs: np.ndarray  # tape: u of every layer, or empty
    inputs_at: np.ndarray
    gram: np.ndarray  # tape: Gram matrix of u of every layer, or one (float64)
    gram_a: np.ndarray
    gram_g: np.ndarray
    kept: np.ndarray  # transposed tiles of the weights that are kept
    kept_at: np.ndarray  # (L,) int64, -1: drawn again
    matrix: np.ndarray  # float64 matrix of a Haar layer
    exponents: np.ndarray  # (5,) int64
    preimage_e: np.ndarray  # (L,) int64, like the next two
    r_e: np.ndarray
    inputs_e: np.ndarray


@jit
def _address(spec, layer, purpose):
    return np.uint32(layer | purpose << 24)


@jit
def begin(spec, work, replica):
    """a[0]."""
    n, B, c = spec.widths[0], spec.batch, spec.correlation
    count = blocks.size(n, B)
    a = work.a
    if spec.x.size:
        blocks.copy(spec.x, 0, a, 0, count)
    else:
        blocks.draw_tall(a, n, B, False, spec.key0, spec.key1, _address(spec, 0, stream.INPUT), np.uint32(replica))
        if c != 0.0:
            blocks.draw_tall(work.vector, n, 1, False, spec.key0, spec.key1, _address(spec, 0, stream.INPUT_COMMON), np.uint32(replica))
            own, common = math.sqrt(1 - c), math.sqrt(c)
            for i in range(count):
                unit = i // (16 * B) * 16 + i % 16
                a[i] = common * float(work.vector[unit]) + own * float(a[i])
    work.exponents[A] = blocks.renormalise(a, count, 0, spec.bound)
    if spec.every:
        blocks.copy(a, 0, work.held, 0, count)
        work.exponents[HELD] = work.exponents[A]


@jit
def _remember_input(spec, work, l, u, e):  # noqa: E741 - the letter of the design
    n, B = spec.widths[l - 1], spec.batch
    work.inputs_e[l - 1] = e
    if work.inputs.size:
        blocks.copy(u, 0, work.inputs, work.inputs_at[l - 1], blocks.size(n, B))
    else:
        blocks.gram(u, 0, (n + 15) // 16, B, work.gram, (l - 1) * B * B)


@jit
def _haar(spec, work, l, replica):
    """The Haar matrix of layer l in work.matrix, row by row."""
    product.haar(work.matrix, spec.widths[l], spec.widths[l - 1], spec.key0, spec.key1, _address(spec, l, stream.WEIGHT), np.uint32(replica))


@jit
def before(spec, work, l, replica):
    """u[l], and in the second order the preimage."""
    n, B = spec.widths[l - 1], spec.batch
    count = blocks.size(n, B)
    e = work.exponents
    if spec.order == 0:
        _remember_input(spec, work, l, work.a, e[A])
    else:
        at = work.preimage_at[l - 1]
        y = work.preimage[at : at + count]
        blocks.copy(work.a, 0, y, 0, count)
        work.preimage_e[l - 1] = e[A]
        _normalise(spec, work, l, y, n)
        e[U] = activate.values(spec, work, y, work.preimage_e[l - 1], work.u, n)
        _remember_input(spec, work, l, work.u, e[U])
    if spec.draw == product.HAAR:
        _haar(spec, work, l, replica)


@jit
def _normalise(spec, work, l, y, n):
    if spec.norm:
        e, work.r_e[l - 1] = norms.forward(spec.norm, y, work.preimage_e[l - 1], n, spec.batch, work.r, work.r_at[l - 1], spec.bound)
        work.preimage_e[l - 1] = e


@jit
def forward_product(spec, work, l, replica, worker, p0, p1):
    """Panels p0 .. p1 - 1 of the unit draw of W[l] times u[l], into z."""
    n_in, n_out, B = spec.widths[l - 1], spec.widths[l], spec.batch
    u = work.a if spec.order == 0 else work.u
    tile, height, at = work.tiles[worker], (n_out + 15) // 16 * 16, work.kept_at[l - 1]
    address = (spec.key0, spec.key1, _address(spec, l, stream.WEIGHT), _address(spec, l, stream.MASK), np.uint32(replica))
    matrix = work.matrix if spec.draw == product.HAAR else spec.matrices[spec.matrix_at[l - 1] :]
    work.z[p0 * 16 * B : p1 * 16 * B] = 0
    for p in range(p0, p1):
        if spec.stop[0]:
            return
        for k in range(0, n_in, product.CHUNK):
            terms = min(product.CHUNK, (n_in + 15) // 16 * 16 - k)
            if spec.draw <= draws.STABLE:
                product.draw_rows(tile, 0, spec.draw, spec.parameter, address, 16 * p, k, terms, n_in)
            else:
                product.fill_rows(tile, spec.draw, matrix, 16 * p, k, terms, n_out, n_in)
            product.multiply(tile, 0, terms, u, k, work.z, p, B)
            if at >= 0:
                product.turn(tile, 0, terms, work.kept, at + k * height, 16 * p, height)


@jit
def after(spec, work, l, replica, rows, index):
    """z[l], a[l] and their rows, from the product of unit draws in z."""
    n, B, e = spec.widths[l], spec.batch, work.exponents
    panels = (n + 15) // 16
    count = panels * B * 16
    z, a = work.z, work.a
    blocks.clear_padding(z, n, B)
    e_in = e[A] if spec.order == 0 else e[U]
    e[Z] = blocks.scale(z, count, spec.scale[l - 1], e_in, spec.bound)
    if spec.bias_draw != BIAS_ZERO:
        v = work.vector
        if spec.bias_draw == BIAS_GIVEN:
            for i in range(panels * 16):
                v[i] = spec.biases[spec.bias_at[l - 1] + i] if i < n else 0.0
        else:
            uniform = spec.bias_draw == BIAS_UNIFORM
            blocks.draw_tall(v, n, 1, uniform, spec.key0, spec.key1, _address(spec, l, stream.BIAS), np.uint32(replica))
            blocks.multiply_by(v, panels * 16, spec.bias_scale[l - 1])
        e[Z] = blocks.add_vector(z, e[Z], v, panels, B, spec.bound)
    rows[MEAN_SQUARE_PREACTIVATION, index, l - 1] = 2 * blocks.log10_norm(blocks.sum_of_squares(z, count) / (n * B), e[Z])
    if spec.order == 0:
        at = work.preimage_at[l - 1]
        y = work.preimage[at : at + count]
        blocks.copy(z, 0, y, 0, count)
        work.preimage_e[l - 1] = e[Z]
        _normalise(spec, work, l, y, n)
        e[A] = activate.values(spec, work, y, work.preimage_e[l - 1], a, n)
    else:
        blocks.copy(z, 0, a, 0, count)
        e[A] = e[Z]
    if spec.every and l % spec.every == 0:
        e[A] = blocks.scale(a, count, spec.residual_scale[l - 1], e[A], spec.bound)
        e[A] = blocks.add(a, e[A], work.held, e[HELD], count, spec.bound)
        blocks.copy(a, 0, work.held, 0, count)
        e[HELD] = e[A]
    rows[MEAN_SQUARE_ACTIVATION, index, l - 1] = 2 * blocks.log10_norm(blocks.sum_of_squares(a, count) / (n * B), e[A])
    rows[MEAN_ACTIVATION, index, l - 1] = math.ldexp(blocks.sum_all(a, count) / (n * B), max(min(e[A], 3000), -3000))
    if B > 1:
        blocks.gram(a, 0, panels, B, work.gram_a, 0)
        rows[SIMILARITY, index, l - 1] = blocks.similarity(work.gram_a, 0, B)


@jit
def draw_cotangent(spec, work, replica):
    """dJ/da[L] = C in g, drawn or given."""
    L = len(spec.widths) - 1
    n, B = spec.widths[L], spec.batch
    count = blocks.size(n, B)
    if spec.cotangent.size:
        blocks.copy(spec.cotangent, 0, work.g, 0, count)
    else:
        blocks.draw_tall(work.g, n, B, False, spec.key0, spec.key1, _address(spec, L, stream.COTANGENT), np.uint32(replica))
        blocks.multiply_by(work.g, count, 1 / math.sqrt(n * B))
    work.exponents[G] = blocks.renormalise(work.g, count, 0, spec.bound)


@jit
def _derivative(spec, work, l, n, before_square, e_before, rows, index):
    """The step of g back through phi and Norm of layer l, n units; its rows."""
    B, e = spec.batch, work.exponents
    count = blocks.size(n, B)
    at = work.preimage_at[l - 1]
    y = work.preimage[at : at + count]
    e[G], rows[SATURATED, index, l - 1], rows[DEAD, index, l - 1] = activate.slopes(spec, work, y, work.preimage_e[l - 1], work.g, e[G], n)
    if spec.norm:
        e[G] = norms.backward(spec.norm, work.g, e[G], y, 0, work.preimage_e[l - 1], n, B, work.r, work.r_at[l - 1], work.r_e[l - 1], spec.bound)
    square = blocks.sum_of_squares(work.g, count)
    rows[DERIVATIVE_FACTOR, index, l - 1] = blocks.log10_norm(square, e[G]) - blocks.log10_norm(before_square, e_before)
    return square


@jit
def before_back(spec, work, l, replica, rows, index):
    """delta[l] in g from dJ/da[l] in g, and the rows of the parameter gradients."""
    n, n_in, B, e = spec.widths[l], spec.widths[l - 1], spec.batch, work.exponents
    panels = (n + 15) // 16
    count = panels * B * 16
    g = work.g
    square = blocks.sum_of_squares(g, count)
    rows[GRAD_ACTIVATION, index, l] = blocks.log10_norm(square, e[G])
    if spec.every and l % spec.every == 0:
        blocks.copy(g, 0, work.held, 0, count)
        e[HELD] = e[G]
        e[G] = blocks.scale(g, count, spec.residual_scale[l - 1], e[G], spec.bound)
        square = blocks.sum_of_squares(g, count)
    if spec.order == 0:
        square = _derivative(spec, work, l, n, square, e[G], rows, index)
    rows[GRAD_PREACTIVATION, index, l - 1] = blocks.log10_norm(square, e[G])
    if spec.clip != 0.0:
        at = work.inputs_at[l - 1]
        u = work.inputs[at : at + blocks.size(n_in, B)]
        rows[GRAD_WEIGHT, index, l - 1], rows[GRAD_BIAS, index, l - 1] = blocks.clipped_norms(g, u, n, n_in, B, e[G], work.inputs_e[l - 1], spec.clip)
    else:
        rows[GRAD_BIAS, index, l - 1] = blocks.log10_norm(blocks.batch_sum_square(g, panels, B), e[G])
        blocks.gram(g, 0, panels, B, work.gram_g, 0)
        if work.inputs.size:
            blocks.gram(work.inputs, work.inputs_at[l - 1], (n_in + 15) // 16, B, work.gram, 0)
            outer = blocks.gram_product(work.gram_g, 0, work.gram, 0, B * B)
        else:
            outer = blocks.gram_product(work.gram_g, 0, work.gram, (l - 1) * B * B, B * B)
        if outer < 0.0:
            outer = 0.0
        rows[GRAD_WEIGHT, index, l - 1] = blocks.log10_norm(outer, e[G] + work.inputs_e[l - 1])
    if spec.draw == product.HAAR and work.kept_at[l - 1] < 0:
        _haar(spec, work, l, replica)


@jit
def backward_product(spec, work, l, replica, worker, group0, group1):
    """Units 64 group0 .. 64 group1 - 1 of the unit draw of W[l], transposed, times delta, into z."""
    n_in, n_out, B = spec.widths[l - 1], spec.widths[l], spec.batch
    height, at = (n_out + 15) // 16 * 16, work.kept_at[l - 1]
    panels = (n_in + 15) // 16
    out, tile, mixed = work.z, work.tiles[worker], work.columns[worker]
    if at >= 0:
        p1 = min(4 * group1, panels)
        out[4 * group0 * 16 * B : p1 * 16 * B] = 0
        for p in range(4 * group0, p1):
            if spec.stop[0]:
                return
            for i in range(0, height, product.CHUNK):
                product.multiply(work.kept, at + (p * height + i) * 16, min(product.CHUNK, height - i), work.g, i, out, p, B)
        return
    address = (spec.key0, spec.key1, _address(spec, l, stream.WEIGHT), _address(spec, l, stream.MASK), np.uint32(replica))
    matrix = work.matrix if spec.draw == product.HAAR else spec.matrices[spec.matrix_at[l - 1] :]
    for group in range(group0, group1):
        if spec.stop[0]:
            return
        mixed[:] = 0
        for i in range(0, height, product.CHUNK):
            terms = min(product.CHUNK, height - i)
            if spec.draw <= draws.STABLE:
                product.draw_columns(tile, 0, spec.draw, spec.parameter, address, i, group, terms, n_out)
            else:
                product.fill_columns(tile, spec.draw, matrix, i, group, terms, n_out, n_in)
            for w in range(4):
                product.multiply(tile, w * terms * 16, terms, work.g, i, mixed, w, B)
        product.sort_columns(mixed, out, group, panels, B)


@jit
def after_back(spec, work, l, rows, index):
    """dJ/da[l - 1] in g from the product of unit draws in z; rows of the factors."""
    n, n_out, B, e = spec.widths[l - 1], spec.widths[l], spec.batch, work.exponents
    count = blocks.size(n, B)
    z, g = work.z, work.g
    delta = blocks.log10_norm(blocks.sum_of_squares(g, blocks.size(n_out, B)), e[G])
    blocks.clear_padding(z, n, B)
    e[G] = blocks.scale(z, count, spec.scale[l - 1], e[G], spec.bound)
    blocks.copy(z, 0, g, 0, count)
    square = blocks.sum_of_squares(g, count)
    rows[WEIGHT_FACTOR, index, l - 1] = blocks.log10_norm(square, e[G]) - delta
    if spec.order == 1:
        _derivative(spec, work, l, n, square, e[G], rows, index)
    if spec.every and (l - 1) % spec.every == 0 and l - 1 + spec.every <= len(spec.widths) - 1:
        e[G] = blocks.add(g, e[G], work.held, e[HELD], count, spec.bound)
    if l == 1:
        rows[GRAD_ACTIVATION, index, 0] = blocks.log10_norm(blocks.sum_of_squares(g, count), e[G])


@jit
def forward(spec, work, replica, rows, index):
    """All layers forward."""
    begin(spec, work, replica)
    for l in range(1, len(spec.widths)):
        if spec.stop[0]:
            return
        before(spec, work, l, replica)
        forward_product(spec, work, l, replica, 0, 0, (spec.widths[l] + 15) // 16)
        after(spec, work, l, replica, rows, index)


@jit
def backward(spec, work, replica, rows, index):
    """All layers backward, from dJ/da[L] in g."""
    for l in range(len(spec.widths) - 1, 0, -1):
        if spec.stop[0]:
            return
        before_back(spec, work, l, replica, rows, index)
        backward_product(spec, work, l, replica, 0, 0, (spec.widths[l - 1] + 63) // 64)
        after_back(spec, work, l, rows, index)


@jit
def replicas(spec, work, first, start, stop, rows):
    """Replicas first + start .. first + stop - 1, without a head, into rows[:, start:stop]."""
    for index in range(start, stop):
        if spec.stop[0]:
            return
        forward(spec, work, first + index, rows, index)
        draw_cotangent(spec, work, first + index)
        backward(spec, work, first + index, rows, index)
