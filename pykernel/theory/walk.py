# SPDX-License-Identifier: BSD-3-Clause
"""What the passes of a program forward and backward share: its numbers, and what is asked of it at every op."""

from __future__ import annotations

from pykernel import activations
from pykernel.program import Program
from pykernel.theory import edges
from pykernel.theory.columns import columns
from pykernel.theory.distances import Function
from pykernel.theory.structure import positions_apart
from pykernel.theory.weights import scores
from pykernel.window import Window


class Walk:
    """What both passes of a program share.

    Attributes:
        program, columns: what is walked.  spread: how many columns there are where (`Columns`).
        at: (Function, NormRow) of each activation step.  norms: NormRow of each norm that no activation follows.  line:
            the identity.
        normed: whether there is a batch norm.  positions: of one input, 1 where no attention tells them from inputs.
        tied: whether mean squares depend on distances, as behind batch norm and attention.
        mixes: numbers of the attentions, see `weights.scores`.
        largest: whether there are max pools.  last_peak: number of the last window of one.
        edged: where patches see zeros beyond an edge, `edges.Centred`; else None.  map: then register -> `edges.Map`.
        patterned: whether pairs of positions are then followed.
        between: whether this walk is the second, of columns of different inputs.
    """

    between = False

    def __init__(self, program: Program):
        self.program, self.columns, self.spread = program, program.columns, columns(program)
        functions = [Function(row) for row in program.activations]
        pairs = [(function, norm) for function in functions for norm in program.norms]
        self.at = [pairs[i] for i in (program.steps.row * len(program.norms) + program.steps.norm).tolist()]
        self.norms = [program.norms[n] for n in program.norm_steps.tolist()]
        self.line = Function(activations.get("linear"))
        self.normed = program.has_batch_norm
        self.positions = positions_apart(program)
        pools = any(op.kind == "pool" for stretch in program.stretches for op in stretch.ops)
        self.tied = self.columns > 1 and (self.normed or pools or self.positions > 1)
        self.mixes = scores(program)
        peaks = [program.windows[w].largest for w in program.window_steps.tolist()]
        self.largest, self.last_peak = any(peaks), max((w for w, is_peak in enumerate(peaks) if is_peak), default=-1)
        self.edged = edges.edged(program)
        self.map: dict[int, edges.Map] = {}
        self.patterned = self.edged is not None and self.columns > 1

    def window(self, number: int) -> Window:
        """The windows of a pool."""
        return self.program.windows[self.program.window_steps[number]]
