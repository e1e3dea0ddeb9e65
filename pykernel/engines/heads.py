# SPDX-License-Identifier: BSD-3-Clause
"""The head of the reference engine: logits, loss and its derivative, by stable formulas or (native precision) by the
plain ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pykernel import stream
from pykernel.activations import LOG2_E, log2_sigmoid
from pykernel.block import Block, from_log2, ldexp
from pykernel.dtypes import Floats
from pykernel.engines.rounding import stored, stored_weight
from pykernel.program import Program

Keep = Callable[[str, int, Callable[[], np.ndarray]], None]  # name, number, what makes the array


def objective(
    program: Program, replica: int, last: Block, keep: Keep = lambda name, number, make: None
) -> tuple[Block, float]:
    """dJ/da[N] and J for the block of the last node; with formats the weight, the logits and their gradient are
    rounded. `keep` is told what the head reads, its logits, and dJ/dlogits."""
    formats = program.formats
    head, address = program.head, program.depth + 1
    last = _read(program, last)
    weight = head.weight
    if weight is None:
        weight = stream.matrix(program.seed, address, replica, head.outputs, len(last.x), *head.draw)
    weight, scale = weight.astype(last.x.dtype), head.scale
    if formats is not None and formats.row("weights") is not None:
        rounded = stored_weight(program, replica, address, (weight * scale).astype(program.dtype))
        weight, scale = rounded.astype(weight.dtype), 1.0
    y = Block(weight @ last.x, last.e, program.exponent).times(scale)
    if head.bias is not None:
        y = y.plus(Block.of(program, np.broadcast_to(head.bias[:, None], y.x.shape)))
    behind = program.op_count + 1
    y = stored(program, replica, "signals", y, behind)
    keep("head_input", 0, last.true)
    keep("logits", 0, y.true)
    t = head.targets if head.targets is not None else drawn_targets(program, replica, address)
    dy, loss = (_STABLE if program.exponent else _PLAIN)[str(head.loss)](y, t.astype(last.x.dtype))
    dy = dy.times(1 / program.read_columns)
    if formats is not None:
        dy = stored(program, replica, "gradients", dy.times(formats.loss_scale), behind)
    keep("grad_logits", 0, dy.true)
    du = Block(weight.T @ dy.x, dy.e, program.exponent).times(scale)
    return _spread(program, du), float(loss / program.read_columns)


def memory(program: Program) -> int:
    """Bytes that a head takes, about: the draw of its weight with intermediates, or the weight and what losses make of
    logits; measured."""
    if not program.head.loss:
        return 0
    weights, logits = (program.head.outputs * int(n) for n in (program.nodes[-1], program.read_columns))
    return max(80 * weights, 16 * weights + 90 * logits)


def _read(program: Program, last: Block) -> Block:
    """What the head reads of the last node's columns."""
    if program.head.over == "positions":
        return last
    inputs = last.x.reshape(len(last.x), program.batch, -1)
    if program.head.over == "mean":
        return last.like(inputs.mean(axis=2), last.e)
    return last.like(inputs[:, :, 0 if program.head.over == "first" else -1], last.e)


def _spread(program: Program, g: Block) -> Block:
    """The gradient of what it reads as that of every column."""
    if program.head.over == "positions":
        return g
    each = program.columns_out // program.batch
    if program.head.over == "mean":
        return g.like(np.repeat(g.x / each, each, axis=1), g.e)
    columns = np.zeros((len(g.x), program.columns_out), dtype=g.x.dtype)
    columns[:, 0 if program.head.over == "first" else each - 1 :: each] = g.x
    return g.like(columns, g.e)


def drawn_targets(program: Program, replica: int, address: int) -> Floats:
    """Drawn targets, (outputs, columns) float64."""
    seed, outputs, columns = program.seed, program.head.outputs, program.read_columns
    if program.head.loss in ("mse", "linear"):
        return stream.tall(seed, stream.TARGET, address, replica, outputs, columns).astype(np.float64)
    if program.head.loss == "sigmoid":
        return stream.bits(seed, address, replica, outputs, columns)
    return (np.arange(outputs)[:, None] == stream.classes(seed, address, replica, outputs, columns)).astype(np.float64)


def _linear(y: Block, t: np.ndarray) -> tuple[Block, float]:
    """J = sum(t y): its derivative is t itself."""
    return Block(t, 0, y.exponent), ldexp((t * y.x).sum(), y.e)


def _mse(y: Block, t: np.ndarray) -> tuple[Block, float]:
    d = y.plus(Block(-t))
    return d, ldexp(0.5 * np.square(d.x).sum(), 2 * d.e)


def _logits(y: Block) -> np.ndarray:
    """True values within +-1e300; inf and nan only where a format overflowed."""
    return np.where(np.isfinite(y.x), np.clip(y.true(), -1e300, 1e300), y.x)


def _sigmoid(y: Block, t: np.ndarray) -> tuple[Block, float]:
    """Binary cross-entropy: dJ/dy = (1 - t) sigmoid(y) - t sigmoid(-y); for t of 0 or 1 in log2, so that it never
    rounds to zero."""
    z = _logits(y)
    loss = np.where(t > 0, t * -log2_sigmoid(z), 0) + np.where(t < 1, (1 - t) * -log2_sigmoid(-z), 0)
    if ((t == 0) | (t == 1)).all():
        return from_log2(np.where(t == 1, -1.0, 1.0), log2_sigmoid(np.where(t == 1, -z, z))), loss.sum() / LOG2_E
    return Block(np.exp2(log2_sigmoid(z)) - t), loss.sum() / LOG2_E


def _softmax(y: Block, t: np.ndarray) -> tuple[Block, float]:
    """Cross-entropy: dJ/dy = p - t; where t = 1 minus the others' p, in log2."""
    z = _logits(y)
    log2 = (z - z.max(axis=0)) * LOG2_E
    log2 = log2 - np.log2(np.exp2(log2).sum(axis=0))
    loss = -(np.where(t > 0, t * log2, 0)).sum() / LOG2_E
    if not ((t == 0) | (t == 1)).all():
        return Block(np.exp2(log2) - t), loss
    others = np.where(t == 1, -math.inf, log2)
    top = others.max(axis=0)
    rest = top + np.log2(np.exp2(others - top).sum(axis=0))
    return from_log2(np.where(t == 1, -1.0, 1.0), np.where(t == 1, rest, log2)), loss


def _plain_mse(y: Block, t: np.ndarray) -> tuple[Block, float]:
    return Block(y.x - t, 0, False), 0.5 * np.square(y.x - t).sum()


def _plain_sigmoid(y: Block, t: np.ndarray) -> tuple[Block, float]:
    one = y.x.dtype.type(1)
    p = one / (one + np.exp(-y.x))
    loss = -(t * np.log(p) + (one - t) * np.log(one - p)).sum()
    return Block((p - t) / (p * (one - p)) * (p * (one - p)), 0, False), loss


def _plain_softmax(y: Block, t: np.ndarray) -> tuple[Block, float]:
    e = np.exp(y.x)
    p = e / e.sum(axis=0)
    return Block(p - t, 0, False), -(t * np.log(p)).sum()


_STABLE = {"linear": _linear, "mse": _mse, "sigmoid": _sigmoid, "softmax": _softmax}
_PLAIN = {"linear": _linear, "mse": _plain_mse, "sigmoid": _plain_sigmoid, "softmax": _plain_softmax}
