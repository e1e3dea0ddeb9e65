# SPDX-License-Identifier: BSD-3-Clause
"""The compiled backend: hands a plan to the C++ run loop."""

from __future__ import annotations

from pykernel import _core, cfunctions, machine
from pykernel.plan import Plan

# Stored blocks of all workers together: beyond it layers are computed twice, from checkpoints. Half as much again for kept draws.
MEMORY = 2**30


def refusal(plan: Plan) -> str | None:
    """Why this module cannot run the plan, or None."""
    row = plan.activation
    if not row.builtin:
        others = row.log2_value or row.log2_slope or (not plan.exponent and (row.plain_value, row.plain_slope) != (row.value, row.slope))
        if others or cfunctions.compiled(row) is None:
            what = "calls value and slope only and" if others else "needs C functions, or such as Numba can compile, and"
            return f'backend="cpp" {what} cannot run activation {row.name!r}; backend="numba" or "reference" can'
    return None


def run(plan: Plan, first: int, count: int, *, threads: int, keep=(), engine: str = "dense", memory: int | None = None) -> dict:
    """Rows of replicas first .. first + count - 1, each a float64 array. `memory`: bytes for stored blocks."""
    if keep:
        raise ValueError('backend="cpp" keeps no arrays; backend="reference" does')
    if memory is None:
        memory = min(MEMORY, machine.free_memory() // 2)
    own = () if plan.activation.builtin else cfunctions.compiled(plan.activation)
    failures = [(f.failure, what) for f, what in zip(own, ("value", "slope"), strict=False) if f.failure]
    for failure, _ in failures:
        failure.forget()
    rows = _core.run(plan, engine, first, count, threads, memory, [(f.address, f.scalar) for f in own])
    for failure, what in failures:
        failure.check(plan.activation, what)
    return rows


def memory(plan: Plan, threads: int, copies: int | None = None) -> int:
    """Bytes of workspace that a run cannot do without, about: beyond them it takes what is free, and computes less twice.

    `copies`: blocks a layer that the backward pass needs.
    """
    copies = copies or (2 if plan.clip_value else 1)
    block = (int(plan.widths.max()) + 15) // 16 * 16 * plan.batch * (4 if plan.dtype == "float32" else 8)
    layer, checkpoint = copies * block + 8 * plan.batch**2, block * (2 if plan.residual_every > 1 else 1)
    stored = min(plan.depth * layer, 2 * int((plan.depth * layer * checkpoint) ** 0.5) + layer)
    given = sum(w.nbytes for w in [*(plan.weights or ()), *([] if plan.head_weight is None else [plan.head_weight])])
    return threads * 12 * block + stored + given
