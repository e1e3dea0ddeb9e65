# SPDX-License-Identifier: BSD-3-Clause
"""The compiled backend: hands a program to the C++ run loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from pykernel import _core, machine
from pykernel.activation import Activation
from pykernel.cfunctions import CFunction
from pykernel.program import Draw, Program

# Stored blocks of all workers together: beyond it layers are computed twice, from checkpoints. Half as much again for
# kept draws.
MEMORY = 2**30
BEYOND = 2**62  # bytes: what sizes that overflow 64 bits would need, and more than anybody has


def refusal(program: Program, able: str = '"numba" or "reference"') -> str | None:
    """Why this module cannot run the program, or None; able: the backends that can."""
    if program.common and (program.counts.weight or program.counts.window):
        return (
            'backend="cpp" has the tangent kernel of layers with weights of their own and all positions, not of shared '
            'weights, convolution or pooling; backend="reference" can'
        )
    if program.counts.weight and program.has_groups:
        return 'backend="cpp" sums no gradients of convolutions in groups that share a weight; backend="reference" does'
    for row in program.activations:
        if row.builtin:
            continue
        others = (
            row.log2_value
            or row.log2_slope
            or (not program.exponent and (row.plain_value, row.plain_slope) != (row.value, row.slope))
        )
        if others or c_functions(row) is None:
            what = (
                "calls value and slope only and" if others else "needs C functions, or such as Numba can compile, and"
            )
            return f'backend="cpp" {what} cannot run activation {row.name!r}; backend={able} can'
    return None


def c_functions(row: Activation) -> tuple[CFunction, CFunction] | None:
    """(value, slope) of a user's row as C functions; None where they are not, and Numba cannot compile them or is not
    installed."""
    if isinstance(row.value, CFunction) and isinstance(row.slope, CFunction):
        return row.value, row.slope
    try:
        from pykernel.kernels import callbacks
    except ImportError:
        return None
    return callbacks.c_functions(row)


def run(
    program: Program,
    first: int,
    count: int,
    *,
    threads: int,
    keep: tuple[()] = (),
    engine: str = "dense",
    memory: int | None = None,
) -> dict:
    """Rows of replicas first .. first + count - 1, each a float64 array. `memory`: bytes for stored blocks."""
    if keep:
        raise ValueError('backend="cpp" keeps no arrays; backend="reference" does')
    return _guarded(program, memory, lambda memory, own: _core.run(program, engine, first, count, threads, memory, own))


def trace(program: Program, replica: int, engine: str = "dense") -> np.ndarray:
    """(exponent, log10 of the norm) of what every op of a replica wrote: forward the ops in order, backward the
    registers that each read."""
    return _guarded(program, None, lambda memory, own: _core.trace(program, engine, replica, memory, own))


def _guarded(program: Program, memory: int | None, call: Callable[[int, list], Any]) -> Any:
    """`call(memory, addresses)` of the user's own functions, whose errors are raised here."""
    if memory is None:
        memory = min(MEMORY, machine.free_memory() // 2)
    own = [() if row.builtin else c_functions(row) or () for row in program.activations]
    failures = [
        (f.failure, row, what)
        for row, functions in zip(program.activations, own, strict=True)
        for f, what in zip(functions, ("value", "slope"), strict=False)
        if f.failure
    ]
    for failure, _, _ in failures:
        failure.forget()
    addresses = [[(f.address, f.scalar) for f in functions] for functions in own]
    found = call(memory, addresses)
    for failure, row, what in failures:
        failure.check(row, what)
    return found


def memory(program: Program, threads: int = 1, engine: str = "dense") -> int:
    """Bytes of workspace that a run cannot do without, about: beyond them it takes what is free, and computes less
    twice."""
    if program.samplers is not None:  # what they draw lies outside the workspace
        drawn = tuple(Draw("normal", 0.0) if draw.distribution == "given" else draw for draw in program.draws)
        program = replace(program, draws=drawn, samplers=None)
    try:
        return _core.memory(program, engine)
    except OverflowError:
        return BEYOND
