# SPDX-License-Identifier: BSD-3-Clause
"""The compiled backend: hands a plan to the C++ run loop."""

from __future__ import annotations

from pykernel import _core, machine
from pykernel.cfunctions import CFunction
from pykernel.plan import Plan

# Stored blocks of all workers together: beyond it layers are computed twice, from checkpoints. Half as much again for kept draws.
MEMORY = 2**30


def refusal(plan: Plan, able: str = '"numba" or "reference"') -> str | None:
    """Why this module cannot run the plan, or None; able: the backends that can."""
    row = plan.activation
    if not row.builtin:
        others = row.log2_value or row.log2_slope or (not plan.exponent and (row.plain_value, row.plain_slope) != (row.value, row.slope))
        if others or c_functions(row) is None:
            what = "calls value and slope only and" if others else "needs C functions, or such as Numba can compile, and"
            return f'backend="cpp" {what} cannot run activation {row.name!r}; backend={able} can'
    if plan.head_weight is not None:
        return f'backend="cpp" draws the head\'s weight; backend={able} can run a head with a weight of your own'
    return None


def c_functions(row) -> tuple[CFunction, CFunction] | None:
    """(value, slope) of a user's row as C functions; None where they are not, and Numba cannot compile them or is not installed."""
    if isinstance(row.value, CFunction) and isinstance(row.slope, CFunction):
        return row.value, row.slope
    try:
        from pykernel.kernels import callbacks
    except ImportError:
        return None
    return callbacks.c_functions(row)


def run(plan: Plan, first: int, count: int, *, threads: int, keep=(), engine: str = "dense", memory: int | None = None) -> dict:
    """Rows of replicas first .. first + count - 1, each a float64 array. `memory`: bytes for stored blocks."""
    if keep:
        raise ValueError('backend="cpp" keeps no arrays; backend="reference" does')
    if memory is None:
        memory = min(MEMORY, machine.free_memory() // 2)
    own = () if plan.activation.builtin else c_functions(plan.activation) or ()
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
    given = 0 if plan.weights is None else sum(w.nbytes for w in plan.weights)
    return threads * 12 * block + stored + given
