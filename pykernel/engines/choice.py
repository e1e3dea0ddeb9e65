# SPDX-License-Identifier: BSD-3-Clause
"""Which engine and backend run a program, and what one replica costs there."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache, cached_property
from typing import Any

from pykernel import checks, machine
from pykernel.engines import BACKENDS, ENGINES, TABLE, cost, matrix_free_refusal
from pykernel.program import Program

CLEARLY = 2.0  # times dearer: a named backend kept to matrix-free once, and cells of stores are known by their engine
WRITTEN = 2e10  # bytes a second, by one core into memory: above what any of today does


class Choice:
    """An engine and a backend that can run a program.

    Attributes:
        engine, backend: a key of `engines.TABLE`.  module: what it names.
    """

    def __init__(self, program: Program, engine: str, backend: str) -> None:
        self.program, self.engine, self.backend = program, engine, backend
        self.module = module_of(engine, backend)

    @cached_property
    def seconds(self) -> float:
        """Nominal, of one replica on one core."""
        return cost.seconds(self.program, self.engine, self.backend)

    @property
    def bytes(self) -> int:
        """Of workspace that a run on one thread cannot do without."""
        return int(self.module.memory(self.program, 1))

    @property
    def most_bytes(self) -> float:
        """More than a run can need: all that a core writes meanwhile, and the Gram matrices, which cost little time
        where layers are narrow."""
        return self.seconds * WRITTEN + 64.0 * self.program.depth * self.program.most_columns**2


@cache
def module_of(engine: str, backend: str) -> Any:
    """The module of an engine and backend."""
    return importlib.import_module(TABLE[engine, backend])


def choose(program: Program, engine: str = "auto", backend: str = "auto", keep: Sequence[str] = ()) -> Choice:
    """The engine and backend for a program.

    Raises:
        ValueError: an unknown name, or a combination that cannot run the program, with one that can.
    """
    checks.choice("engine", engine, ("auto", *ENGINES))
    checks.choice("backend", backend, ("auto", *BACKENDS))
    engines = ENGINES if engine == "auto" else (engine,)
    backends = ("reference",) if keep and backend == "auto" else BACKENDS if backend == "auto" else (backend,)
    if keep and backends != ("reference",):
        raise ValueError(f'backend="{backend}" keeps no arrays; backend="reference" does')
    reasons, missing, found = [], [], []
    for e in engines:
        there = any((e, b) in TABLE for b in backends)
        reason = matrix_free_refusal(program) if e == "matrix_free" and there else None
        if reason is not None:
            reasons.append(reason)
            continue
        for b in backends:
            if (e, b) not in TABLE:
                others = " or ".join(f'"{other}"' for other in BACKENDS if (e, other) in TABLE)
                missing.append(
                    f'engine="{e}" does not run in backend="{b}"; '
                    f"backend={others} can, a user's own activation included"
                )
                continue
            choice = Choice(program, e, b)
            reason = choice.module.refusal(program)
            if reason is None:
                found.append(choice)
                if b == BACKENDS[0] or engine != "auto":
                    break
            else:
                reasons.append(reason)
    if len(found) == 1:
        return found[0]
    if found and len(backends) == 1:  # the same engine in every backend, so that they can be compared
        first, other = (cost.seconds(program, choice.engine, BACKENDS[0]) for choice in found)
        return found[first > CLEARLY * other]
    if found:  # weights are cheaper where columns come near the width, and compiled draws than matrix-free NumPy
        return min(found, key=lambda choice: choice.seconds)
    raise ValueError((reasons + missing)[0])


def smaller(chosen: Choice, free: int) -> str | None:
    """Which other backend of a chosen engine can run its program in so many bytes, in words; None where there is
    none."""
    program = chosen.program
    for backend in BACKENDS:
        if (chosen.engine, backend) not in TABLE:
            continue
        module = module_of(chosen.engine, backend)
        if backend == chosen.backend or module.refusal(program) is not None:
            continue
        needed = module.memory(program, 1)
        if needed <= free:
            return f'backend="{backend}" can run this in {machine.bytes_text(needed)}'
    return None
