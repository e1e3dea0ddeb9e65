# SPDX-License-Identifier: BSD-3-Clause
"""Rounding in the reference engine: what a run stores, and how far that is from the run beside it without formats."""

from __future__ import annotations

import math

import numpy as np

from pykernel.block import LOG10_2, ldexp


def stored(formats, word, block):
    """A block of "signals" or "gradients" as its format holds it."""
    if formats is None or formats.row(word) is None:
        return block
    return block.like(formats.rounded(word, block.true()).astype(block.x.dtype), 0)


class Rounding:
    """The rounding of one replica: `run` is rounded, `beside` has the same weights and is not."""

    def __init__(self, run, beside):
        self.run, self.beside, self.formats = run, beside, run.program.formats
        self.before = {}  # of each register the signal before it was rounded

    def stored(self, word, block):
        """A block of "signals" or "gradients" as its format holds it."""
        return stored(self.formats, word, block)

    def signal(self, register, block):
        """A signal as it is stored in a register."""
        self.before[register] = block
        return self.stored("signals", block)

    def compare_signal(self, number, register):
        """The rows of a node's signal; what it passes on is compared no more."""
        self.compare("signal", number, self.before.get(register, self.run.registers[register]))
        self.before.clear()

    def compare(self, what, number, block):
        """The rows of a node's "signal" or "gradient", of what there is before it is rounded."""
        run, word = self.run, f"{what}s"
        row, true = self.formats.row(word), block.true()
        alive = np.isfinite(true) & (true != 0)
        after = self.stored(word, block).true()
        run.put(f"flushed_{what}", number, (alive & (after == 0)).mean())
        large = math.inf if row is None else row.largest
        run.put(f"overflowed_{what}", number, (alive & (np.abs(after) >= large)).mean())
        sizes = np.abs(block.x[alive])
        for name, size in (("smallest", sizes.min(initial=math.inf)), ("largest", sizes.max(initial=0.0))):
            decades = np.log10(size) + block.e * LOG10_2 if sizes.size else -math.inf
            run.put(f"log10_{name}_{what}", number, decades)
        scale = self.formats.loss_scale if what == "gradient" else 1.0
        plain = self.beside.nodes.pop((what, number))
        x, y = ldexp(block.x.astype(np.float64), block.e - plain.e) / scale, plain.x.astype(np.float64)
        norms = np.sqrt((x * x).sum()), np.sqrt((y * y).sum())
        run.put(f"log10_error_{what}", number, np.log10(np.sqrt(((x - y) ** 2).sum()) / norms[1]))
        if what == "gradient":
            run.put("gradient_cosine", number, (x * y).sum() / (norms[0] * norms[1]))
