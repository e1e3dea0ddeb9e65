# SPDX-License-Identifier: BSD-3-Clause
"""What infinite-width theory does not say: the chains that it leaves out, each with its reason in a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from pykernel.chain import Chain
from pykernel.lower import lower
from pykernel.pattern import Pattern
from pykernel.program import Layers, Program, once
from pykernel.theory.columns import fewest_normed
from pykernel.theory.ops import OPS
from pykernel.theory.structure import Law, NoTheory, Structure, positions_apart

ONE_NORMED_INPUT = (
    "batch norm of a single input is zero: no branch passes a signal or a gradient, only skip "
    "connections do; use a batch of 2 or more"
)


def few_normed(program: Program) -> str | None:
    """What becomes of a batch norm that sees one or two numbers where positions have become few, or None."""
    fewest = fewest_normed(program) if program.counts.window else math.inf
    if fewest > 2:
        return None
    what = "one number, which it makes zero" if fewest == 1 else "two numbers, of which it leaves the signs"
    return (
        f"batch norm sees {what} where positions are fewest, so hardly a gradient passes; more inputs or positions help"
    )


@once
def structure(program: Program) -> Structure:
    """Walk the laws of a program's registers once.

    Raises:
        NoTheory: an op for which no closed recursion is known, said in one sentence.
    """
    if positions_apart(program) > 1:
        _refuse_positions(program)
    if program.counts.weight and _skips(program):
        raise NoTheory(
            "mean field takes every use of a weight as a weight of its own, and with skips it is not, at any width: "
            "a skip carries the answers of earlier uses to the next question; use propagate, or untied layers"
        )
    walk = Structure(program)
    walk.laws[0] = Law(sources=walk.fresh())
    for stretch in program.stretches:
        for _ in range(min(stretch.count, 3)):  # what enters is what came out; a law changes once at most
            for op in stretch.ops:
                walk.step(stretch, op, OPS[op.kind].law)
    return walk


def _skips(program: Program) -> bool:
    """Whether some sum is one with a skip, not with what an input brings."""
    for stretch in program.stretches:
        driven: set[int] = set()  # registers that hold an input, or a layer's answer to it
        for op in stretch.ops:
            if op.kind == "add" and not driven & set(op.ins):
                return True
            new = op.kind == "drive" or (op.kind == "linear" and op.ins[0] in driven)
            driven = driven | {op.out} if new else driven - {op.out}
    return False


def _refuse_positions(program: Program) -> None:
    """What is not known where positions of one input are told from inputs."""
    over = program.head.over
    if program.counts.window:
        raise NoTheory(
            "mean field follows convolutions and pools where nothing tells the positions of one input from other "
            'inputs, and attention or a head that does not read all positions does; put Pool("mean") before the head, '
            "or use propagate"
        )
    if over in ("first", "last") and program.mixes.causal.any():
        raise NoTheory(
            f'mean field averages causal attention over positions, so it has no head over="{over}" one behind it; use '
            'propagate, or over="positions" or "mean"'
        )
    if program.batch > 1 and program.has_batch_norm:
        raise NoTheory(
            "mean field knows batch norm beside attention, or a head that does not read all positions, for one input "
            "only; use a layer norm, or propagate"
        )


def means(program: Program) -> str | None:
    """Why what infinite width says of a program is not to be compared with a measurement, or None.

    Skips around branches that end in a function that is not odd: their outputs add up to a mean, and the gradient's
    part along it grows by more than infinite width says (152 layers of ReLU: 16 decades, not 11).
    """
    found = structure(program).means
    return f"branches that end in {found[0]} add up to a mean, which infinite width leaves out" if found else None


def overused(layers: Layers | Pattern) -> str | None:
    """Why a tied chain is not what untied ones are, or None: a weight that is used more often than the root of its
    width.

    Uses of a Gaussian W of n units count as independent while they are few beside sqrt(n); beyond, W^L grows as
    its largest eigenvalue and eigenvectors say (linear, n = 64: the median of |W^L x|^2 / |x|^2 is .99 at L = 8, untied
    .88, and 2e4 at L = 128, untied .135).

    Args:
        layers: whose weight and units are looked at: those of a program, or a pattern.
    """
    uses = np.bincount(layers.weight)
    if uses.max() == 1:
        return None
    units = layers.units[np.unique(layers.weight, return_index=True)[1]]
    worst = int(np.argmax(uses / np.sqrt(units)))
    if uses[worst] ** 2 <= units[worst]:
        return None
    return (
        f"a weight of {units[worst]} units is used {uses[worst]} times, and uses count as independent only while they "
        f"are few beside the root of the width, {np.sqrt(units[worst]):.3g}"
    )


def refusal(chain: Chain, positions: int | Sequence[int] = ()) -> str | None:
    """Why infinite width says nothing of a chain that could be measured, or None."""
    if chain.is_spatial and not positions:
        return "mean field needs the positions of a convolution's input"
    try:
        program = lower(chain, positions=positions if chain.is_spatial else ())
        return means(program) or overused(program.layers)
    except NoTheory as reason:
        return str(reason)
