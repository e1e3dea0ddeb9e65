# SPDX-License-Identifier: BSD-3-Clause
"""Finite width over a batch: how much of one input's fluctuation is left in the sum over inputs, for chains of two
linear pieces."""

from __future__ import annotations

import math

import numpy as np

from pykernel.theory.plain import Plain
from pykernel.theory.signals import Signal


def shares(facts: Plain, signal: Signal) -> np.ndarray:
    """Variance of log sum_b |dJ/da[l]_b|^2 over that of one input, l = 0 .. L: Gaussian weights, no bias, a cotangent
    of its own for each.

    Notes:
        Per pair of inputs three second moments go along, Q = E |g|^4, P = E |g|^2 |g'|^2 and C = E (g . g')^2, closed
        under W^T (entries normal: Q (n^2 + 2n), P n^2 + 2 C n, C n^2 + (P + C) n) and under slopes, which two inputs
        share as their correlation says (fair coins for one: Hanin, Nica 2018, Prop. 2). log(Q/B + (1 - 1/B) P) is the
        variance of the log of the sum were it log-normal; over log Q it is the share. Inputs whose gradients have
        fallen together have a share of 1.
    """
    L, B, row = facts.depth, facts.program.columns, facts.activation
    left, right = float(row.left), float(row.right)
    angle = 2 * np.arcsin(np.sqrt(np.clip(np.exp(signal.spread - signal.raw), 0, 2) / 2))
    apart = angle / (2 * math.pi)  # P(first live, second not)
    together = 0.5 - apart
    middle = (left**2 + right**2) / 2
    own = (left**4 + right**4) / 2 / middle**2
    joint = (together * (left**4 + right**4) + 2 * apart * left**2 * right**2) / middle**2
    product = ((together * (left**2 + right**2) + 2 * apart * left * right) / middle) ** 2
    n_in, n_out = facts.widths[:-1].astype(float), facts.widths[1:].astype(float)
    units = n_out if facts.order == 0 else n_in
    P, C, log = 1.0, 1 / n_out[-1], 0.0  # in units of Q
    out = np.ones(L + 1)
    for i in range(L - 1, -1, -1):
        n, m = float(n_in[i]), float(units[i])
        Q = 1.0
        for part in ("slopes", "weights") if facts.order == 0 else ("weights", "slopes"):
            if part == "slopes":
                same = (P + 2 * C) / (m + 2)  # sum of g_i^2 g'_i^2
                Q *= 1 + (own - 1) * 3 / (m + 2)
                P, C = P + (joint[i] - 1) * same, product[i] * (C - same) + joint[i] * same
            else:
                Q, P, C = Q * (1 + 2 / n), P + 2 * C / n, C + (P + C) / n
        log += math.log(Q)
        P, C = P / Q, C / Q
        out[i] = 1 + math.log((1 + (B - 1) * P) / B) / log
    return np.clip(out, 0.0, 1.0)
