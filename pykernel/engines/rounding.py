# SPDX-License-Identifier: BSD-3-Clause
"""Rounding in the reference engine: what a run stores, and how far that is from the run beside it without formats."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from pykernel import stream
from pykernel.block import LOG10_2, Block, ldexp
from pykernel.dtypes import Floats, Reals
from pykernel.program import Program
from pykernel.seen import Run

PURPOSE = {"weights": stream.ROUND_WEIGHT, "signals": stream.ROUND_SIGNAL, "gradients": stream.ROUND_GRADIENT}


def stored(program: Program, replica: int, word: str, block: Block, number: int) -> Block:
    """A block of "signals" or "gradients" as its format holds it; it is, or is the gradient of, what op `number`
    made."""
    formats = program.formats
    if formats is None or formats.row(word) is None:
        return block
    words = None
    if formats.stochastic:
        words = stream.tall_words(program.seed, PURPOSE[word], number, replica, *block.x.shape)
    return block.like(formats.rounded(word, block.true(), words).astype(block.x.dtype), 0)


def stored_weight(program: Program, replica: int, address: int, weight: Reals) -> Floats:
    """A weight in the dtype of the run as its format holds it, float64."""
    assert program.formats is not None
    words = None
    if program.formats.stochastic:
        words = stream.matrix_words(program.seed, PURPOSE["weights"], address, replica, *weight.shape)[0]
    return program.formats.rounded("weights", weight, words)


MOST = 200  # powers of two between two blocks whose difference is taken as it stands


class Turns(Run, Protocol):
    """A run that says whose turn it is."""

    at: int


class Rounding:
    """The rounding of one replica: `run` is rounded, `beside` has the same weights and is not."""

    def __init__(self, run: Turns, beside: Run) -> None:
        assert run.program.formats is not None
        self.run, self.beside, self.formats = run, beside, run.program.formats
        self.before: dict[int, tuple[Block, int]] = {}  # of each register, unrounded, and by which op

    def stored(self, word: str, block: Block, number: int | None = None) -> Block:
        """A block of "signals" or "gradients" as its format holds it, of the op whose turn it is or of another."""
        at = self.run.at if number is None else number
        return stored(self.run.program, self.run.replica, word, block, at)

    def signal(self, register: int, block: Block) -> Block:
        """A signal as it is stored in a register."""
        self.before[register] = block, self.run.at
        return self.stored("signals", block)

    def compare_signal(self, number: int, register: int) -> None:
        """The rows of a node's signal; what it passes on is compared no more."""
        self.compare("signal", number, *self.before.get(register, (self.run.registers[register],)))
        self.before.clear()

    def compare(self, what: str, number: int, block: Block, made_by: int | None = None) -> None:
        """The rows of a node's "signal" or "gradient", of what there is before it is rounded."""
        run, word = self.run, f"{what}s"
        row = self.formats.row(word)
        alive = np.isfinite(block.x) & (block.x != 0)
        after, large = (block.x, math.inf) if row is None else (self.stored(word, block, made_by).true(), row.largest)
        run.put(f"flushed_{what}", number, (alive & (after == 0)).mean())
        run.put(f"overflowed_{what}", number, (alive & (np.abs(after) >= large)).mean())
        sizes = np.abs(block.x[alive])
        for name, size in (("smallest", sizes.min(initial=math.inf)), ("largest", sizes.max(initial=0.0))):
            decades = np.log10(size) + block.e * LOG10_2 if sizes.size else -math.inf
            run.put(f"log10_{name}_{what}", number, decades)
        scale = self.formats.loss_scale if what == "gradient" else 1.0
        plain = self.beside.nodes.pop((what, number))
        x, e_x = _of_order_one(block.x)
        y, e_y = _of_order_one(plain.x)
        apart = block.e + e_x - plain.e - e_y
        near = min(apart, MOST) if x.any() else apart  # beyond, the error is the number
        difference = ldexp(x, near) / scale - y
        norm = np.sqrt((y * y).sum())
        decades = np.log10(np.sqrt((difference * difference).sum()) / norm) + (apart - near) * LOG10_2
        run.put(f"log10_error_{what}", number, decades)
        if what == "gradient":
            run.put("gradient_cosine", number, (x * y).sum() / (np.sqrt((x * x).sum()) * norm))


def _of_order_one(x: np.ndarray) -> tuple[Floats, int]:
    """Mantissas as float64, the largest of order one, and the power of two that takes them back."""
    power = math.frexp(np.abs(x).max())[1]
    return ldexp(x.astype(np.float64), -power), power
