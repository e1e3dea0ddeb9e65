# SPDX-License-Identifier: BSD-3-Clause
"""What a network is read as first: a graph of values, each of one operation on others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from pykernel.layers import Attention, Weighted

MIXED = "mixed"  # the step of a value that is attention but for its output layer


class Source(NamedTuple):
    """Where the numbers of a weight layer are: `weight` and `bias` (or None) of a framework, and which rows of them,
    (from, to); the groups of a convolution."""

    where: str
    weight: Any
    bias: Any
    rows: tuple[int, int]
    groups: int = 1

    @property
    def key(self) -> tuple:
        """What uses of one layer have in common."""
        return id(self.weight), self.rows

    @property
    def sizes(self) -> tuple[int, int]:
        """(n_out, n_in)."""
        return self.rows[1] - self.rows[0], int(self.weight.shape[1]) * self.groups


@dataclass(eq=False)
class Value:
    """What one operation of a network gives.

    Args:
        where: how messages call the operation.
        ins: what it acts on: none for the input, one value, or two for a sum.
        step: what it is of a block's steps; None for the input and sums. "half" for one half of a fused layer.
        sources: its weight layers, in the order of a block's layers.
        factors: of a sum, on its two terms.
        units: how many it has, None where that is not known yet; maker: the layer that made them.
        heads: of MIXED the Attention that it becomes with an output layer.
        axes: of positions behind the units, as convolutions keep them; 0 where one position is left, None where none
            is known of.
    """

    where: str
    ins: tuple = ()
    step: Any = None
    sources: tuple = ()
    factors: tuple = ()
    units: int | None = None
    maker: str = ""
    half: int = 0
    heads: Any = None
    axes: int | None = None

    def __post_init__(self) -> None:
        self.line = self._dominators()
        if not self.maker and self.ins:
            self.maker = self.ins[0].maker
        if self.axes is None:
            self.axes = next((value.axes for value in self.ins if value.axes is not None), None)

    def then(self, step: Any, where: str) -> Value:
        """What a step that has no layers makes of it."""
        return Value(where, (self,), step, units=self.units)

    def _dominators(self) -> tuple[Value | None, int]:
        """(nearest value that every path passes before this one, how many there are)."""
        if not self.ins:
            return None, 0
        a = self.ins[0]
        for b in self.ins[1:]:
            while a is not b:
                if a.line[1] >= b.line[1]:
                    a = a.line[0]
                else:
                    b = b.line[0]
        return a, a.line[1] + 1


class Read(NamedTuple):
    """The step that takes the first or the last position, or the mean of all."""

    over: str


class Item(NamedTuple):
    """A step of a block and its weight layers."""

    step: Any
    sources: tuple = ()

    @property
    def weighted(self) -> bool:
        return isinstance(self.step, Weighted)

    @property
    def groups(self) -> tuple[tuple[Source, ...], ...]:
        """Its layers that draw by one scheme: of attention query, key and value, and the output."""
        if isinstance(self.step, Attention):
            return self.sources[:3], self.sources[3:]
        return (self.sources,) if self.weighted else ()
