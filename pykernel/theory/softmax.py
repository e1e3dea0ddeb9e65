# SPDX-License-Identifier: BSD-3-Clause
"""Softmax weights of normal scores over so many keys: the means that attention at infinite width is made of.

Scores of one query over its keys are normal with one variance and one covariance; what they share cancels in the
softmax, so they count as independent with variance s^2, and those of another query as pairs of correlation r with them.
With A and A' the weights of two queries, every mean follows from

    own = E sum A^2,   w(r) = E sum A A',   flow(r) = dw/dr / s^2 = E sum_ij A_i (1_ij - A_j) A'_i (1_ij - A'_j).

The last equality is Price's theorem (1958); the right-hand side is what a gradient meets on its way through a softmax.
A sum of exponentials in the denominator becomes a Laplace transform, 1/Z^k = int x^(k-1) exp(-x Z) dx / (k-1)!, under
which keys are independent: E exp(-x e^g) to the power of their number, so any number of keys costs the same, and the
only integrals are over one or two numbers.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from pykernel.theory.quadrature import legendre

STEP = 0.5  # of trapezia over log x: |Gamma(i w)| falls as exp(-pi w / 2), so what aliases is exp(-pi^2 / STEP) = 3e-9
REACH = 8.5  # standard deviations; the weight beyond is below 1e-16
LOWEST, HIGHEST, EACH = -5.0, math.log(100.0), 0.25  # log variances of the table; a line from 0 to the first
NODES = 11  # correlations, Chebyshev's on 0 .. 1
EVERY = 64  # keys of a causal query up to which each number is taken; of more a geometric sample, the rest between


class Weights(NamedTuple):
    """Means over the queries of one attention, and over pairs of its queries.

    Attributes:
        variance: of the scores, without what the keys of a query share.
        own: E sum A^2.  flow: E sum_ij (A_i (1_ij - A_j))^2.  entropy: E sum -A log A, nats.
        lean: (E (sum A g)^2 / s^2 - own) / s^2, g the scores: how far weights pull a mean over keys along the query.
        apart: own minus w(1), 0 unless queries see different keys.
        shared: coefficients of log flow(r) in powers of 2 r - 1, over pairs.
    """

    variance: float
    own: float
    flow: float
    entropy: float
    lean: float
    apart: float
    shared: np.ndarray

    def shared_flow(self, r: float) -> float:
        """flow(r) of two queries whose scores have the correlation r; below 0 on a straight line."""
        at = float(np.exp(self.shared @ (2 * max(r, 0.0) - 1) ** _POWERS))
        return at if r >= 0 else max(at * (1 + r * self._steepness), 0.0)

    @property
    def _steepness(self) -> float:
        """d log flow / dr at 0."""
        return 2 * float(self.shared[1:] @ (_POWERS[1:] * (-1.0) ** _POWERS[:-1]))

    def gap(self, r: float) -> float:
        """own - w(r), of order 1 - r without cancellation."""
        below = 0.0 if r >= 0 else -r * (self.shared_flow(0.0) + self.shared_flow(r)) / 2
        return self.apart + self.variance * (_rest(self.shared, max(r, 0.0)) + below)


_POWERS = np.arange(NODES)
_CORRELATIONS = (1 - np.cos(np.pi * _POWERS / (NODES - 1))) / 2
_TO_POWERS = np.linalg.inv((2 * _CORRELATIONS[:, None] - 1) ** _POWERS)
_X, _W = (np.array(a) for a in legendre(16))
_Y, _Y_WEIGHT = ((1 + _X) / 2) ** 2, (1 + _X) / 2 * _W  # 1 - r at its root's nodes: flow(r) is steep near 1


def _rest(shared: np.ndarray, r: float) -> float:
    """int of flow over r .. 1."""
    at = 1 - 2 * (1 - r) * _Y
    return (1 - r) * float(_Y_WEIGHT @ np.exp(at[:, None] ** _POWERS @ shared))


@lru_cache(maxsize=64)
def softmax(keys: int, causal: bool = False) -> Softmax:
    """The means for queries that see `keys` keys, or, of causal attention over so many positions, 1 .. keys of them."""
    return Softmax(keys, causal)


class Softmax:
    """Means over the softmax weights of normal scores as functions of the scores' variance.

    Args:
        keys: that a query sees.  causal: query t sees the first t of them; means are over queries and pairs of queries.
    """

    def __init__(self, keys: int, causal: bool) -> None:
        self.keys, self.causal = keys, causal
        self.counts, self.share = _sample(keys) if causal else (np.array([keys]), np.ones(1))
        seen = np.arange(1, keys + 1) if causal else np.array([keys])
        later = seen[1:]  # of a pair the query that sees more keys; it is one of t pairs with earlier queries
        self.uniform_cross = float(2 * np.sum((later - 1) / later) / (keys * (keys - 1))) if causal else 1 / keys
        flow = float(np.mean((seen - 1) / seen**2))
        # of pairs t < s: the mean of (1 - 1/t) / s
        before = np.cumsum(1 - 1 / seen)[:-1]
        shared = float(2 * np.sum(before / later) / (keys * (keys - 1))) if causal else flow
        own, entropy = float(np.mean(1 / seen)), float(np.mean(np.log(seen)))
        self.first = self._vector(own, flow, entropy, 1 - own, np.full(NODES, shared))
        self._known: dict[int, np.ndarray] = {}

    def at(self, log_variance: float) -> Weights:
        """Means at one variance of the scores, up to HIGHEST."""
        s2 = math.exp(log_variance)
        if log_variance < LOWEST:
            part = s2 / math.exp(LOWEST)
            values = self.first + part * (np.exp(self._node(0)) - self.first)
        else:
            x = (log_variance - LOWEST) / EACH
            begin = max(math.floor(x) - 1, 0)
            x -= begin
            a, b, c, d = x, x - 1, x - 2, x - 3
            at = (-b * c * d / 6, a * c * d / 2, -a * b * d / 2, a * b * c / 6)
            values = np.exp(sum(w * self._node(begin + i) for i, w in enumerate(at)))
        own, flow, entropy, lean = values[:4].tolist()
        shared = _TO_POWERS @ np.log(values[4:])
        apart = own - self.uniform_cross - s2 * _rest(shared, 0.0) if self.causal else 0.0
        return Weights(s2, own, flow, entropy, lean, apart, shared)

    def _node(self, k: int) -> np.ndarray:
        """Logs of the means at a place of the table."""
        if k not in self._known:
            std = math.exp((LOWEST + EACH * k) / 2)
            shared = [self._pairs(std, r) for r in _CORRELATIONS.tolist()]
            self._known[k] = np.log(self._vector(*self._one_query(std), np.array(shared)))
        return self._known[k]

    @staticmethod
    def _vector(own: float, flow: float, entropy: float, lean: float, shared: np.ndarray) -> np.ndarray:
        return np.maximum(np.array([own, flow, entropy, lean, *shared]), 1e-300)

    def _grid(self, std: float) -> np.ndarray:
        """log x, over which the integrands are summed."""
        low, high = -(REACH - 1) * std - math.log(self.keys) - 22.0, (REACH - 1) * std + 4.5
        return np.arange(math.floor(low / STEP), math.ceil(high / STEP) + 1) * STEP

    def _one_query(self, std: float) -> tuple[float, float, float, float]:
        """own, flow, entropy and lean, from sums of A^2, A^3, A^4 over keys and of A^2 A'^2 over pairs of keys."""
        t = self._grid(std)
        empty, moments = _laplace(t, std)
        none = np.exp(-np.exp(t))
        own = flow = entropy = lean = 0.0
        for n, share in zip(self.counts.tolist(), self.share.tolist(), strict=True):
            others = STEP * n * np.exp((n - 1) * empty)
            second, third, fourth = (float(moment @ others) for moment in moments)
            two = STEP * n * (n - 1) * float(moments[0] ** 2 @ np.exp((n - 2) * empty))
            square = (fourth + two) / 6  # of sum A^2
            own += share * second
            flow += share * (second - third + square)
            lean += share * (1 - second - 3 * third + 6 * square)
            log_sum = STEP * float((none - np.exp(n * empty)).sum())
            entropy += share * (log_sum - std * std * (1 - second))
        return own, flow, entropy, lean

    def _pairs(self, std: float, r: float) -> float:
        """flow(r) of n keys: n int int (G f^(n-1) + (n-1) F^2 f^(n-2)) over log x and log y.

        f = E exp(-x e^g - y e^g'), F = x y d^2 f / dx dy, G the same of F.
        """
        t = self._grid(std)
        f, F, G = _two_queries(t, std, r)
        log_f = np.log(np.maximum(f, 1e-300))
        alone = np.minimum(_laplace(t, std)[0], -1e-14)
        total = 0.0
        for n, share in zip(self.counts.tolist(), self.share.tolist(), strict=True):
            if n == 1:  # the weight is 1 whatever the score
                continue
            inside = n * G * np.exp((n - 1) * log_f) + n * (n - 1) * F * F * np.exp((n - 2) * log_f)
            if self.causal:  # all queries that see more, whose further keys are theirs alone
                further = np.exp(alone) * np.expm1((self.keys - n) * alone) / np.expm1(alone)
                total += 2 * share / (self.keys - 1) * float(inside.sum(axis=0) @ further)
            else:
                total += float(inside.sum())
        return STEP * STEP * total


def _sample(keys: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of keys 1 .. `keys` and their shares in a mean over all of them: straight lines between those that are
    left out."""
    every = np.arange(1, keys + 1)
    some = np.unique(np.round(np.geomspace(1, keys, EVERY)).astype(int)) if keys > EVERY else every
    share = np.bincount(np.searchsorted(some, every), minlength=len(some)).astype(float)
    if len(some) < keys:
        right = np.searchsorted(some, every)
        left = np.maximum(right - 1, 0)
        part = (every - some[left]) / np.maximum(some[right] - some[left], 1)
        part[right == 0] = 1.0
        share = np.bincount(right, part, len(some)) + np.bincount(left, 1 - part, len(some))
    return some, share / keys


def _normal(std: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights for a normal number of this standard deviation inside functions that vary on scales of 1."""
    if std == 0:
        return np.zeros(1), np.ones(1)
    step = min(0.5, STEP / std)
    count = math.ceil(REACH / step)
    z = np.arange(-count, count + 1) * step
    return std * z, step * np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _exponentials(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """u = e^t and e^-u, u held where the other is zero."""
    u = np.exp(np.minimum(t, 60.0))
    return u, np.exp(-u)


def _laplace(t: np.ndarray, std: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """log E e^-u and E u^k e^-u, k = 2, 3, 4, of u = e^(t + g)."""
    g, weight = _normal(std)
    u, e = _exponentials(t[:, None] + g)
    e = e * weight
    return np.log(np.maximum(e.sum(axis=1), 1e-300)), [(u**k * e).sum(axis=1) for k in (2, 3, 4)]


def _two_queries(t: np.ndarray, std: float, r: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """f, F and G of `Softmax._pairs` on the grid t x t: given the part that g and g' share they are independent."""
    common, weight = _normal(math.sqrt(r) * std)
    own, density = _normal(math.sqrt(1 - r) * std)
    aligned = len(common) > 1 and common[1] - common[0] >= STEP * (1 - 1e-9)
    if aligned:  # sums of two places of the grid are places of a longer one
        reach = len(common) // 2
        long = t[0] + STEP * np.arange(-reach, len(t) + reach)
        index = np.arange(len(t))[:, None] + np.arange(len(common))
    else:
        long = (t[:, None] + common).ravel()
        index = np.arange(long.size).reshape(len(t), -1)
    u, e = _exponentials(long[:, None] + own)
    root = np.sqrt(weight)
    out = []
    for derivative in (e, u * e, (u * u - u) * e):
        at = (derivative @ density)[index] * root
        out.append(at @ at.T)
    return out[0], out[1], out[2]
