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

SAMPLE = 20_000  # logits of a softmax


class Start(NamedTuple):
    """Where the backward pass begins: log of the squared norm of dJ/da[L] over units and batch, its correlation between
    two inputs (mean over pairs), the mean loss.
    """

    square: float
    coherence: float
    loss: float


def start(program: Program, log_value2: float, distance: float) -> Start:
    """The gradient at a[L], given the log mean square of a[L] and one minus the cosine of two inputs' a[L] (nan with
    one input).

    Without a head the cotangent is iid N(0, 1/(n[L] B)): 0, 0 and nan. With one, logits are N(0, n[L] Var W E a^2),
    independent over outputs and of targets (drawn), and between two inputs as correlated as a[L]; the gradient's part
    along a[L] is of order outputs / width and left out.
    """
    head = program.head
    if head.loss is None:
        return Start(0.0, 0.0, math.nan)
    B, K, n = program.columns, head.outputs, int(program.nodes[-1])
    entry = head.scale**2 * unit_variance(*head.draw)
    if not math.isfinite(entry):
        raise ValueError("mean field needs a head whose weights have a variance")
    log_q = math.log(entry * n) + log_value2 if entry > 0 else -math.inf
    q = math.exp(min(log_q, 700.0))
    gap = distance if B > 1 and math.isfinite(distance) else 1.0
    square, cross, loss = _moments(program, q, gap)
    own, shared = _target_moments(program)
    if head.loss == "mse":
        loss = K * q / 2 + own / 2
    square, cross = square + own, cross + shared
    coherence = cross / square if B > 1 and square > 0 else 0.0
    return Start((math.log(square / B) if square > 0 else -math.inf) + math.log(entry * n), coherence, float(loss))


def _target_moments(program: Program) -> tuple[float, float]:
    """Mean of |t|^2 over inputs and of t . t' over pairs, t the targets less what they are on average: 1/2 of a bit,
    1/K of a class."""
    K, B, kind = program.head.outputs, program.columns, str(program.head.loss)
    middle = {"sigmoid": 0.5, "softmax": 1 / K}.get(kind, 0.0)
    if program.head.targets is None:
        return {"sigmoid": K / 4, "softmax": 1 - 1 / K}.get(kind, float(K)), 0.0
    t = program.head.targets - middle
    own = float((t * t).sum()) / B
    return own, (float((t.sum(axis=1) ** 2).sum()) / B - own) / (B - 1) if B > 1 else 0.0


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
    draws = np.random.default_rng(0)
    count = max(100, min(SAMPLE, 4_000_000 // K))
    first = draws.standard_normal((count, K))
    second = (
        (1 - gap) * first + math.sqrt(max(gap * (2 - gap), 0.0)) * draws.standard_normal((count, K))
        if program.columns > 1
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
