# SPDX-License-Identifier: BSD-3-Clause
"""What infinite-width theory does not say: the chains that it leaves out, each with its reason in a sentence."""

from __future__ import annotations

from pykernel.lower import lower
from pykernel.program import Program
from pykernel.theory.ops import OPS
from pykernel.theory.structure import Law, NoTheory, Structure

ONE_NORMED_INPUT = (
    "batch norm of a single input is zero: no branch passes a signal or a gradient, only skip "
    "connections do; use a batch of 2 or more"
)


def structure(program: Program) -> Structure:
    """Walk the laws of a program's registers once.

    Raises:
        NoTheory: an op for which no closed recursion is known, said in one sentence.
    """
    if program.head.loss is not None and program.read_columns < program.columns:
        raise NoTheory(f'mean field has no head over="{program.head.over}"; use propagate, or over="positions"')
    walk = Structure(program)
    walk.laws[0] = Law(sources=walk.fresh())
    for stretch in program.stretches:
        for _ in range(min(stretch.count, 3)):  # what enters is what came out; a law changes once at most
            for op in stretch.ops:
                if op.kind not in OPS:
                    raise NoTheory("mean field has no attention yet; use propagate")
                walk.laws[op.out] = OPS[op.kind].law(walk, stretch, op)
    return walk


def means(program: Program) -> str | None:
    """Why what infinite width says of a program is not to be compared with a measurement, or None.

    Skips around branches that end in a function that is not odd: their outputs add up to a mean, and the gradient's
    part along it grows by more than infinite width says (152 layers of ReLU: 16 decades, not 11).
    """
    found = structure(program).means
    return f"branches that end in {found[0]} add up to a mean, which infinite width leaves out" if found else None


def refusal(chain) -> str | None:
    """Why infinite width says nothing of a chain that could be measured, or None."""
    try:
        return means(lower(chain))
    except NoTheory as reason:
        return str(reason)
