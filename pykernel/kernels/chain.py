# SPDX-License-Identifier: BSD-3-Clause
"""One replica of a dense chain, forward and backward, in njit code: the phases of a layer, and the loop over layers.

A layer is before -> product -> after, and backwards the same; only products cost n^2, and they take a range of panels,
so that one large network can be cut among threads. Letters as in docs/design.md; a, u, z, g are blocks (see `blocks`).
Plan and workspace are records of numbers and addresses: arrays as arguments
 cost minutes of compilation, and counting references at each call.
"""

from __future__ import annotations

import functools
import math
import zlib

import numpy as np
from numba import types
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

from pykernel import stream
from pykernel.kernels import activate, blocks, draws, inline, jit, norms, product
from pykernel.kernels.lanes import advance, cast_like, pointer
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
) = (np.int64(i) for i in range(len(NAMES)))  # not plain ints: Numba would compile once for each literal
A, U, Z, G, HELD, SKIP = range(6)  # exponents of the running blocks
BIAS_ZERO, BIAS_NORMAL, BIAS_UNIFORM, BIAS_GIVEN = range(4)


_INT, _FLOAT, _WORD = np.int64, np.float64, np.uint32
# A plan in plain numbers, read only, shared by all threads; from `widths` on, addresses of arrays. A field `zero` has the dtype of the run.
SPEC = {
    **dict.fromkeys(("depth", "batch", "norm", "order", "every", "bound", "draw", "bias_draw", "row", "count"), _INT),
    **dict.fromkeys(("norm_eps", "parameter", "row_parameter", "correlation", "clip"), _FLOAT),
    **dict.fromkeys(("key0", "key1"), _WORD),
    **dict.fromkeys(("compiled", "callback", "x_exponent", "cotangent_exponent"), _INT),
    **dict.fromkeys(("widths", "scale", "residual_scale", "bias_scale", "facts", "matrices", "matrix_at", "biases", "bias_at"), _INT),
    **dict.fromkeys(("x", "cotangent", "rows", "stop", "phases"), _INT),
}
# What one replica needs while it runs: addresses. A block each: a, u, z, g, held (a[l - k]), skip (dJ/da[l] of the skip),
# wide0 .. wide2 (float64). Tapes over the layers of a segment, each with its offsets `_at`: preimage (what phi acts on), r (reciprocal
# deviations of the norms), inputs (u, or null), gram (Gram matrices of u, offset -1: made from u when asked for), kept (transposed tiles
# of weights, offset -1: drawn again). checkpoints: a and held where each segment begins, if there are several.
WORK = dict.fromkeys(
    (
        *("a", "u", "z", "g", "held", "skip", "vector", "tiles", "columns", "wide0", "wide1", "wide2"),
        *("preimage", "preimage_at", "preimage_e", "r", "r_at", "r_e", "inputs", "inputs_at", "inputs_e"),
        *("gram", "gram_at", "gram_a", "gram_g", "kept", "kept_at", "matrix", "scratch0", "scratch1", "line", "exponents"),
        *("segments", "length", "checkpoints", "checkpoint_e", "checkpoint_size"),
    ),
    _INT,
)


def spec_dtype(dtype):
    """The structured dtype of SPEC for a run in `dtype`."""
    return np.dtype([*SPEC.items(), ("zero", dtype)], align=True)


def work_dtype():
    """The structured dtype of WORK."""
    return np.dtype([*WORK.items()], align=True)


@functools.cache
def record_type(dtype):
    """Numba's type of a structured dtype, kept alive under a number that does not depend on the process.

    Numba names compiled functions by the number at which a process first met a record type. Machine code that another process wrote to the
    cache, having met float32 and float64 in the other order, would then answer for the wrong one.
    """
    found = from_dtype(dtype)
    found._code = 1 << 30 | zlib.crc32(str(found).encode()) >> 2
    return found


@inline
def _at(table, i):
    """Entry i of the int64 array at an address."""
    return pointer(table, 1)[i]


@inline
def _number(table, i):
    """Entry i of the float64 array at an address."""
    return pointer(table, 1.0)[i]


@inline
def _put(spec, row, index, column, value):
    pointer(spec.rows, 1.0)[(row * spec.count + index) * (spec.depth + 1) + column] = value


@inline
def _stopped(spec):
    return pointer(spec.stop, 1)[0] != 0


@inline
def _block(spec, address):
    """The block at an address, in the dtype of the run."""
    return pointer(address, spec.zero)


@inline
def _address(spec, layer, purpose):
    return np.uint32(layer | purpose << 24)


@inline
def _units(spec, l):
    return _at(spec.widths, l)


@jit
def begin(spec, work, replica):
    """a[0]."""
    n, B, c = _units(spec, 0), spec.batch, spec.correlation
    count = blocks.size(n, B)
    a, e = _block(spec, work.a), pointer(work.exponents, 1)
    if spec.x != 0:
        blocks.copy(_block(spec, spec.x), 0, a, 0, count)
        e[A] = spec.x_exponent
    else:
        e[A] = 0
        blocks.draw_tall(a, n, B, False, spec.key0, spec.key1, _address(spec, 0, stream.INPUT), np.uint32(replica))
        if c != 0.0:
            v = _block(spec, work.vector)
            blocks.draw_tall(v, n, 1, False, spec.key0, spec.key1, _address(spec, 0, stream.INPUT_COMMON), np.uint32(replica))
            own, common = math.sqrt(1 - c), math.sqrt(c)
            for i in range(count):
                a[i] = cast_like(common * float(v[i // (16 * B) * 16 + i % 16]) + own * float(a[i]), a)
    e[A] = blocks.renormalise(a, count, e[A], spec.bound)
    if spec.every:
        blocks.copy(a, 0, _block(spec, work.held), 0, count)
        e[HELD] = e[A]
    _gram_of_activation(spec, work, 0)


@inline
def _checkpoint(spec, work, s, which):
    i = (2 * s if spec.every else s) + which
    return advance(_block(spec, work.checkpoints), i * work.checkpoint_size), pointer(work.checkpoint_e, 1), i


@jit
def save(spec, work, s):
    """Keep what the forward pass needs to begin segment s again."""
    e, count = pointer(work.exponents, 1), blocks.size(_units(spec, s * work.length), spec.batch)
    x, saved, i = _checkpoint(spec, work, s, 0)
    blocks.copy(_block(spec, work.a), 0, x, 0, count)
    saved[i] = e[A]
    if spec.every:
        y, saved, i = _checkpoint(spec, work, s, 1)
        blocks.copy(_block(spec, work.held), 0, y, 0, work.checkpoint_size)
        saved[i] = e[HELD]


@jit
def resume(spec, work, s):
    """Go back to the beginning of segment s."""
    e, count = pointer(work.exponents, 1), blocks.size(_units(spec, s * work.length), spec.batch)
    x, saved, i = _checkpoint(spec, work, s, 0)
    blocks.copy(x, 0, _block(spec, work.a), 0, count)
    e[A] = saved[i]
    if spec.every:
        y, saved, i = _checkpoint(spec, work, s, 1)
        blocks.copy(y, 0, _block(spec, work.held), 0, work.checkpoint_size)
        e[HELD] = saved[i]
    _gram_of_activation(spec, work, s * work.length)


@jit
def _gram_of_activation(spec, work, l):
    """Of a[l], for the similarity and as that of the next layer's input."""
    if spec.batch > 1:
        blocks.gram(_block(spec, work.a), (_units(spec, l) + 15) // 16, spec.batch, pointer(work.gram_a, 1.0))


@inline
def _moving(spec):
    """Whether the weight gradient sees u without its mean over the batch only (batch norm of z): see `reference`."""
    return spec.norm == norms.BATCH and spec.order == 0 and spec.batch > 1


@jit
def _remember_input(spec, work, l, u, e):
    n, B = _units(spec, l - 1), spec.batch
    panels = (n + 15) // 16
    pointer(work.inputs_e, 1)[l - 1] = e
    if work.inputs != 0:
        blocks.copy(u, 0, _block(spec, work.inputs), _at(work.inputs_at, l - 1), panels * B * 16)
    at = _at(work.gram_at, l - 1)
    if at < 0:
        return
    out = advance(pointer(work.gram, 1.0), at)
    if _moving(spec):
        z = _block(spec, work.z)
        blocks.centre(u, z, panels, B)
        blocks.gram(z, panels, B, out)
    elif spec.order == 0 and B > 1:
        known = pointer(work.gram_a, 1.0)
        for i in range(B * B):
            out[i] = known[i]
    else:
        blocks.gram(u, panels, B, out)


@inline
def _haar(spec, work, l, replica):
    q, v, out = pointer(work.matrix, 1.0), pointer(work.scratch0, 1.0), pointer(work.scratch1, 1.0)
    line = pointer(work.line, np.float32(0))
    product.haar(
        q, v, out, line, _units(spec, l), _units(spec, l - 1), spec.key0, spec.key1, _address(spec, l, stream.WEIGHT), np.uint32(replica)
    )


@inline
def _preimage(spec, work, l):
    return advance(_block(spec, work.preimage), _at(work.preimage_at, l - 1))


@jit
def _activate(spec, work, l, x, e, out, n):
    """out = phi(Norm(x)) of a block of n units at layer l, its preimage on the tape; the exponent of out."""
    y = _preimage(spec, work, l)
    blocks.copy(x, 0, y, 0, blocks.size(n, spec.batch))
    if spec.norm:
        r = advance(pointer(work.r, 1.0), _at(work.r_at, l - 1))
        e, e_r = norms.forward(spec.norm, spec.norm_eps, y, e, n, spec.batch, r, spec.bound)
        pointer(work.r_e, 1)[l - 1] = e_r
    pointer(work.preimage_e, 1)[l - 1] = e
    return activate.values(spec, work, y, e, out, n)


@jit
def before(spec, work, l, replica):
    """u[l], and in the second order the preimage."""
    e, a, u = pointer(work.exponents, 1), _block(spec, work.a), _block(spec, work.u)
    if spec.order == 0:
        e[U] = e[A]
    else:
        e[U] = _activate(spec, work, l, a, e[A], u, _units(spec, l - 1))
    _remember_input(spec, work, l, u, e[U])
    if spec.draw == product.HAAR:
        _haar(spec, work, l, replica)


@inline
def _matrix(spec, work, l):
    return pointer(work.matrix, 1.0) if spec.draw == product.HAAR else advance(pointer(spec.matrices, 1.0), _at(spec.matrix_at, l - 1))


@jit
def forward_product(spec, work, l, replica, worker, p0, p1):
    """Panels p0 .. p1 - 1 of the unit draw of W[l] times u[l], into z."""
    n_in, n_out, B = _units(spec, l - 1), _units(spec, l), spec.batch
    u, z, kept = _block(spec, work.u), _block(spec, work.z), _block(spec, work.kept)
    tile = advance(_block(spec, work.tiles), worker * 4 * product.CHUNK * 16)
    height, at = (n_out + 15) // 16 * 16, _at(work.kept_at, l - 1)
    address = (spec.key0, spec.key1, _address(spec, l, stream.WEIGHT), _address(spec, l, stream.MASK), np.uint32(replica))
    matrix = _matrix(spec, work, l)
    blocks.clear(advance(z, p0 * 16 * B), (p1 - p0) * 16 * B)
    for p in range(p0, p1):
        if _stopped(spec):
            return
        for k in range(0, n_in, product.CHUNK):
            terms = min(product.CHUNK, (n_in + 15) // 16 * 16 - k)
            if spec.draw <= draws.STABLE:
                product.draw_rows(tile, spec.draw, spec.parameter, address, 16 * p, k, terms, n_in)
            else:
                product.fill_rows(tile, spec.draw, matrix, 16 * p, k, terms, n_out, n_in)
            product.multiply(tile, terms, u, k, z, p, B)
            if at >= 0:
                product.turn(tile, terms, kept, at + k * height, 16 * p, height)


@jit
def after(spec, work, l, replica, index):
    """z[l], a[l] and their rows, from the product of unit draws in z."""
    n, B, e = _units(spec, l), spec.batch, pointer(work.exponents, 1)
    panels = (n + 15) // 16
    count = panels * B * 16
    z, a, held = _block(spec, work.z), _block(spec, work.a), _block(spec, work.held)
    blocks.clear_padding(z, n, B)
    e[Z] = blocks.scale(z, count, _number(spec.scale, l - 1), e[U], spec.bound)
    if spec.bias_draw != BIAS_ZERO:
        v = _block(spec, work.vector)
        if spec.bias_draw == BIAS_GIVEN:
            blocks.clear(v, panels * 16)
            for i in range(n):
                v[i] = cast_like(_number(spec.biases, _at(spec.bias_at, l - 1) + i), v)
        else:
            uniform = spec.bias_draw == BIAS_UNIFORM
            blocks.draw_tall(v, n, 1, uniform, spec.key0, spec.key1, _address(spec, l, stream.BIAS), np.uint32(replica))
        e_v = blocks.scale(v, panels * 16, _number(spec.bias_scale, l - 1), 0, spec.bound)
        e[Z] = blocks.add_vector(z, e[Z], v, e_v, panels, B, spec.bound)
    _put(spec, MEAN_SQUARE_PREACTIVATION, index, l - 1, 2 * blocks.log10_norm(blocks.sum_of_squares(z, count) / (n * B), e[Z]))
    if spec.order == 0:
        e[A] = _activate(spec, work, l, z, e[Z], a, n)
    else:
        blocks.copy(z, 0, a, 0, count)
        e[A] = e[Z]
    if spec.every and l % spec.every == 0:
        e[A] = blocks.scale(a, count, _number(spec.residual_scale, l - 1), e[A], spec.bound)
        e[A] = blocks.add(a, e[A], held, e[HELD], count, spec.bound)
        blocks.copy(a, 0, held, 0, count)
        e[HELD] = e[A]
    _put(spec, MEAN_SQUARE_ACTIVATION, index, l - 1, 2 * blocks.log10_norm(blocks.sum_of_squares(a, count) / (n * B), e[A]))
    _put(spec, MEAN_ACTIVATION, index, l - 1, math.ldexp(blocks.sum_all(a, count) / (n * B), max(min(e[A], 3000), -3000)))
    if B > 1:
        _gram_of_activation(spec, work, l)
        _put(spec, SIMILARITY, index, l - 1, blocks.similarity(pointer(work.gram_a, 1.0), B))


@jit
def draw_cotangent(spec, work, replica):
    """dJ/da[L] = C in g, drawn or given."""
    n, B = _units(spec, spec.depth), spec.batch
    count = blocks.size(n, B)
    g, e = _block(spec, work.g), pointer(work.exponents, 1)
    if spec.cotangent != 0:
        blocks.copy(_block(spec, spec.cotangent), 0, g, 0, count)
        e[G] = spec.cotangent_exponent
    else:
        e[G] = 0
        blocks.draw_tall(g, n, B, False, spec.key0, spec.key1, _address(spec, spec.depth, stream.COTANGENT), np.uint32(replica))
        blocks.multiply_by(g, count, 1 / math.sqrt(n * B))
    e[G] = blocks.renormalise(g, count, e[G], spec.bound)


@jit
def _derivative(spec, work, l, n, index):
    """The step of g back through phi and Norm of layer l, n units; its rows."""
    B, e, g, y = spec.batch, pointer(work.exponents, 1), _block(spec, work.g), _preimage(spec, work, l)
    count = blocks.size(n, B)
    e_y = _at(work.preimage_e, l - 1)
    log10_before = blocks.log10_norm(blocks.sum_of_squares(g, count), e[G])
    e[G], saturated, dead = activate.slopes(spec, work, y, e_y, g, e[G], n)
    _put(spec, SATURATED, index, l - 1, saturated)
    _put(spec, DEAD, index, l - 1, dead)
    if spec.norm:
        r = advance(pointer(work.r, 1.0), _at(work.r_at, l - 1))
        e[G] = norms.backward(spec.norm, g, e[G], y, e_y, n, B, r, _at(work.r_e, l - 1), spec.bound)
    _put(spec, DERIVATIVE_FACTOR, index, l - 1, blocks.log10_norm(blocks.sum_of_squares(g, count), e[G]) - log10_before)


@jit
def before_back(spec, work, l, replica, index):
    """delta[l] in g from dJ/da[l] in g, and the rows of the parameter gradients."""
    n, n_in, B, e = _units(spec, l), _units(spec, l - 1), spec.batch, pointer(work.exponents, 1)
    panels = (n + 15) // 16
    count = panels * B * 16
    g = _block(spec, work.g)
    _put(spec, GRAD_ACTIVATION, index, l, blocks.log10_norm(blocks.sum_of_squares(g, count), e[G]))
    if spec.every and l % spec.every == 0:
        blocks.copy(g, 0, _block(spec, work.skip), 0, count)
        e[SKIP] = e[G]
        e[G] = blocks.scale(g, count, _number(spec.residual_scale, l - 1), e[G], spec.bound)
    if spec.order == 0:
        _derivative(spec, work, l, n, index)
    _put(spec, GRAD_PREACTIVATION, index, l - 1, blocks.log10_norm(blocks.sum_of_squares(g, count), e[G]))
    e_u = _at(work.inputs_e, l - 1)
    u = advance(_block(spec, work.inputs), _at(work.inputs_at, l - 1))
    if spec.clip != 0.0:
        weight, bias = blocks.clipped_norms(g, u, n, n_in, B, e[G], e_u, spec.clip)
    else:
        mine, theirs = pointer(work.gram_g, 1.0), pointer(work.gram, 1.0)
        blocks.gram(g, panels, B, mine)
        at = _at(work.gram_at, l - 1)
        if _moving(spec) and work.inputs != 0:
            theirs, z = pointer(work.gram_a, 1.0), _block(spec, work.z)
            blocks.centre(u, z, (n_in + 15) // 16, B)
            blocks.gram(z, (n_in + 15) // 16, B, theirs)
        elif at < 0:
            blocks.gram(u, (n_in + 15) // 16, B, theirs)
        else:
            theirs = advance(theirs, at)
        weight = blocks.log10_norm(blocks.gram_product(mine, theirs, B * B), e[G] + e_u)
        bias = blocks.log10_norm(blocks.batch_sum_square(g, panels, B), e[G])
    _put(spec, GRAD_WEIGHT, index, l - 1, weight)
    _put(spec, GRAD_BIAS, index, l - 1, bias)
    if spec.draw == product.HAAR and _at(work.kept_at, l - 1) < 0:
        _haar(spec, work, l, replica)


@jit
def backward_product(spec, work, l, replica, worker, group0, group1):
    """Units 64 group0 .. 64 group1 - 1 of the unit draw of W[l], transposed, times delta, into z."""
    n_in, n_out, B = _units(spec, l - 1), _units(spec, l), spec.batch
    height, at = (n_out + 15) // 16 * 16, _at(work.kept_at, l - 1)
    panels = (n_in + 15) // 16
    z, g, kept = _block(spec, work.z), _block(spec, work.g), _block(spec, work.kept)
    if at >= 0:
        p0, p1 = 4 * group0, min(4 * group1, panels)
        blocks.clear(advance(z, p0 * 16 * B), (p1 - p0) * 16 * B)
        for p in range(p0, p1):
            if _stopped(spec):
                return
            for i in range(0, height, product.CHUNK):
                product.multiply(advance(kept, at + (p * height + i) * 16), min(product.CHUNK, height - i), g, i, z, p, B)
        return
    tile = advance(_block(spec, work.tiles), worker * 4 * product.CHUNK * 16)
    mixed = advance(_block(spec, work.columns), worker * 64 * B)
    address = (spec.key0, spec.key1, _address(spec, l, stream.WEIGHT), _address(spec, l, stream.MASK), np.uint32(replica))
    matrix = _matrix(spec, work, l)
    for group in range(group0, group1):
        if _stopped(spec):
            return
        blocks.clear(mixed, 64 * B)
        for i in range(0, height, product.CHUNK):
            terms = min(product.CHUNK, height - i)
            if spec.draw <= draws.STABLE:
                product.draw_columns(tile, spec.draw, spec.parameter, address, i, group, terms, n_out)
            else:
                product.fill_columns(tile, spec.draw, matrix, i, group, terms, n_out, n_in)
            for w in range(4):
                product.multiply(advance(tile, w * terms * 16), terms, g, i, mixed, w, B)
        product.sort_columns(mixed, z, group, panels, B)


@jit
def after_back(spec, work, l, index):
    """dJ/da[l - 1] in g from the product of unit draws in z; rows of the factors."""
    n, n_out, B, e = _units(spec, l - 1), _units(spec, l), spec.batch, pointer(work.exponents, 1)
    count = blocks.size(n, B)
    z, g = _block(spec, work.z), _block(spec, work.g)
    log10_delta = blocks.log10_norm(blocks.sum_of_squares(g, blocks.size(n_out, B)), e[G])
    blocks.clear_padding(z, n, B)
    e[G] = blocks.scale(z, count, _number(spec.scale, l - 1), e[G], spec.bound)
    blocks.copy(z, 0, g, 0, count)
    _put(spec, WEIGHT_FACTOR, index, l - 1, blocks.log10_norm(blocks.sum_of_squares(g, count), e[G]) - log10_delta)
    if spec.order == 1:
        _derivative(spec, work, l, n, index)
    if spec.every and (l - 1) % spec.every == 0 and l - 1 + spec.every <= spec.depth:
        e[G] = blocks.add(g, e[G], _block(spec, work.skip), e[SKIP], count, spec.bound)
    if l == 1:
        _put(spec, GRAD_ACTIVATION, index, 0, blocks.log10_norm(blocks.sum_of_squares(g, count), e[G]))


@intrinsic
def _call(typingctx, address, spec, work, *numbers):
    """Call a compiled phase by its address: linking the phases into the loop would compile each of them again."""
    numbers = numbers[0] if len(numbers) == 1 and isinstance(numbers[0], types.BaseTuple) else numbers
    inner = (spec, work, *(types.int64 for _ in numbers))

    def codegen(context, builder, sig, args):
        kind = context.call_conv.get_function_type(types.none, inner)
        rest = (
            [builder.extract_value(args[3], i) for i in range(len(numbers))] if isinstance(sig.args[3], types.BaseTuple) else list(args[3:])
        )
        context.call_conv.call_function(builder, builder.inttoptr(args[0], kind.as_pointer()), types.none, inner, [args[1], args[2], *rest])
        return context.get_dummy_value()

    return types.void(types.intp, spec, work, types.StarArgTuple([types.int64] * len(numbers))), codegen


@jit
def _forward(spec, work, s, r, index):
    """The layers of segment s; what is computed again is written down again, the same bits."""
    f = pointer(spec.phases, 1)
    for l in range(s * work.length + 1, min((s + 1) * work.length, spec.depth) + 1):
        if _stopped(spec):
            return
        _call(f[1], spec, work, l, r)
        _call(f[2], spec, work, l, r, 0, 0, (_units(spec, l) + 15) // 16)
        _call(f[3], spec, work, l, r, index)


@jit
def replicas(spec, work, first, start, stop, parts):
    """Replicas first + start .. first + stop - 1 into rows start .. stop - 1; parts: sum of 1 forward, 2 cotangent, 4 backward."""
    f = pointer(spec.phases, 1)
    for index in range(start, stop):
        r = first + index
        if parts & 1:
            _call(f[0], spec, work, r)
            for s in range(work.segments):
                if work.segments > 1:
                    _call(f[8], spec, work, s)
                _forward(spec, work, s, r, index)
        if parts & 2:
            _call(f[4], spec, work, r)
        if parts & 4:
            for s in range(work.segments - 1, -1, -1):
                if s < work.segments - 1:
                    _call(f[9], spec, work, s)
                    _forward(spec, work, s, r, index)
                for l in range(min((s + 1) * work.length, spec.depth), s * work.length, -1):
                    if _stopped(spec):
                        return
                    _call(f[5], spec, work, l, r, index)
                    _call(f[6], spec, work, l, r, 0, 0, (_units(spec, l - 1) + 63) // 64)
                    _call(f[7], spec, work, l, index)


PHASES = (
    (begin, 1),
    (before, 2),
    (forward_product, 5),
    (after, 3),
    (draw_cotangent, 1),
    (before_back, 3),
    (backward_product, 5),
    (after_back, 2),
    (save, 1),
    (resume, 1),
)


def phases(dtype):
    """Addresses of the compiled phases for a dtype, in the order in which `replicas` calls them, int64."""
    records = record_type(spec_dtype(dtype)), record_type(work_dtype())
    out = []
    for phase, numbers in PHASES:
        key = (*records, *([types.int64] * numbers))
        phase.compile(key)
        compiled = phase.overloads[key]
        out.append(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))
    return np.array(out, np.int64)
