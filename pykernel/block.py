# SPDX-License-Identifier: BSD-3-Clause
"""A block: an array of mantissas times 2**exponent, in plain NumPy, and activation functions on such blocks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pykernel.activation import Activation
from pykernel.constants import RANGE
from pykernel.dtypes import Bools, Floats
from pykernel.program import Program

LOG10_2 = math.log10(2)
FARTHEST = 2**61  # of a product: gates square magnitudes, and after some sixty of them a block is inf or 0


def ldexp(x: Any, e: int) -> Any:
    """x * 2**e for an exponent of any size: NumPy takes int32 only, and beyond 3000 every float64 is 0 or inf."""
    return np.ldexp(x, max(min(e, 3000), -3000))


class Block:
    """x * 2**e, shape (units, columns). With `exponent` False e stays 0 and x keeps the dtype of plain arithmetic."""

    def __init__(self, x: np.ndarray, e: int = 0, exponent: bool = True) -> None:
        self.x, self.e, self.exponent = x, e, exponent
        if exponent:
            self._renormalise()

    @classmethod
    def of(cls, program: Program, x: np.ndarray) -> Block:
        """A block of given or drawn numbers, in the dtype of plain arithmetic where the program asks for that."""
        return cls(np.asarray(x, dtype=np.float64 if program.exponent else program.dtype), 0, program.exponent)

    def _renormalise(self) -> None:
        top = np.abs(self.x).max()
        if top == 0:
            self.e = 0
            return
        power = math.frexp(top)[1]
        if abs(power) > RANGE:
            self.x, self.e = np.ldexp(self.x, -power), self.e + power
        if self.e and abs(self.e + math.frexp(np.abs(self.x).max())[1]) <= RANGE:
            self.x, self.e = np.ldexp(self.x, self.e), 0

    def like(self, x: np.ndarray, e: int) -> Block:
        return Block(x, e, self.exponent)

    def times(self, factor: float) -> Block:
        """The block times a number; the number's own exponent is kept apart, so that 1e300 does not overflow."""
        if not self.exponent:
            return self.like(self.x * self.x.dtype.type(factor), 0)
        mantissa, power = math.frexp(factor)
        return self.like(self.x * mantissa, self.e + power)

    def plus(self, other: Block) -> Block:
        """The sum, at the larger exponent."""
        e = max(self.e, other.e)
        if self.e == other.e:
            return self.like(self.x + other.x, e)
        if not self.x.any():
            return other
        if not other.x.any():
            return self
        return self.like(ldexp(self.x, self.e - e) + ldexp(other.x, other.e - e), e)

    def product(self, other: Block) -> Block:
        """The product entry by entry; inf or 0 where no exponent of 64 bits would say how large it is."""
        if abs(self.e + other.e) >= FARTHEST:
            product = self.x * other.x
            return self.like(np.where(product == 0, 0.0, product * (np.inf if self.e > 0 else 0.0)), 0)
        return self.like(self.x * other.x, self.e + other.e)

    def true(self) -> Floats:
        """The numbers themselves, float64; inf or 0 beyond its range."""
        return ldexp(self.x.astype(np.float64), self.e)

    def log10_norm(self) -> float:
        """log10 of the Frobenius norm; the squares are taken of numbers of order one, so that plain float64 does not
        overflow early."""
        top = np.abs(self.x).max().astype(np.float64)
        if top == 0 or not np.isfinite(top):
            return np.log10(top)
        return 0.5 * np.log10(np.square(self.x / top, dtype=np.float64).sum()) + np.log10(top) + self.e * LOG10_2

    def log10_mean_square(self) -> float:
        return 2 * self.log10_norm() - math.log10(self.x.size)


def from_log2(sign: np.ndarray | float, log2: np.ndarray) -> Block:
    """The block of sign * 2**log2, for magnitudes that float64 cannot hold."""
    sign, log2 = np.broadcast_arrays(sign, log2)
    top = log2.max(where=log2 < math.inf, initial=-math.inf)  # inf and nan stay what they are
    e = int(np.floor(top)) if abs(top) < 2.0**62 else 0  # else zero, or smaller than an exponent can say
    return Block(sign * np.exp2(log2 - e), e)


def _clipped(block: Block) -> tuple[Floats, Bools]:
    """True values where float64 holds them, else +-1e300, and which entries are beyond 2^60, where a function is its
    asymptote."""
    true = np.clip(block.true(), -1e300, 1e300)
    return true, np.abs(true) > 2.0**60


def _at_infinity(row: Activation, key: str, x: np.ndarray, found: np.ndarray) -> np.ndarray:
    """What was found of a function, and its limits where a format has overflowed."""
    gone = np.isinf(x)
    if not gone.any():
        return found
    left, right = row.limits(key)
    return np.where(gone, np.where(x > 0, right, left), found)


def values(row: Activation, block: Block) -> Block:
    """phi(block)."""
    x, e = block.x, block.e
    if not block.exponent:
        return block.like(row.evaluate("plain_value", x).astype(x.dtype), 0)
    if e < 0 and row.at_zero == 0:
        return block.like(np.where(x > 0, row.after_zero, row.before_zero) * x, e)
    true, far = _clipped(block)
    value = row.evaluate("value", true)
    slope = np.where(x > 0, row.right, row.left)
    line = np.where(far, slope * x, 0.0)
    if e > 0 and line.any():
        value = np.where(far & (line != 0), line, ldexp(value, -e))
    else:  # near, or all on a side where phi is bounded
        e = 0
    value = _at_infinity(row, "value", x, value)
    if row.log2_value is not None and np.abs(value).max() < 2.0**-900 and x.any():
        sign, log2 = row.evaluate("log2_value", true)
        return from_log2(sign, np.where(np.isinf(x), -np.inf, log2))
    return block.like(value, e)


def slopes(row: Activation, block: Block, g: Block) -> tuple[Block, np.ndarray]:
    """The block g * phi'(block), and the plain slopes."""
    x, e = block.x, block.e
    if not block.exponent:
        s = row.evaluate("plain_slope", x).astype(x.dtype)
        return block.like(g.x * s, 0), s
    true, far = _clipped(block)
    if e < 0:
        s = np.where(x > 0, row.after_zero, np.where(x < 0, row.before_zero, row.evaluate("slope", np.zeros_like(x))))
    else:
        s = row.evaluate("slope", true)
        if row.left or row.right:
            s = np.where(far, np.where(x > 0, row.right, row.left), s)
    s = _at_infinity(row, "slope", x, s)
    out = g.x * s
    if row.log2_slope is not None and e >= 0 and np.abs(out).max() < 2.0**-400:
        sign, log2 = row.evaluate("log2_slope", true)
        log2 = np.where(np.isinf(x), -np.inf, log2) + np.log2(np.abs(g.x))
        out = from_log2(sign * np.sign(g.x), log2)
        return g.like(out.x, out.e + g.e), s
    return g.like(out, g.e), s
