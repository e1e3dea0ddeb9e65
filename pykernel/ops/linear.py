# SPDX-License-Identifier: BSD-3-Clause
"""A layer of weights: z = W u + b. Its gradients are dJ/dW = delta u^T and dJ/db, the sum of delta over the columns."""

from __future__ import annotations

import math

import numpy as np

from pykernel import stream
from pykernel.block import LOG10_2, Block, ldexp
from pykernel.program import BIASES

TABLE = "layer"


def forward(run, op, number):
    """z into `out`; u is kept."""
    program, layer = run.program, number + 1
    u = run.registers[op.ins[0]]
    z = Block(run.operator.forward(layer, u.x), u.e, program.exponent).times(run.operator.scale(layer))
    if BIASES[program.layers.bias_draw[number]] != "zero":
        z = z.plus(Block.of(program, np.broadcast_to(bias(program, run.replica, layer), z.x.shape)))
    run.put("log10_mean_square_preactivation", number, z.log10_mean_square())
    run.trace.keep("preactivation", layer, z.true)
    run.registers[op.out] = z
    return u


def backward(run, op, number, u):
    """W^T delta, and the norms of dJ/dz, dJ/db and dJ/dW."""
    program, layer = run.program, number + 1
    delta = run.take(op.out)
    clip = program.clip_value
    run.put("log10_grad_preactivation", number, delta.log10_norm())
    run.trace.keep("grad_preactivation", layer, delta.true)
    run.trace.keep("input", layer, u.true)
    total = delta.like(delta.x.sum(axis=1, keepdims=True), delta.e)
    if clip:
        run.put("log10_grad_bias", number, _log10_clipped_norm(total.x, total.e, clip))
        run.put("log10_grad_weight", number, _log10_clipped_norm(delta.x @ u.x.T, delta.e + u.e, clip))
    else:
        run.put("log10_grad_bias", number, total.log10_norm())
        run.put(
            "log10_grad_weight", number, _log10_outer_norm(delta, _moving(u) if program.layers.centred[number] else u)
        )
    run.trace.keep("grad_bias", layer, lambda: _clipped(total.true()[:, 0], clip))
    run.trace.keep("grad_weight", layer, lambda: _clipped(ldexp(delta.x @ u.x.T, delta.e + u.e), clip))
    du = Block(run.operator.backward(layer, delta.x), delta.e, program.exponent).times(run.operator.scale(layer))
    run.put("log10_weight_factor", number, du.log10_norm() - delta.log10_norm())
    run.give(op.ins[0], du)


def bias(program, replica, layer):
    """b[layer] of a replica, (n[l], 1) float64."""
    layers, i = program.layers, layer - 1
    kind = BIASES[layers.bias_draw[i]]
    if kind == "given":
        return layers.bias_scale[i] * program.biases[i][:, None]
    draws = stream.tall(program.seed, stream.BIAS, int(layers.address[i]), replica, int(layers.units[i]), 1, kind)
    return layers.bias_scale[i] * draws.astype(np.float64)


def _moving(u):
    """u without its mean over the columns: delta sums to zero over them (batch norm of z), and so does not see that
    mean.

    The Gram matrices would otherwise cancel to the square root of the rounding where u hardly varies.
    """
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
