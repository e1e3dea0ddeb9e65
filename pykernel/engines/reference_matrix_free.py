# SPDX-License-Identifier: BSD-3-Clause
"""The matrix-free engine, defined: W u and W^T delta drawn from their exact joint law without W, in plain NumPy
float64.

It is the dense reference with another operator behind each layer; C++ and Numba are held to it. The derivation is in
docs/matrix-free.md.
"""

from __future__ import annotations

import numpy as np

from pykernel import stream
from pykernel.constants import LOST_DIRECTION, PREFERRED_DIRECTION
from pykernel.engines import matrix_free_refusal, reference

refusal = matrix_free_refusal


def run(program, first, count, *, threads=1, keep=()):
    """Rows of replicas first .. first + count - 1, as `reference.run` returns them. There are no weight matrices to
    keep."""
    return reference.run_operators(program, first, count, Conditioned, keep)


def trace(program, replica):
    """As `reference.trace`."""
    return reference.trace(program, replica, Conditioned)


def memory(program, threads=1):
    """Bytes of one replica: ten blocks a layer, with the factors of its input and of its weight."""
    layers = program.layers
    columns = program.batch * layers.positions.astype(object)
    blocks = (columns * (layers.units + layers.columns)).sum() + program.columns * int(program.nodes[0])
    return int(8 * 10 * blocks + 200 * (columns * layers.units).max())


def factor(gram, lengths=None, limit=None, before=0):
    """C with C^T C = gram, rank-revealing: Cholesky over columns of unit length, with threshold pivoting.

    Row k of C belongs to the direction that column k adds to those taken before it; it is zero where column k adds
    none. A direction is numerically lost where what a column adds is below 2^-20 of the column's length: the column
    then counts as the combination of the directions found that is nearest to it, and the law is exact for that column
    instead.

    Args:
        gram: (B, B) float64, inner products of the columns.
        lengths: (B,) float64, lengths against which a remainder counts as lost; the square roots of gram's diagonal by
            default.
        limit: the largest rank that the columns can have, if smaller than B.
        before: columns that were asked before the others, whose directions are taken first.

    Returns:
        C (B, B) float64, and the list of directions in the order in which they were taken.

    Examples:
        >>> c, order = factor(np.array([[4.0, 4.0], [4.0, 4.0]]))
        >>> order, float(c[0, 1]), float(c[1, 1])
        ([0], 2.0, 0.0)
    """
    batch = len(gram)
    lengths = np.sqrt(np.diag(gram)) if lengths is None else lengths
    unit = np.where(lengths > 0, lengths, 1.0)
    scaled = gram / unit[:, None] / unit[None, :]
    rest = np.where(lengths > 0, np.diag(scaled), 0.0)
    rows, order = np.zeros((batch, batch)), []
    while len(order) < (batch if limit is None else min(batch, limit)) and rest.max() > LOST_DIRECTION:
        among = rest[:before] if (rest[:before] > LOST_DIRECTION).any() else rest
        k = int(np.argmax(among >= PREFERRED_DIRECTION * among.max()))
        rows[k] = (scaled[k] - rows[order].T @ rows[order, k]) / np.sqrt(rest[k])
        rows[k, order], rows[k, k] = 0.0, np.sqrt(rest[k])
        rest = rest - rows[k] ** 2
        order.append(k)
        rest[order] = 0.0
    # Columns inside the span keep no remainder, those of zero length none at all.
    return rows * lengths[None, :], order


class Conditioned:
    """Unit draws of the weights of one replica, known only through what they have been multiplied with: forward D u,
    backward D^T delta.

    `forward` is to be called once for every layer before `backward`; the layer's scale is applied by the caller. Two
    runs that share the weights call each twice: what the second asks is drawn under what the first has seen.
    """

    def __init__(self, program, replica):
        self.program, self.replica = program, replica
        self.shared = program.formats is not None
        self.asked, self.known = {}, {}

    def beside(self):
        """The same weights for a run without formats."""
        return self

    def scale(self, layer):
        """What products are multiplied with."""
        return self.program.layers.scale[layer - 1]

    def _after(self, word, layer, columns):
        """The columns behind those that were asked before, and how many those are."""
        earlier = self.asked.pop((word, layer), None)
        if earlier is not None:
            return np.hstack([earlier, columns]), earlier.shape[1]
        if self.shared:
            self.asked[word, layer] = columns
        return columns, 0

    def _haar(self, layer):
        return self.program.draw(layer).distribution == "haar"

    def _address(self, layer):
        return int(self.program.layers.address[layer - 1])

    def _normals(self, purpose, layer, units, columns, order):
        """Standard normals (units, columns), zero in the columns of lost directions."""
        g = np.zeros((units, columns))
        g[:, order] = stream.tall(self.program.seed, purpose, self._address(layer), self.replica, units, columns)[
            :, order
        ]
        return g

    def forward(self, layer, u):
        """W u: G R, with u = Q R and G iid normal (Haar: rows of a uniform frame).

        Args:
            u: (N, B) float64.

        Returns:
            (units, B) float64.
        """
        if not np.isfinite(u).all():
            return self.forward(layer, np.zeros(u.shape)) + np.nan
        units, haar = int(self.program.layers.units[layer - 1]), self._haar(layer)
        full = max(units, len(u)) if haar else units
        u, before = self._after("forward", layer, u)
        u, scale = _scaled(u)
        r, order = factor(u.T @ u, limit=len(u), before=before)
        g = self._normals(stream.FORWARD, layer, full, u.shape[1], order)
        if haar:
            g = _frame(g, order)
        q = np.zeros(u.shape)
        q[:, order] = np.linalg.solve(r[np.ix_(order, order)].T, u[:, order].T).T if order else 0.0
        self.known[layer] = q, g[:units]
        return (g[:units] @ r * scale)[:, before:]

    def backward(self, layer, delta):
        """W^T delta given W u: Q (G^T delta) + (I - Q Q^T) H C, H iid normal (Haar: a uniform frame outside Q).

        Args:
            delta: (units, B) float64 that depends on W through W u only.

        Returns:
            (N, B) float64.
        """
        if not np.isfinite(delta).all():
            return self.backward(layer, np.zeros(delta.shape)) + np.nan
        haar = self._haar(layer)
        delta, before = self._after("backward", layer, delta)
        q, g = self.known[layer] if self.shared and not before else self.known.pop(layer)
        delta, scale = _scaled(delta)
        inside = g.T @ delta
        gram, limit = delta.T @ delta, len(delta)
        lengths = np.sqrt(np.diag(gram))
        full, rank = len(q), int(np.count_nonzero(q.any(axis=0)))
        if haar:
            full = max(len(q), len(delta))
            gram, limit = gram - inside.T @ inside, full - rank
        limit = min(limit, len(delta))
        c, order = factor(gram, lengths, limit, before)
        h = self._normals(stream.BACKWARD, layer, full, delta.shape[1], order)
        h[: len(q)] -= q @ (q.T @ h[: len(q)])
        if haar:
            h = _frame(h, order)
        return ((q @ inside + h[: len(q)] @ c) * scale)[:, before:]


def _scaled(columns):
    """Columns of magnitude about one and the powers of two taken out: their squares neither overflow nor vanish."""
    scale = np.exp2(np.floor(np.log2(np.maximum(np.abs(columns).max(axis=0), 2.0**-1000))))
    return columns / scale, scale


def _frame(g, order):
    """Columns `order` of g made orthonormal, in ascending order: g T^-1 with T^T T = g^T g; a uniform frame where g is
    iid normal."""
    live, out = sorted(order), np.zeros(g.shape)
    if live:
        t = np.linalg.cholesky(g[:, live].T @ g[:, live])
        out[:, live] = np.linalg.solve(t, g[:, live].T).T
    return out
