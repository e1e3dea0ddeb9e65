# SPDX-License-Identifier: BSD-3-Clause
"""Windows over the positions of one input: where each lies, and which position each of its taps sees."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

OUTSIDE = -1  # what a tap sees beyond the edge


class Window(NamedTuple):
    """Windows of `taps` positions, `stride` apart, over a field with `padding` on every side. Pairs (rows, columns); of
    one axis the first number is 1, its padding 0.

    Attributes:
        field: positions of one input.
        taps, stride, padding: of a window, between windows, and beyond each edge.
        circular: whether taps beyond an edge see the other side; else zeros.
        largest: of a pool, whether the largest entry is taken; else the mean.
        dilation: positions from one tap of a window to the next.
        by_units: of patches, whether the taps of a unit stand together (a flattened input); else the units of a tap.
    """

    field: tuple[int, int]
    taps: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    circular: bool = False
    largest: bool = False
    by_units: bool = False
    dilation: tuple[int, int] = (1, 1)

    @property
    def span(self) -> tuple[int, int]:
        """Positions from the first to the last tap of a window along each axis."""
        rows, columns = (d * (k - 1) + 1 for k, d in zip(self.taps, self.dilation, strict=True))
        return rows, columns

    @property
    def out(self) -> tuple[int, int]:
        """How many windows there are along each axis.

        Examples:
            >>> Window((32, 32), (3, 3), (2, 2), (1, 1)).out
            (16, 16)
        """
        each = zip(self.field, self.span, self.stride, self.padding, strict=True)
        rows, columns = ((n + 2 * p - k) // s + 1 for n, k, s, p in each)
        return rows, columns

    @property
    def is_whole(self) -> bool:
        """Whether each window is one position, in order: then there is nothing to gather."""
        return self.taps == (1, 1) and self.stride == (1, 1) and self.padding == (0, 0)

    def sources(self) -> np.ndarray:
        """The position that each tap of each window sees, (taps, windows) int64, row by row; OUTSIDE beyond an edge."""
        axes = []
        each = zip(self.field, self.taps, self.stride, self.padding, self.dilation, self.out, strict=True)
        for n, k, s, p, d, count in each:
            seen = d * np.arange(k)[:, None] + s * np.arange(count) - p
            axes.append(seen % n if self.circular else np.where((seen >= 0) & (seen < n), seen, OUTSIDE))
        rows, columns = axes
        both = rows[:, None, :, None] * self.field[1] + columns[None, :, None, :]
        outside = (rows == OUTSIDE)[:, None, :, None] | (columns == OUTSIDE)[None, :, None, :]
        return np.where(outside, OUTSIDE, both).reshape(self.taps[0] * self.taps[1], -1)


def kernel_shape(rows: int, columns: int, taps: tuple[int, ...]) -> tuple[int, ...]:
    """Of a weight (rows, columns) with so many taps along each axis, as callers give and get it: (units out, units in,
    *taps)."""
    return int(rows), int(columns) // int(np.prod(taps, dtype=np.int64)), *taps


def as_matrix(kernel: np.ndarray) -> np.ndarray:
    """A kernel (units out, units in, *taps) as a weight matrix, (units out, taps * units in), the units of a tap
    together."""
    out, units = kernel.shape[:2]
    return np.ascontiguousarray(kernel.reshape(out, units, -1).swapaxes(1, 2)).reshape(out, -1)


def as_kernel(matrix: np.ndarray, taps: tuple[int, ...]) -> np.ndarray:
    """And back, to (units out, units in, *taps); of no taps the matrix itself.

    Examples:
        >>> kernel = np.arange(24.0).reshape(2, 3, 4)
        >>> bool((as_kernel(as_matrix(kernel), (4,)) == kernel).all())
        True
    """
    if not taps:
        return matrix
    count = int(np.prod(taps))
    return matrix.reshape(len(matrix), count, -1).swapaxes(1, 2).reshape(len(matrix), -1, *taps)
