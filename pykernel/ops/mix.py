# SPDX-License-Identifier: BSD-3-Clause
"""Attention between the positions of one input: o = V A, A = softmax over the keys of scale K^T Q, head by head.

Scores may lie beyond float range: then a softmax is a one-hot column, and what flows through its scores is kept in
log2, like a saturated sigmoid's slope.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pykernel.block import Block, ldexp
from pykernel.dtypes import Bools
from pykernel.program import FAINTEST_WEIGHT, Op, Program
from pykernel.seen import Run

TABLE = "mix"
LOG2_E = 1.4426950408889634


def forward(run: Run, op: Op, number: int) -> tuple[Block, Block, Block]:
    """o into `out`; query, key and value are kept."""
    q, k, v = (run.registers[i] for i in op.ins)
    shape = _Shape(run.program, number, q)
    found = _softmax(shape, q, k)
    weights = np.exp2(found.log2)
    bits = weights * np.where(weights > 0, -found.log2, 0.0)
    run.put("attention_entropy", number, bits.sum(axis=-2).mean() / LOG2_E)
    run.put("score_std", number, _deviation(shape, found.scores))
    o = np.einsum("bhkd,bhkq->bhqd", shape.shared(v), found.shares.astype(v.x.dtype))
    run.registers[op.out] = v.like(shape.columns(found.over_sum(o)), v.e)
    return q, k, v


def backward(run: Run, op: Op, number: int, kept: tuple[Block, Block, Block]) -> None:
    """dV = dO A^T; dS = A (dA - sum over keys of A dA), dA = V^T dO; dQ = scale K dS, dK = scale Q dS^T."""
    q, k, v = kept
    shape = _Shape(run.program, number, q)
    found = _softmax(shape, q, k)
    g = run.take(op.out)
    dO = shape.heads(g)
    dV = np.einsum("bhqd,bhkq->bhkd", found.over_sum(dO), found.shares.astype(dO.dtype))
    run.give(op.ins[2], v.like(shape.summed(dV), g.e))
    dA = Block(np.einsum("bhkd,bhqd->bhkq", shape.shared(v), dO), v.e + g.e, g.exponent)
    dS = _through_softmax(found.log2, dA)
    scale = float(run.program.mixes.scale[number])
    for i, (other, sum_over) in ((0, (shape.shared(k), "bhkd,bhkq->bhqd")), (1, (shape.heads(q), "bhqd,bhkq->bhkd"))):
        product = np.einsum(sum_over, other, dS.x.astype(other.dtype))
        columns = shape.columns(product) if i == 0 else shape.summed(product)
        run.give(op.ins[i], Block(columns, dS.e + (k, q)[i].e, g.exponent).times(scale))


class _Shape:
    """Blocks as (inputs, heads, positions, units of a head) and back."""

    def __init__(self, program: Program, number: int, block: Block) -> None:
        units, columns = block.x.shape
        self.inputs, self.positions = program.batch, columns // program.batch
        self.query, self.shared_heads = int(program.mixes.heads[number]), int(program.mixes.kv_heads[number])
        self.causal, self.scale, self.d = (
            bool(program.mixes.causal[number]),
            program.mixes.scale[number],
            units // self.query,
        )

    def heads(self, block: Block) -> np.ndarray:
        """(B, H, T, d) of a block of H d units."""
        return block.x.reshape(-1, self.d, self.inputs, self.positions).transpose(2, 0, 3, 1)

    def shared(self, block: Block) -> np.ndarray:
        """The same of key or value, each head as often as queries share it."""
        return np.repeat(self.heads(block), self.query // self.shared_heads, axis=1)

    def columns(self, array: np.ndarray) -> np.ndarray:
        """Back to (units, columns)."""
        return array.transpose(1, 3, 0, 2).reshape(-1, self.inputs * self.positions)

    def summed(self, array: np.ndarray) -> np.ndarray:
        """Back to key or value: the sum over the queries that share a head."""
        each = self.query // self.shared_heads
        return self.columns(array.reshape(self.inputs, -1, each, self.positions, self.d).sum(axis=2))

    @property
    def seen(self) -> Bools:
        """(keys, queries) bool: what each query sees."""
        every = np.ones((self.positions, self.positions), dtype=bool)
        return np.triu(every) if self.causal else every


class _Softmax(NamedTuple):
    """Attention weights, (B, H, keys, queries): shares over their sum.

    What sums with shares is divided once: numbers of a format then keep their exact means, and every backend meets the
    same ties when it rounds.

    Attributes:
        log2: of the weights, -inf where a query does not look.
        shares: of the largest weight.  sum: over the keys, (B, H, queries); with plain arithmetic shares are the
            weights, and their sum None.
        scores: their block.
    """

    log2: np.ndarray
    shares: np.ndarray
    sum: np.ndarray | None
    scores: Block

    def over_sum(self, x: np.ndarray) -> np.ndarray:
        """x, (B, H, queries, units), over each query's sum."""
        return x if self.sum is None else x / self.sum[..., None]


def _softmax(shape: _Shape, q: Block, k: Block) -> _Softmax:
    """The attention weights."""
    dot = np.einsum("bhkd,bhqd->bhkq", shape.shared(k), shape.heads(q))
    scores = Block(dot, q.e + k.e, q.exponent).times(shape.scale)
    if not q.exponent:
        weights = np.where(shape.seen, np.exp(scores.x), 0)
        weights = weights / weights.sum(axis=-2, keepdims=True)
        return _Softmax(np.log2(weights), weights, None, scores)
    visible = np.where(shape.seen, scores.x, -np.inf)
    below = ldexp(visible - visible.max(axis=-2, keepdims=True), scores.e) * LOG2_E
    shares = np.exp2(below)
    total = shares.sum(axis=-2)
    return _Softmax(below - np.log2(total)[..., None, :], shares, total, scores)


def _deviation(shape: _Shape, scores: Block) -> float:
    """Standard deviation of the scores that are looked at; inf beyond float64."""
    seen = np.broadcast_to(shape.seen, scores.x.shape)
    return float(ldexp(scores.x[seen].astype(np.float64).std(), scores.e))


def _through_softmax(log2: np.ndarray, dA: Block) -> Block:
    """dS = A (dA - sum A dA) from log2 A: the column's largest weight by the others' sum, so that it does not
    cancel."""
    if not dA.exponent:
        weights = np.exp2(log2).astype(dA.x.dtype)
        return dA.like(weights * (dA.x - (weights * dA.x).sum(axis=-2, keepdims=True)), dA.e)
    main = log2.argmax(axis=-2)[..., None, :]
    others = log2.copy()
    np.put_along_axis(others, main, -np.inf, axis=-2)
    top = others.max()
    if not top > -FAINTEST_WEIGHT:  # one key each, or less than an exponent can say: nothing flows
        return dA.like(dA.x * 0.0, 0)  # nan where dA overflowed
    e = math.floor(top)
    share = np.exp2(others - e)  # of the weights' own size, times 2^e
    from_main = dA.x - np.take_along_axis(dA.x, main, axis=-2)
    mean = np.exp2(float(e)) * (share * from_main).sum(axis=-2, keepdims=True) if e > -1000 else 0.0
    dS = share * (from_main - mean)
    np.put_along_axis(dS, main, -dS.sum(axis=-2, keepdims=True), axis=-2)
    return Block(dS, dA.e + e, True)
