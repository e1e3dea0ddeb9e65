# SPDX-License-Identifier: BSD-3-Clause
"""A layer of weights: z = W u + b. Its gradients are dJ/dW = delta u^T and dJ/db, the sum of delta over the columns."""

from __future__ import annotations

import math

import numpy as np

from pykernel import stream
from pykernel.block import LOG10_2, Block, ldexp
from pykernel.ops.totals import Total
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
    shared = program.counts.weight
    clip = 0.0 if shared else program.clip_value  # of shared weights the totals are clipped
    run.put("log10_grad_preactivation", number, delta.log10_norm())
    if run.tangent is not None:
        run.tangent.add(number, delta, u)
    run.trace.keep("grad_preactivation", layer, delta.true)
    run.trace.keep("input", layer, u.true)
    total = delta.like(delta.x.sum(axis=1, keepdims=True), delta.e)
    if clip:
        run.put("log10_grad_bias", number, _log10_clipped_norm(total.x, total.e, clip))
        run.put("log10_grad_weight", number, _log10_clipped_norm(delta.x @ u.x.T, delta.e + u.e, clip))
    else:
        run.put("log10_grad_bias", number, total.log10_norm())
        seen = _moving(u) if program.layers.centred[number] else u
        run.put("log10_grad_weight", number, _log10_outer_norm(delta, seen))
        if shared:
            _total(run, number).add(delta, seen)
    for suffix in ("",) if shared else ("", "_total"):
        run.trace.keep(f"grad_bias{suffix}", layer, lambda: _clipped(total.true()[:, 0], clip))
        run.trace.keep(f"grad_weight{suffix}", layer, lambda: _clipped(ldexp(delta.x @ u.x.T, delta.e + u.e), clip))
    du = Block(run.operator.backward(layer, delta.x), delta.e, program.exponent).times(run.operator.scale(layer))
    run.put("log10_weight_factor", number, du.log10_norm() - delta.log10_norm())
    run.give(op.ins[0], du)


def finish(run):
    """The rows of shared weights, of the sums over their uses, once all are known."""
    clip = run.program.clip_value
    norm = lambda block: _log10_clipped_norm(block.x, block.e, clip) if clip else block.log10_norm()
    for number, total in run.totals.items():
        run.put("log10_grad_weight_total", number, norm(total.weight()) if clip else total.log10_norm())
        run.put("log10_grad_bias_total", number, norm(total.bias))
        run.trace.keep("grad_weight_total", number + 1, lambda total=total: _clipped(total.weight().true(), clip))
        run.trace.keep("grad_bias_total", number + 1, lambda total=total: _clipped(total.bias.true()[:, 0], clip))


def _total(run, number):
    """The sum that a use belongs to."""
    layers, weight = run.program.layers, int(run.program.layers.weight[number])
    if weight not in run.totals:
        uses = run.program.columns * int(np.count_nonzero(layers.weight == weight))
        run.totals[weight] = Total(int(layers.units[number]), int(layers.columns[number]), uses)
    return run.totals[weight]


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
