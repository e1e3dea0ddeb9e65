# SPDX-License-Identifier: BSD-3-Clause
"""The definition: one chain forward and backward in plain NumPy, float64, written to be read. Every other backend is tested against it."""

from __future__ import annotations

import math

import numpy as np

from pykernel import observables, stream
from pykernel.chain import NORMS
from pykernel.engines import heads
from pykernel.engines.block import Block, ldexp, slopes, values
from pykernel.plan import Plan

LOG10_2 = math.log10(2)


def refusal(plan: Plan) -> str | None:
    """Why this module cannot run the plan, or None."""
    return None


def run(plan: Plan, first: int, count: int, *, threads: int = 1, keep=()) -> dict:
    """Rows of replicas first .. first + count - 1; with `keep`, also lists of the named arrays a replica (see Trace)."""
    return run_operators(plan, first, count, Dense, keep)


def run_operators(plan, first, count, operator, keep=()):
    """Run with the weights that `operator(plan, replica)` stands for."""
    out = {row.name: np.full(observables.shape(row, count, plan.depth), np.nan) for row in observables.ROWS}
    traces = []
    for index in range(count):
        trace = Trace(keep)
        with np.errstate(all="ignore"):
            _run_replica(
                plan, operator(plan, first + index), first + index, {name: array[index : index + 1] for name, array in out.items()}, trace
            )
        traces.append(trace.arrays)
    if keep:
        out["keep"] = traces
    return out


class Trace:
    """Arrays kept on request, true values in float64: lists over layers; "activation" and "grad_activation" start at a[0]."""

    NAMES = ("activation", "preactivation", "grad_activation", "grad_preactivation", "grad_weight", "grad_bias")

    def __init__(self, keep):
        self.arrays = {name: {} for name in keep}

    def keep(self, name, layer, make):
        if name in self.arrays:
            self.arrays[name][layer] = make()


class Dense:
    """Unit draws D[l] of every weight as matrices: forward D u, backward D^T delta; the layer's scale is applied by the caller."""

    def __init__(self, plan, replica):
        self.plan, self.replica = plan, replica

    def matrix(self, layer):
        """The unit draw of W[layer], (n[l], n[l-1]) float64, or the caller's own weight."""
        plan, rows, columns = self.plan, int(self.plan.widths[layer]), int(self.plan.widths[layer - 1])
        if plan.distribution == "given":
            return plan.weights[layer - 1]
        if plan.distribution == "identity":
            return np.eye(rows, columns)
        if plan.distribution == "constant":
            return np.ones((rows, columns))
        if plan.distribution == "haar":
            return haar(stream.matrix(plan.seed, layer, self.replica, rows, columns).astype(np.float64))
        return stream.matrix(plan.seed, layer, self.replica, rows, columns, plan.distribution, plan.distribution_parameter).astype(
            np.float64
        )

    def forward(self, layer, u):
        return self.matrix(layer).astype(u.dtype) @ u

    def backward(self, layer, delta):
        return self.matrix(layer).T.astype(delta.dtype) @ delta


def haar(normals):
    """Orthonormal rows or columns, whichever are fewer, uniform: QR with a positive diagonal (Mezzadri 2007)."""
    if normals.shape[0] < normals.shape[1]:
        return haar(normals.T).T
    q, r = np.linalg.qr(normals)
    return q * np.where(np.diag(r) < 0, -1.0, 1.0)


def _run_replica(plan, operator, replica, rows, trace):
    layers = range(1, plan.depth + 1)
    put = lambda name, layer, number: rows[name].__setitem__((0, layer), number)
    a = [_input(plan, replica)]
    u, z, preimage, norm_back = {}, {}, {}, {}
    trace.keep("activation", 0, a[0].true)

    for l in layers:
        if plan.order == 0:
            u[l] = a[l - 1]
            z[l] = _linear(plan, operator, replica, l, u[l])
            preimage[l], norm_back[l] = normalise(plan, z[l])
            v = values(plan.activation, preimage[l])
        else:
            preimage[l], norm_back[l] = normalise(plan, a[l - 1])
            u[l] = values(plan.activation, preimage[l])
            v = z[l] = _linear(plan, operator, replica, l, u[l])
        k = plan.residual_every
        a.append(a[l - k].plus(v.times(plan.residual_scale[l - 1])) if k and l % k == 0 else v)
        put("log10_mean_square_preactivation", l - 1, z[l].log10_mean_square())
        put("log10_mean_square_activation", l - 1, a[l].log10_mean_square())
        put("mean_activation", l - 1, ldexp(a[l].x.mean(dtype=np.float64), a[l].e))
        put("similarity", l - 1, _similarity(a[l].x))
        trace.keep("activation", l, a[l].true)
        trace.keep("preactivation", l, z[l].true)

    g, rows["loss"][0] = _objective(plan, replica, a[plan.depth])
    skipped = {}
    for l in reversed(layers):
        put("log10_grad_activation", l, g.log10_norm())
        trace.keep("grad_activation", l, g.true)
        k = plan.residual_every
        branch = g
        if k and l % k == 0:
            skipped[l - k] = g
            branch = g.times(plan.residual_scale[l - 1])
        if plan.order == 0:
            delta = _derivative(plan, l, preimage[l], norm_back[l], branch, put)
        else:
            delta = branch
        _observe_delta(plan, l, delta, u[l], put, trace)
        g = Block(operator.backward(l, delta.x), delta.e, plan.exponent).times(plan.scale[l - 1])
        put("log10_weight_factor", l - 1, g.log10_norm() - delta.log10_norm())
        if plan.order == 1:
            g = _derivative(plan, l, preimage[l], norm_back[l], g, put)
        if l - 1 in skipped:
            g = g.plus(skipped[l - 1])
    put("log10_grad_activation", 0, g.log10_norm())
    trace.keep("grad_activation", 0, g.true)


def _input(plan, replica):
    n, B, c = int(plan.widths[0]), plan.batch, plan.correlation
    if plan.x is not None:
        return Block.of(plan, plan.x)
    own = stream.tall(plan.seed, stream.INPUT, 0, replica, n, B).astype(np.float64)
    if c == 0:
        return Block.of(plan, own)
    common = stream.tall(plan.seed, stream.INPUT_COMMON, 0, replica, n).astype(np.float64)
    return Block.of(plan, math.sqrt(c) * common + math.sqrt(1 - c) * own)


def bias(plan, replica, layer):
    """b[layer] of a replica, (n[l], 1) float64."""
    if plan.bias_distribution == "given":
        return plan.bias_scale[layer - 1] * plan.biases[layer - 1][:, None]
    n = int(plan.widths[layer])
    return plan.bias_scale[layer - 1] * stream.tall(plan.seed, stream.BIAS, layer, replica, n, 1, plan.bias_distribution).astype(np.float64)


def _linear(plan, operator, replica, layer, u):
    """z = W u + b."""
    z = Block(operator.forward(layer, u.x), u.e, plan.exponent).times(plan.scale[layer - 1])
    if plan.bias_distribution == "zero":
        return z
    return z.plus(Block.of(plan, np.broadcast_to(bias(plan, replica, layer), z.x.shape)))


def normalise(plan, block):
    """Norm of a block, and the function that takes dJ/dNorm back to dJ/dblock.

    With m = mean (zero for rms), c = x - m, r = 1/sqrt(mean(c^2) + eps) and y = c r: dx = r (dy - mean(dy) - y mean(dy y)),
    without mean(dy) for rms.
    """
    kind = NORMS[plan.norm]
    if kind is None:
        return block, lambda g: g
    axis = 1 if kind == "batch" else 0
    mean = lambda x: x.mean(axis=axis, keepdims=True)
    centre = (lambda x: x * 0) if kind == "rms" else mean
    x, e = block.x, block.e
    c = x - centre(x)
    if e >= 0:  # r = 2^-e / sqrt(var + eps 2^-2e), and y has exponent 0
        r, e_y, e_r = 1 / np.sqrt(np.maximum(mean(c * c) + math.ldexp(plan.norm_eps, -2 * e), np.finfo(np.float64).tiny)), 0, -e
    else:  # var 2^2e is far below eps or comes near it
        r, e_y, e_r = 1 / np.sqrt(np.ldexp(mean(c * c), max(2 * e, -2000)) + plan.norm_eps), e, 0
    y = Block(c * r.astype(c.dtype), e_y, plan.exponent)
    true = y.true().astype(c.dtype)

    def back(g):
        d = g.x - centre(g.x) - true * mean(g.x * true)
        return Block(d * r.astype(c.dtype), g.e + e_r, plan.exponent)

    return y, back


def _derivative(plan, layer, preimage, norm_back, g, put):
    """The backward step through phi and Norm, with what it shows of saturation."""
    row = plan.activation
    after, s = slopes(row, preimage, g)
    after = norm_back(after)
    put("log10_derivative_factor", layer - 1, after.log10_norm() - g.log10_norm())
    put("saturated", layer - 1, (np.abs(s) < 0.01 * row.max_slope).mean())
    put("dead", layer - 1, (s == 0).all(axis=1).mean() if row.flat else 0.0)
    return after


def _observe_delta(plan, layer, delta, u, put, trace):
    """Norms of dJ/dz, dJ/db and dJ/dW = delta u^T."""
    put("log10_grad_preactivation", layer - 1, delta.log10_norm())
    trace.keep("grad_preactivation", layer, delta.true)
    bias = Block(delta.x.sum(axis=1, keepdims=True), delta.e, plan.exponent)
    if plan.clip_value:
        put("log10_grad_bias", layer - 1, _log10_clipped_norm(bias.x, bias.e, plan.clip_value))
        put("log10_grad_weight", layer - 1, _log10_clipped_norm(delta.x @ u.x.T, delta.e + u.e, plan.clip_value))
    else:
        put("log10_grad_bias", layer - 1, bias.log10_norm())
        put("log10_grad_weight", layer - 1, _log10_outer_norm(delta, _moving(plan, u)))
    trace.keep("grad_bias", layer, lambda: _clipped(bias.true()[:, 0], plan.clip_value))
    trace.keep("grad_weight", layer, lambda: _clipped(ldexp(delta.x @ u.x.T, delta.e + u.e), plan.clip_value))


def _moving(plan, u):
    """u without its mean over the batch where delta sums to zero over it (batch norm of z), and so does not see that mean.

    The Gram matrices would otherwise cancel to the square root of the rounding where u hardly varies.
    """
    if NORMS[plan.norm] != "batch" or plan.order != 0:
        return u
    return u.like(u.x - u.x.mean(axis=1, keepdims=True), u.e)


def _log10_outer_norm(delta, u):
    """log10 of the Frobenius norm of delta u^T by its Gram matrices: sum((delta^T delta) * (u^T u))."""
    d, v = delta.x.astype(np.float64), u.x.astype(np.float64)
    square = ((d.T @ d) * (v.T @ v)).sum()
    return 0.5 * np.log10(max(square, 0.0) if square == square else square) + (delta.e + u.e) * LOG10_2


def _clipped(gradient, bound):
    return np.clip(gradient, -bound, bound) if bound else gradient


def _log10_clipped_norm(gradient, e, bound):
    """log10 norm of gradient * 2^e with every entry clamped to +-bound."""
    scaled = ldexp(bound, -e)
    if scaled < 1e-150:  # every entry that is not zero is clamped
        return math.log10(bound) + 0.5 * np.log10(np.count_nonzero(gradient))
    return np.log10(np.linalg.norm(np.clip(gradient, -scaled, scaled))) + e * LOG10_2


def _similarity(x):
    """Mean cosine over pairs of non-zero columns; nan without any."""
    norms = np.linalg.norm(x, axis=0)
    x = x[:, norms > 0].astype(np.float64)
    B = x.shape[1]
    if B < 2:
        return math.nan
    cosines = (x.T @ x) / np.outer(*(2 * (norms[norms > 0],)))
    return (cosines.sum() - np.trace(cosines)) / (B * (B - 1))


def _objective(plan, replica, last):
    """dJ/da[L] and J."""
    if plan.loss:
        return heads.objective(plan, replica, last)
    n, B = int(plan.widths[-1]), plan.batch
    if plan.cotangent is not None:
        return Block.of(plan, plan.cotangent), math.nan
    normals = stream.tall(plan.seed, stream.COTANGENT, plan.depth, replica, n, B).astype(np.float64)
    return Block.of(plan, normals / math.sqrt(n * B)), math.nan


def memory(plan: Plan, threads: int = 1) -> int:
    """Bytes of one replica: four blocks a layer and the draw of one matrix with its intermediates."""
    n = plan.widths.astype(object)
    return int(8 * 6 * plan.batch * n.sum() + 200 * (n[1:] * n[:-1]).max())
