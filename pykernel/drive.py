# SPDX-License-Identifier: BSD-3-Clause
"""The step that feeds an input of its own into every use: what makes a tied chain a recurrent network with inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pykernel import checks
from pykernel.program import A
from pykernel.step import MAX_WIDTH, Weighted, Writer, set_fields


@dataclass(frozen=True, repr=False)
class Drive(Weighted):
    """An input that arrives here, through weights of its own: what comes in plus U x_k.

    `Block(Linear(), Drive(8), "tanh")` is a[l] = phi(W a[l-1] + b + U x_l), an Elman network's step. x_1, x_2 ... are
    numbered through the chain in order of use, one for each use of a Drive step; they are drawn iid N(0, 1) as the
    chain's own input is, or given: `propagate(drive=...)`. U is a layer like any other, called "drive" in
    `Chain.layers`, tied where the chain is; it has no bias.

    Args:
        units: of x_k.
        init: name, "name(numbers)" or `Init`, how U is drawn; by default the chain's.
        gain: factor on the standard deviation of U, beside the chain's.

    Raises:
        ValueError, TypeError: units that are no positive int, an unknown init, a gain that is not a finite number.

    Examples:
        >>> import pykernel as pk
        >>> elman = pk.Block(pk.Linear(), pk.Drive(8), "tanh")
        >>> rnn = pk.Chain(depth=50, width=64, blocks=[elman], init="orthogonal", tied=True)
        >>> rnn.layers[:3], rnn.tied_layers
        (('1.linear', '1.drive', '2.linear'), ('1.linear', '1.drive'))
    """

    units: int
    init: Any = None
    gain: float = 1.0

    bias_std = 0.0

    def __post_init__(self) -> None:
        set_fields(self, units=checks.integer("drive units", self.units, 1, MAX_WIDTH))
        self._check_draw("drive")

    def lower(self, pattern: Writer, cur: int, held: bool, busy: tuple[int, ...]) -> int:
        """What comes in plus a layer that reads an input of its own."""
        n = pattern.width
        if pattern.field != pattern.field_in:
            raise ValueError(f"{self} brings positions {pattern.field_in}, and there are {pattern.field} here")
        arrived = pattern.emit("drive", (cur,), True, (*busy, cur), drives=self.units)
        pattern.width = self.units
        driven = pattern.linear(arrived, True, n, *pattern.words(self), pattern.fixup, (*busy, cur))
        out = driven if held and cur == A else cur
        return pattern.emit("add", (cur, driven), False, (), out=out, skip=1.0, branch=1.0)

    def __str__(self) -> str:
        return f"drive {self.units}"
