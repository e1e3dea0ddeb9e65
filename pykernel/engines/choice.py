# SPDX-License-Identifier: BSD-3-Clause
"""Which engine and backend run a plan, and what one replica costs there."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, NamedTuple

from pykernel import checks, machine
from pykernel.engines import BACKENDS, ENGINES, TABLE, cost, matrix_free_refusal


class Choice(NamedTuple):
    """An engine and a backend that can run a plan.

    Attributes:
        engine, backend: a key of `engines.TABLE`.  module: what it names.
        seconds: nominal, of one replica on one core.  bytes: of workspace that a run on one thread cannot do without.
    """

    engine: str
    backend: str
    module: Any
    seconds: float
    bytes: int


def choose(plan, engine="auto", backend="auto", keep=()) -> Choice:
    """The engine and backend for a plan.

    Raises:
        ValueError: an unknown name, or a combination that cannot run the plan, with one that can.
    """
    checks.choice("engine", engine, ("auto", *ENGINES))
    checks.choice("backend", backend, ("auto", *BACKENDS))
    engines = ENGINES if engine == "auto" else (engine,)
    backends = ("reference",) if keep and backend == "auto" else BACKENDS if backend == "auto" else (backend,)
    if keep and backends != ("reference",):
        raise ValueError(f'backend="{backend}" keeps no arrays; backend="reference" does')
    reasons, slower = [], []
    for e in engines:
        reason = matrix_free_refusal(plan) if e == "matrix_free" else None
        if reason is not None:
            reasons.append(reason)
            continue
        for b in backends:
            if importlib.util.find_spec(TABLE[e, b]) is None:
                reasons.append(f'engine="{e}" has no backend="{b}" yet')
                continue
            module = importlib.import_module(TABLE[e, b])
            reason = module.refusal(plan)
            if reason is None:
                found = _choice(plan, e, b, module)
                if engine != "auto" or backend != "auto" or b == BACKENDS[0] or keep:
                    return found
                slower.append(found)
            reasons.append(reason)
    if slower:  # without C++, matrix-free NumPy may take longer than compiled draws of every weight
        return min(slower, key=lambda found: found.seconds)
    raise ValueError(reasons[0])


def _choice(plan, engine: str, backend: str, module: Any) -> Choice:
    seconds = cost.seconds(engine, backend, plan.widths, plan.batch, plan.distribution)
    return Choice(engine, backend, module, seconds, int(module.memory(plan, 1)))


def smaller(plan, chosen: Choice, free: int) -> str | None:
    """Which other backend of a chosen engine can run the plan in so many bytes, in words; None where there is none."""
    for backend in BACKENDS:
        module = importlib.import_module(TABLE[chosen.engine, backend])
        if backend == chosen.backend or module.refusal(plan) is not None:
            continue
        needed = module.memory(plan, 1)
        if needed <= free:
            return f'backend="{backend}" can run this in {machine.bytes_text(needed)}'
    return None
