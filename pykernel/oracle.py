# SPDX-License-Identifier: BSD-3-Clause
"""A random matrix that is never drawn: W u and W^T d in any order and any number of times, from their exact joint law.

An oracle stands for one matrix W (rows x columns). What it is asked for is drawn under all that it has answered:

    oracle = Gaussian(rows, columns, draw, std)        # or Haar: corners of a uniform orthogonal matrix
    z = oracle.forward(u)                              # W u of (columns, B); any B, any time
    g = oracle.backward(d)                             # W^T d of (rows, B)
    oracle.add(core)                                   # W += P core Q^T, of directions that were asked: a training step
    e, c = oracle.coordinates(d, u)                    # of asked blocks: d = P e, u = Q c

What is asked must depend on W through its answers only. The same question gets the same answer, and
<d, W u> = <W^T d, u> for all that was asked, to rounding. It keeps 2 (rows + columns) numbers for every direction that
was asked, either way.

Draws have addresses: column k of all columns that were ever asked forward takes column k of a tall array of standard
normals, and so backward; `draw(purpose, units, first, count)` gives columns first .. first + count - 1, as
`normals_at` does by the stream. So one block forward and one back take the same numbers whatever is asked afterwards.

The Gaussian law: with orthonormal q_i, W q_i known, and orthonormal p_j, W^T p_j = z_j known, a new direction q has
W q = sum_j p_j (z_j . q) + std (I - P P^T) g, g fresh standard normal; backward the same with the roles exchanged.
Bolthausen, Commun. Math. Phys. 325 (2014); Bayati and Montanari, IEEE Trans. Inf. Theory 57 (2011). The Haar law: W
takes the span of what it was asked to that of its answers, both ways, and their complements to each other uniformly
(Lu, "Householder Dice", arXiv 2101.07464). docs/matrix-free.md has the derivations.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pykernel import stream
from pykernel.constants import LOST_DIRECTION, PREFERRED_DIRECTION
from pykernel.dtypes import Floats, Reals

Normals = Callable[[int, int, int, int], np.ndarray]  # (purpose, units, first, count) -> (units, count)


def normals_at(seed: int, address: int, replica: int, draw: Callable[..., np.ndarray] | None = None) -> Normals:
    """Standard normals of one matrix by address, as oracles ask for them.

    Args:
        seed, replica: of the stream.  address: the layer's.
        draw: what draws, as `stream.tall` does, with `first`, the column at which to begin.

    Returns:
        draw(purpose, units, first, count) -> (units, count).
    """
    draw = draw or stream.tall

    def normals(purpose: int, units: int, first: int, count: int) -> np.ndarray:
        return draw(seed, purpose, address, replica, units, count, first=first)

    return normals


def factor(gram: np.ndarray, lengths: np.ndarray | None = None, limit: int | None = None) -> tuple[Floats, list[int]]:
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
    order: list[int] = []
    rows: np.ndarray = np.zeros((batch, batch))
    while len(order) < (batch if limit is None else min(batch, limit)) and rest.max() > LOST_DIRECTION:
        k = int(np.argmax(rest >= PREFERRED_DIRECTION * rest.max()))
        rows[k] = (scaled[k] - rows[order].T @ rows[order, k]) / np.sqrt(rest[k])
        rows[k, order], rows[k, k] = 0.0, np.sqrt(rest[k])
        rest = rest - rows[k] ** 2
        order.append(k)
        rest[order] = 0.0
    # Columns inside the span keep no remainder, those of zero length none at all.
    return rows * lengths[None, :], order


class Known:
    """Orthonormal directions, and what the matrix makes of each.

    Attributes:
        basis: (r, units), a direction a row.  image: (r, units of the other side), the matrix times each.
        asked: columns that were ever asked, of which draws take their addresses.
    """

    def __init__(self, units: int, others: int, dtype: np.dtype) -> None:
        self._basis, self._image = np.empty((0, units), dtype), np.empty((0, others), dtype)
        self._count, self.asked = 0, 0

    @property
    def basis(self) -> Reals:
        return self._basis[: self._count]

    @property
    def image(self) -> Reals:
        return self._image[: self._count]

    def inside(self, columns: Reals) -> Reals:
        """Coordinates of columns in the basis, (r, B)."""
        return self.basis @ columns

    def split(self, columns: Reals) -> tuple[Reals, Reals]:
        """Coordinates of columns in the basis, and what of them lies outside; taken out twice where that is shorter by
        half, which is enough (Giraud et al., Numer. Math. 101, 2005), and once where it is as good as nothing."""
        if not len(self.basis):
            return np.zeros((0, columns.shape[1]), columns.dtype), columns
        inside = self.inside(columns)
        rest = columns - self.basis.T @ inside
        part = _squares(rest) / np.maximum(_squares(columns), np.finfo(float).tiny)
        if not ((part > LOST_DIRECTION / 4) & (part < 0.25)).any():
            return inside, rest
        again = self.inside(rest)
        return inside + again, rest - self.basis.T @ again

    def learn(self, directions: Reals, images: Reals) -> None:
        """Add directions (units, r) and what became of them."""
        before, self._count = self._count, self._count + directions.shape[1]
        if self._count > len(self._basis):  # room that is not written yet costs nothing
            room = max(self._count, 2 * len(self._basis))
            self._basis, self._image = _grown(self._basis, room), _grown(self._image, room)
        self._basis[before : self._count], self._image[before : self._count] = directions.T, images.T


def _grown(array: Reals, rows: int) -> Reals:
    """The same with room for more rows."""
    out = np.empty((rows, array.shape[1]), array.dtype)
    out[: len(array)] = array
    return out


class Oracle:
    """What all oracles share: questions, their addresses and their range.

    Args:
        rows, columns: of W.
        draw: where standard normals come from, as `normals_at` gives.
        std: what the unit draws of W are multiplied with.
        dtype: "float32" or "float64": of what is kept and of products with it. Gram matrices are summed in double.
    """

    def __init__(self, rows: int, columns: int, draw: Normals, std: float = 1.0, dtype: str = "float64") -> None:
        self.rows, self.columns, self.std, self.dtype = rows, columns, std, np.dtype(dtype)
        self._draw = draw

    def forward(self, u: Reals) -> Reals:
        """W u, (rows, B), of u (columns, B); nan where an entry of u is not finite."""
        return self._answer(u, stream.FORWARD)

    def backward(self, d: Reals) -> Reals:
        """W^T d, (columns, B), of d (rows, B); nan where an entry of d is not finite."""
        return self._answer(d, stream.BACKWARD)

    def _answer(self, columns: Reals, purpose: int) -> Reals:
        finite = np.isfinite(columns).all()
        scaled, powers = _scaled(columns if finite else np.zeros_like(columns))
        found = self._ask(scaled.astype(self.dtype, copy=False), purpose).astype(columns.dtype, copy=False)
        return found * powers if finite else found + np.nan

    def _ask(self, columns: Reals, purpose: int) -> Reals:
        raise NotImplementedError

    def _fresh(self, purpose: int, units: int, known: Known, count: int, order: list[int]) -> Reals:
        """Standard normals (units, len(order)) at the addresses of the columns just asked."""
        drawn = self._draw(purpose, units, known.asked, count)
        known.asked += count
        return drawn[:, order].astype(self.dtype, copy=False)


class Gaussian(Oracle):
    """W of independent N(0, std^2) entries.

    Examples:
        >>> oracle = Gaussian(5, 4, normals_at(seed=0, address=1, replica=0))
        >>> u, d = np.eye(4)[:, :2], np.ones((5, 1))
        >>> z, g = oracle.forward(u), oracle.backward(d)
        >>> bool(np.allclose(d.T @ z, g.T @ u)), bool(np.allclose(oracle.forward(u + 1)[:, 0], oracle.forward(u)[:, 0]))
        (True, False)
    """

    def __init__(self, rows: int, columns: int, draw: Normals, std: float = 1.0, dtype: str = "float64") -> None:
        super().__init__(rows, columns, draw, std, dtype)
        self._right, self._left = Known(columns, rows, self.dtype), Known(rows, columns, self.dtype)

    def _ask(self, columns: Reals, purpose: int) -> Reals:
        mine, other = (self._right, self._left) if purpose == stream.FORWARD else (self._left, self._right)
        inside, rest = mine.split(columns)
        lengths = np.sqrt(_squares(columns))
        r, live = _directions(rest, lengths, len(columns) - len(mine.basis))
        fresh = self._fresh(purpose, mine.image.shape[1], mine, columns.shape[1], live)
        if self.std != 1.0:
            fresh = fresh * self.dtype.type(self.std)
        new = _orthonormal(rest, r, live).astype(self.dtype, copy=False)
        answer, images = fresh @ r, fresh
        if len(other.basis):  # along the p_j what is known, not what was drawn
            twice, drawn = other.image @ np.hstack([rest, new]), other.inside(fresh)
            seen = other.basis.T @ (twice - np.hstack([drawn @ r, drawn]))
            answer, images = answer + seen[:, : columns.shape[1]], images + seen[:, columns.shape[1] :]
        if len(mine.basis):
            answer = mine.image.T @ inside + answer
        mine.learn(new, images)
        return answer

    def coordinates(self, d: Reals, u: Reals) -> tuple[Reals, Reals]:
        """(e, c) with d = P e and u = Q c, of blocks that were asked backward and forward."""
        return self._left.inside(d.astype(self.dtype, copy=False)), self._right.inside(u.astype(self.dtype, copy=False))

    def add(self, core: Reals) -> None:
        """W += P core Q^T, core (directions asked backward, directions asked forward). What nobody has asked is as
        unknown as before, so that the law stays exact."""
        core = core.astype(self.dtype, copy=False)
        right, left = self._right.image, self._left.image
        right += core.T @ self._left.basis
        left += core @ self._right.basis


class Haar(Oracle):
    """W = std O, O uniform among matrices with orthonormal rows or columns, whichever are fewer: the corner of a square
    orthogonal matrix.

    What is asked forward and what is asked backward teach the same: O A = B, and so O^T B = A.
    """

    def __init__(self, rows: int, columns: int, draw: Normals, std: float = 1.0, dtype: str = "float64") -> None:
        super().__init__(rows, columns, draw, std, dtype)
        self._full = max(rows, columns)
        self._frames = {purpose: Known(self._full, 0, self.dtype) for purpose in (stream.FORWARD, stream.BACKWARD)}
        self._core = np.zeros((0, 0), self.dtype)

    def _ask(self, columns: Reals, purpose: int) -> Reals:
        forward = purpose == stream.FORWARD
        mine, other = (self._frames[p] for p in ((purpose, stream.BACKWARD) if forward else (purpose, stream.FORWARD)))
        units = self.rows if forward else self.columns
        padded = np.concatenate([columns, np.zeros((self._full - len(columns), columns.shape[1]), columns.dtype)])
        inside, rest = mine.split(padded)
        lengths = np.sqrt(_squares(columns))
        limit = min(self._full - len(mine.basis), len(columns))
        r, live = _directions(rest, lengths, limit)
        fresh = other.split(self._fresh(purpose, self._full, mine, columns.shape[1], live))[1]
        frame = _frame(fresh)
        core = self._core if forward else self._core.T
        answer = other.basis[:, :units].T @ (inside * self.std + core @ inside) + frame[:units] @ r * self.std
        if live:
            new = _orthonormal(rest, r, live)
            mine.learn(new, np.zeros((0, len(live))))
            other.learn(frame, np.zeros((0, len(live))))
            self._core = np.pad(self._core, (0, len(live)))
        return answer

    def coordinates(self, d: Reals, u: Reals) -> tuple[Reals, Reals]:
        """As of `Gaussian`."""
        padded = lambda x: np.concatenate([x, np.zeros((self._full - len(x), x.shape[1]))]).astype(self.dtype)
        return self._frames[stream.BACKWARD].inside(padded(d)), self._frames[stream.FORWARD].inside(padded(u))

    def add(self, core: Reals) -> None:
        """As of `Gaussian`."""
        self._core = self._core + core


def _directions(rest: Reals, lengths: Floats, limit: int) -> tuple[Reals, list[int]]:
    """The factor of what lies outside the known, its rows of live directions only, and which columns those are,
    ascending."""
    gram = rest.astype(np.float64, copy=False)
    r, order = factor(gram.T @ gram, lengths, limit=max(limit, 0))
    live = sorted(order)
    return r[live].astype(rest.dtype), live


def _orthonormal(rest: Reals, r: Reals, live: list[int]) -> Reals:
    """The directions that the factor found, (units, r)."""
    if not live:
        return rest[:, live]
    return rest[:, live].astype(np.float64, copy=False) @ np.linalg.inv(r[:, live].astype(np.float64))


def _squares(columns: Reals) -> Floats:
    """Squared lengths of columns, summed in double."""
    return np.einsum("ij,ij->j", columns, columns, dtype=np.float64)


def _scaled(columns: Reals) -> tuple[Reals, Reals]:
    """Columns of magnitude about one and the powers of two taken out: their squares neither overflow nor vanish."""
    scale = np.exp2(np.floor(np.log2(np.maximum(np.abs(columns).max(axis=0), 2.0**-1000))))
    return columns / scale, scale


def _frame(g: Reals) -> Reals:
    """Columns made orthonormal: g T^-1 with T^T T = g^T g, a uniform frame where g is iid normal."""
    if not g.shape[1]:
        return g
    g = g.astype(np.float64, copy=False)
    t = np.linalg.cholesky(g.T @ g)
    return np.linalg.solve(t, g.T).T
