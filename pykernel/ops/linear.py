# SPDX-License-Identifier: BSD-3-Clause
"""A layer of weights: z = W u + b. Its gradients are dJ/dW = delta u^T and dJ/db, the sum of delta over the columns."""

from __future__ import annotations

import math

import numpy as np

from pykernel import stream
from pykernel.block import LOG10_2, Block, ldexp
from pykernel.dtypes import Floats
from pykernel.program import BIASES, CENTRED, Op, Program, forms_gradient
from pykernel.seen import Run
from pykernel.totals import Total
from pykernel.window import as_kernel

TABLE = "layer"


def forward(run: Run, op: Op, number: int) -> Block:
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


def backward(run: Run, op: Op, number: int, u: Block) -> None:
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
    outer = lambda: _outer(program, number, delta.x, u.x)
    if clip:
        run.put("log10_grad_bias", number, _log10_clipped_norm(total.x, total.e, clip))
        run.put("log10_grad_weight", number, _log10_clipped_norm(outer(), delta.e + u.e, clip))
    else:
        run.put("log10_grad_bias", number, total.log10_norm())
        moving = _moving(u, program, program.layers.centred[number])
        if forms_gradient(program.layers, number, u.x.shape[1]):
            norm = _outer_block(program, number, delta, moving).log10_norm()
        else:
            norm = _log10_outer_norm(delta, moving)
        run.put("log10_grad_weight", number, norm)
        if shared:
            _total(run, number).add(delta, moving)
    kernel = lambda: as_kernel(ldexp(outer(), delta.e + u.e), program.taps(layer))
    for suffix in ("",) if shared else ("", "_total"):
        run.trace.keep(f"grad_bias{suffix}", layer, lambda: _clipped(total.true()[:, 0], clip))
        run.trace.keep(f"grad_weight{suffix}", layer, lambda: _clipped(kernel(), clip))
    du = Block(run.operator.backward(layer, delta.x), delta.e, program.exponent).times(run.operator.scale(layer))
    run.put("log10_weight_factor", number, du.log10_norm() - delta.log10_norm())
    run.give(op.ins[0], du)


def finish(run: Run) -> None:
    """The rows of shared weights, of the sums over their uses, once all are known."""
    for number, total in run.totals.items():
        _finish(run, number, total)


def _finish(run: Run, number: int, total: Total) -> None:
    """The same of one weight."""
    clip, taps = run.program.clip_value, run.program.taps(run.program.first_uses[number] + 1)
    norm = lambda block: _log10_clipped_norm(block.x, block.e, clip) if clip else block.log10_norm()
    run.put("log10_grad_weight_total", number, norm(total.weight()) if clip else total.log10_norm())
    run.put("log10_grad_bias_total", number, norm(total.bias))
    whole = lambda: as_kernel(total.weight().true(), taps)
    run.trace.keep("grad_weight_total", number + 1, lambda: _clipped(whole(), clip))
    run.trace.keep("grad_bias_total", number + 1, lambda: _clipped(total.bias.true()[:, 0], clip))


def _total(run: Run, number: int) -> Total:
    """The sum that a use belongs to."""
    program, layers = run.program, run.program.layers
    weight = int(layers.weight[number])
    if weight not in run.totals:
        rows, columns = int(layers.units[number]), int(layers.columns[number])
        uses = program.batch * int(layers.positions[layers.weight == weight].sum())
        few = layers.groups[number] == 1 and uses * (rows + columns) <= rows * columns
        outer = lambda delta, u: delta.like(_outer(program, number, delta.x, u.x), delta.e + u.e)
        run.totals[weight] = Total(few, outer)
    return run.totals[weight]


def bias(program: Program, replica: int, layer: int) -> Floats:
    """b[layer] of a replica, (n[l], 1) float64."""
    layers, i = program.layers, layer - 1
    kind = BIASES[layers.bias_draw[i]]
    if kind == "given" and program.biases is not None:
        return layers.bias_scale[i] * program.biases[i][:, None]
    draws = stream.tall(program.seed, stream.BIAS, int(layers.address[i]), replica, int(layers.units[i]), 1, kind)
    return layers.bias_scale[i] * draws.astype(np.float64)


def by_group(program: Program, number: int, u: np.ndarray) -> np.ndarray:
    """The input of a layer, tap by tap, as (groups, columns of W, columns)."""
    layers = program.layers
    groups, taps = int(layers.groups[number]), int(layers.taps[number])
    if groups == 1:
        return u[None]
    return u.reshape(taps, groups, -1, u.shape[-1]).swapaxes(0, 1).reshape(groups, -1, u.shape[-1])


def from_groups(program: Program, number: int, u: np.ndarray) -> np.ndarray:
    """And back."""
    layers = program.layers
    groups, taps = int(layers.groups[number]), int(layers.taps[number])
    if groups == 1:
        return u[0]
    return u.reshape(groups, taps, -1, u.shape[-1]).swapaxes(0, 1).reshape(-1, u.shape[-1])


def _outer(program: Program, number: int, delta: np.ndarray, u: np.ndarray) -> np.ndarray:
    """dJ/dW = delta u^T, group by group, as W is: (units, columns)."""
    groups = int(program.layers.groups[number])
    product = delta.reshape(groups, -1, delta.shape[-1]) @ by_group(program, number, u).swapaxes(1, 2)
    return product.reshape(len(delta), -1)


def _outer_block(program: Program, number: int, delta: Block, u: Block) -> Block:
    """The same as a block, of mantissas of order one."""
    tops = [np.abs(block.x).max() for block in (delta, u)]
    if not all(0 < top < np.inf for top in tops):
        return delta.like(_outer(program, number, delta.x, u.x), delta.e + u.e)
    x, y = (block.x.astype(np.float64) / top for block, top in zip((delta, u), tops, strict=True))
    powers = sum(math.log10(top) for top in tops) / LOG10_2
    whole = math.floor(powers)
    return Block(_outer(program, number, x, y) * 2.0 ** (powers - whole), delta.e + u.e + whole)


def _moving(u: Block, program: Program, centred: int) -> Block:
    """u without its mean over the columns over which delta sums to zero, which is not seen (see Layers.centred).

    The Gram matrices would otherwise cancel to the square root of the rounding where u hardly varies.
    """
    if not centred:
        return u
    columns = u.x.shape[1]
    count = columns if CENTRED[centred] == "columns" else columns // program.batch
    x = u.x.reshape(len(u.x), -1, count)
    return u.like((x - x.mean(axis=2, keepdims=True)).reshape(u.x.shape), u.e)


def _log10_outer_norm(delta: Block, u: Block) -> float:
    """log10 of the Frobenius norm of delta u^T by its Gram matrices: sum((delta^T delta) * (u^T u))."""
    d, v = delta.x.astype(np.float64), u.x.astype(np.float64)
    square = ((d.T @ d) * (v.T @ v)).sum()
    return 0.5 * np.log10(max(square, 0.0) if square == square else square) + (delta.e + u.e) * LOG10_2


def _clipped(gradient: np.ndarray, bound: float) -> np.ndarray:
    return np.clip(gradient, -bound, bound) if bound else gradient


def _log10_clipped_norm(gradient: np.ndarray, e: int, bound: float) -> float:
    """log10 norm of gradient * 2^e with every entry clamped to +-bound."""
    scaled = ldexp(bound, -e)
    if scaled < 1e-150:  # every entry that is not zero is clamped
        return math.log10(bound) + 0.5 * np.log10(np.count_nonzero(gradient))
    return np.log10(np.linalg.norm(np.clip(gradient, -scaled, scaled))) + e * LOG10_2
