# SPDX-License-Identifier: BSD-3-Clause
"""What the ops see of a run: registers, gradients, weights and rows, whoever holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from pykernel.block import Block
from pykernel.program import Program
from pykernel.tangent import Tangent
from pykernel.totals import Total


class Operator(Protocol):
    """The weights of a replica, layers from 1: dense, or known by their joint law only."""

    def forward(self, layer: int, u: np.ndarray) -> np.ndarray:
        """W[layer] u, the scale left out."""

    def backward(self, layer: int, delta: np.ndarray) -> np.ndarray:
        """W[layer]^T delta, likewise."""

    def scale(self, layer: int) -> float:
        """What both are multiplied with."""


class Trace(Protocol):
    """Keeps arrays that somebody asked for."""

    def keep(self, name: str, number: int, make: Callable[[], Any]) -> None:
        """What `make` gives, where `name` was asked for."""


class Rounding(Protocol):
    """Rounds to formats, and compares with the run without."""

    def stored(self, word: str, block: Block) -> Block:
        """A block of "signals" or "gradients" as it is stored."""

    def compare(self, word: str, number: int, before: Block) -> None:
        """The rows of a node, of "signal" or "gradient" before it is rounded."""

    def compare_signal(self, number: int, register: int) -> None:
        """The rows of a node's signal, which is rounded already."""


class Run(Protocol):
    """One replica on its way forward or backward; see `pykernel.engines.reference.Run`."""

    program: Program
    replica: int
    registers: dict[int, Block]
    gradients: dict[int, Block]
    nodes: dict[tuple[str, int], Block]
    totals: dict[int, Total]
    tangent: Tangent | None
    turn: int

    @property
    def operator(self) -> Operator:
        """Who multiplies by the weights."""

    @property
    def trace(self) -> Trace:
        """Who keeps arrays."""

    @property
    def rounding(self) -> Rounding | None:
        """Who rounds what is stored."""

    def put(self, name: str, number: int, value: Any) -> None:
        """An entry of a row."""

    def take(self, register: int) -> Block:
        """The gradient of a register, which has none then."""

    def give(self, register: int, gradient: Block) -> None:
        """Add to the gradient of a register."""
