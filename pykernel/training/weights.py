# SPDX-License-Identifier: BSD-3-Clause
"""A weight in training: drawn by address with a low-rank history beside it, or an oracle's that is never drawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from pykernel import _core, oracle, stream
from pykernel.dtypes import Floats
from pykernel.engines import reference
from pykernel.program import Draw, Program

CHUNK = 2**22  # entries of a clamped gradient that are made at a time


def compiled_tall(threads: int) -> Callable[..., np.ndarray]:
    """`stream.tall`, compiled: the same bits."""

    def tall(
        seed: int, purpose: int, layer: int, replica: int, units: int, columns: int = 1, first: int = 0
    ) -> np.ndarray:
        return _core.draws.tall(seed, purpose, layer, replica, units, first, columns, threads)

    return tall


class History:
    """W = scale * draws + sum over past columns of coefficient * delta u^T: descent with momentum adds columns, and no
    matrix is kept.

    With v = m v + g and W -= rate v, each gradient g has two numbers that all its columns share: how much of it is in
    v, and how much in W.

    Args:
        product: (x, transposed) -> the draws, or their transpose, times x, in x's dtype.
        scale: of the draws.  rows, columns: of W.  dtype: of what is kept and of the products.
    """

    def __init__(
        self, product: Callable[[np.ndarray, bool], np.ndarray], scale: float, rows: int, columns: int, dtype: np.dtype
    ) -> None:
        self._product, self._scale = product, scale
        self._delta, self._u = np.zeros((rows, 0), dtype), np.zeros((columns, 0), dtype)
        self._velocity, self._in_weight = np.zeros(0), np.zeros(0)
        self._clamped: list = []  # (delta, u, bound, velocity, in_weight) of gradients clipped entry by entry

    def forward(self, u: np.ndarray) -> np.ndarray:
        """W u."""
        return self._times(u, False)

    def backward(self, delta: np.ndarray) -> np.ndarray:
        """W^T delta."""
        return self._times(delta, True)

    def _times(self, x: np.ndarray, transposed: bool) -> np.ndarray:
        top = np.abs(x).max()
        power = math.frexp(top)[1] if np.isfinite(top) and top > 0 else 0
        x = np.ldexp(x, -power).astype(self._delta.dtype)
        out = self._scale * self._product(x, transposed).astype(np.float64)
        left, right = (self._u, self._delta) if transposed else (self._delta, self._u)
        if len(self._in_weight):
            out += left @ (self._in_weight[:, None] * (right.T @ x)).astype(left.dtype)
        for delta, u, bound, _, in_weight in self._clamped:
            out += in_weight * _clamped_product(delta, u, bound, x, transposed)
        return np.ldexp(out, power)

    def step(self, delta: np.ndarray, u: np.ndarray, rate: float, momentum: float, bound: float = 0.0) -> None:
        """One step along delta u^T, or with every entry clamped to +-`bound`."""
        self._velocity *= momentum
        self._clamped = [(*rest, momentum * velocity, w) for *rest, velocity, w in self._clamped]
        if bound:
            self._clamped.append((delta, u, bound, 1.0, 0.0))
        else:
            self._delta = np.hstack([self._delta, delta.astype(self._delta.dtype)])
            self._u = np.hstack([self._u, u.astype(self._u.dtype)])
            self._velocity = np.append(self._velocity, np.ones(delta.shape[1]))
            self._in_weight = np.append(self._in_weight, np.zeros(delta.shape[1]))
        self._in_weight -= rate * self._velocity
        self._clamped = [(*rest, velocity, w - rate * velocity) for *rest, velocity, w in self._clamped]


def _clamped_product(delta: np.ndarray, u: np.ndarray, bound: float, x: np.ndarray, transposed: bool) -> Floats:
    """clip(delta u^T, -bound, bound) times x, or its transpose, some rows at a time."""
    if transposed:
        delta, u = u, delta
    each = max(1, CHUNK // len(u))
    parts = [
        np.clip(delta[i : i + each] @ u.T, -bound, bound) @ x.astype(np.float64) for i in range(0, len(delta), each)
    ]
    return np.concatenate(parts)


class Unseen:
    """W of an oracle: a step adds to what it has answered, and the momentum is a small matrix in its coordinates."""

    def __init__(self, seen: oracle.Gaussian | oracle.Haar) -> None:
        self._oracle, self._core = seen, np.zeros((0, 0))
        self.forward, self.backward = seen.forward, seen.backward

    def step(self, delta: np.ndarray, u: np.ndarray, rate: float, momentum: float, bound: float = 0.0) -> None:
        """As of `History`; entries cannot be clamped."""
        power = math.frexp(np.abs(delta).max())[1] if np.isfinite(delta).all() else 0
        e, c = self._oracle.coordinates(np.ldexp(delta, -power), u)
        core = np.ldexp(e.astype(np.float64) @ c.T.astype(np.float64), power)
        old = self._core
        core[: old.shape[0], : old.shape[1]] += momentum * old
        self._core = core
        self._oracle.add(-rate * core)


class Weights:
    """The weights of all layers of one replica in training: what `engines.reference.Run` multiplies by.

    Args:
        program: what is trained, at its initialisation.  replica: which draw.
        engine: "dense" or "matrix_free".  compiled: whether C++ draws, or the definition.  threads: of C++.
    """

    def __init__(self, program: Program, replica: int, engine: str, compiled: bool, threads: int) -> None:
        self.program = program
        self._by_address: dict = {}
        make = self._unseen if engine == "matrix_free" else self._dense
        for layer in range(1, program.depth + 1):
            address = int(program.layers.address[layer - 1])
            if address not in self._by_address:
                self._by_address[address] = make(layer, address, replica, compiled, threads)

    def of(self, layer: int) -> History | Unseen:
        """The weight of a layer; layers that share an address share it."""
        return self._by_address[int(self.program.layers.address[layer - 1])]

    def forward(self, layer: int, u: np.ndarray) -> np.ndarray:
        return self.of(layer).forward(u)

    def backward(self, layer: int, delta: np.ndarray) -> np.ndarray:
        return self.of(layer).backward(delta)

    def scale(self, layer: int) -> float:
        """What products are multiplied with: scales are in the weights."""
        return 1.0

    def _unseen(self, layer: int, address: int, replica: int, compiled: bool, threads: int) -> Unseen:
        layers, i = self.program.layers, layer - 1
        kind = oracle.Haar if self.program.draw(layer).distribution == "haar" else oracle.Gaussian
        normals = oracle.normals_at(
            self.program.seed, address, replica, compiled_tall(threads) if compiled else stream.tall
        )
        return Unseen(
            kind(int(layers.units[i]), int(layers.columns[i]), normals, float(layers.scale[i]), self.program.dtype)
        )

    def _dense(self, layer: int, address: int, replica: int, compiled: bool, threads: int) -> History:
        program, i = self.program, layer - 1
        rows, columns = int(program.layers.units[i]), int(program.layers.columns[i])
        draw, scale = program.draw(layer), float(program.layers.scale[i])
        dtype = np.dtype(program.dtype)
        given = program.weights is not None and program.weights[i] is not None
        if compiled and not given and draw.distribution not in ("identity", "constant", "haar"):
            product = partial(_drawn_product, program.seed, address, replica, rows, columns, draw, threads)
        else:
            product = partial(_matrix_product, reference.Dense(program, replica).matrix(layer).astype(dtype))
        return History(product, scale, rows, columns, dtype)


def _drawn_product(
    seed: int,
    address: int,
    replica: int,
    rows: int,
    columns: int,
    draw: Draw,
    threads: int,
    x: np.ndarray,
    transposed: bool,
) -> np.ndarray:
    x = np.ascontiguousarray(x)
    return _core.draws.product(
        draw.distribution, draw.parameter, seed, address, replica, rows, columns, x, transposed, threads
    )


def drawn(seed: int, address: int, replica: int, rows: int, columns: int, draw: Draw, threads: int) -> np.ndarray:
    """A few rows of unit draws as a matrix, (rows, columns) float64, compiled."""
    unit = np.eye(rows)
    return _drawn_product(seed, address, replica, rows, columns, draw, threads, unit, True).T


def _matrix_product(matrix: np.ndarray, x: np.ndarray, transposed: bool) -> np.ndarray:
    return (matrix.T if transposed else matrix) @ x
