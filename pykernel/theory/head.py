# SPDX-License-Identifier: BSD-3-Clause
"""What a loss on top of an infinitely wide chain sends back: the size of its gradient, how alike it is over the batch,
and its mean."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pykernel.distributions import unit_variance
from pykernel.program import Program
from pykernel.theory.correlation import pair_loss
from pykernel.theory.quadrature import gaussian_mean
from pykernel.theory.softmax import HIGHEST, softmax

SAMPLE = 20_000  # logits of a softmax whose means are not known otherwise


class Start(NamedTuple):
    """Where the backward pass begins: log of the squared norm of dJ/da[L] over units and batch, its correlation between
    two inputs (mean over pairs), the mean loss; `between`: the correlation of columns of different inputs, where the
    other is that of two positions of one input.
    """

    square: float
    coherence: float
    loss: float
    between: float = 0.0


def start(program: Program, log_value2: float, distance: float, between: float | None = None) -> Start:
    """The gradient at a[L], given the log mean square of a[L] and one minus the cosine of two inputs' a[L] (nan with
    one input); `between`: that of columns of different inputs, where the other is that of positions of one.

    Without a head the cotangent is iid N(0, 1/(n[L] B)): 0, 0 and nan. With one, logits are N(0, n[L] Var W E a^2),
    independent over outputs and of targets (drawn), and between two inputs as correlated as a[L]; the gradient's part
    along a[L] is of order outputs / width and left out.
    """
    head = program.head
    if head.loss is None:
        return Start(0.0, 0.0, math.nan)
    K, n, B = head.outputs, int(program.nodes[-1]), program.read_columns
    entry = head.scale**2 * unit_variance(*head.draw)
    if not math.isfinite(entry):
        raise ValueError("mean field needs a head whose weights have a variance")
    over, T = head.over if program.columns > B else "positions", program.columns // program.batch
    apart = [distance] if over == "positions" else []
    apart += [] if between is None else [between]
    if over == "mean":  # of positions: their mean square, and what is left of the products of inputs
        left = (1 + (T - 1) * (1 - distance)) / T
        log_value2 += math.log(left) if left > 0 else -math.inf
        apart = [1 - (1 - gap) / left if left > 0 else 0.0 for gap in apart]
    log_q = math.log(entry * n) + log_value2 if entry > 0 else -math.inf
    q = math.exp(min(log_q, 700.0))
    own, *shared = _target_moments(program, len(apart) > 1)
    coherences = []
    for gap, common in zip(apart or [math.nan], shared, strict=False):
        predicted, cross, loss = _moments(program, q, gap if B > 1 and math.isfinite(gap) else 1.0)
        square = predicted + own
        coherences.append((cross + common) / square if B > 1 and square > 0 else 0.0)
    if head.loss == "mse":
        loss = K * q / 2 + own / 2
    norm = (math.log(square / B) if square > 0 else -math.inf) + math.log(entry * n)
    if over == "mean":  # every position has the same gradient
        return Start(norm - math.log(T), 1.0, float(loss), coherences[0])
    if over != "positions":  # one position has all of it: of T^2 pairs of two inputs' positions one has a product
        return Start(norm, 0.0, float(loss), coherences[0] / T)
    return Start(norm, coherences[0], float(loss), coherences[-1])


def _target_moments(program: Program, apart: bool) -> tuple[float, float, float]:
    """Mean of |t|^2 over columns and of t . t' over pairs, t the targets less what they are on average: 1/2 of a bit,
    1/K of a class. Pairs of one input and of different inputs are told `apart`, or one number counts for both."""
    K, B, kind = program.head.outputs, program.read_columns, str(program.head.loss)
    middle = {"sigmoid": 0.5, "softmax": 1 / K}.get(kind, 0.0)
    if program.head.targets is None:
        return {"sigmoid": K / 4, "softmax": 1 - 1 / K}.get(kind, float(K)), 0.0, 0.0
    t = (program.head.targets - middle).reshape(K, program.batch, -1)
    own, whole = float((t * t).sum()), float((t.sum(axis=(1, 2)) ** 2).sum())
    if not apart:
        every = (whole - own) / (B * (B - 1)) if B > 1 else 0.0
        return own / B, every, every
    inside, T = float((t.sum(axis=2) ** 2).sum()), t.shape[2]
    return own / B, (inside - own) / (B * (T - 1)), (whole - inside) / (B * (B - T))


def _moments(program: Program, q: float, gap: float) -> tuple[float, float, float]:
    """Of the predictions less their mean: squared length, product between two inputs, and the mean loss (nan: from the
    target's)."""
    K, s = program.head.outputs, math.sqrt(q)
    kind = program.head.loss
    if kind == "linear":
        return 0.0, 0.0, 0.0
    if kind == "mse":
        return K * q, K * q * (1 - gap), math.nan
    if kind == "sigmoid":
        if s == 0:
            return 0.0, 0.0, K * math.log(2)
        lost, square = pair_loss(lambda z: np.tanh(z / 2) / 2, s, gap)
        return K * square, K * square * (1 - lost), K * gaussian_mean(lambda z: np.logaddexp(0, z), s)
    if K > 1 and 0 < q <= math.exp(HIGHEST):
        found = softmax(K).at(math.log(q))
        loss = found.entropy + q * (1 - found.own)
        return found.own - 1 / K, found.own - found.gap(1 - gap) - 1 / K, loss
    draws = np.random.default_rng(0)
    count = max(100, min(SAMPLE, 4_000_000 // K))
    first = draws.standard_normal((count, K))
    second = (
        (1 - gap) * first + math.sqrt(max(gap * (2 - gap), 0.0)) * draws.standard_normal((count, K))
        if program.read_columns > 1
        else first
    )
    p, loss = _softmax(s * first)
    r, _ = _softmax(s * second)
    return float((p * p).sum()) / count - 1 / K, float((p * r).sum()) / count - 1 / K, loss


def _softmax(logits: np.ndarray) -> tuple[np.ndarray, float]:
    """Probabilities and the mean of log sum exp."""
    top = logits.max(axis=1, keepdims=True)
    e = np.exp(logits - top)
    total = e.sum(axis=1, keepdims=True)
    return e / total, float(np.mean(np.log(total) + top))
