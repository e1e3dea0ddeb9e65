# SPDX-License-Identifier: BSD-3-Clause
"""The table of engines and backends, and how `auto` chooses. A module is imported when it is first asked for.

A module has run(plan, first, count, *, threads, keep=()) -> rows, refusal(plan) -> None or a sentence, and memory(plan, threads) -> bytes
of workspace.
"""

from __future__ import annotations

import importlib

from pykernel import checks, machine
from pykernel.engines import cost

TABLE = {
    ("dense", "cpp"): "pykernel.engines.cpp",
    ("dense", "numba"): "pykernel.engines.numba_dense",
    ("dense", "reference"): "pykernel.engines.reference",
    ("matrix_free", "cpp"): "pykernel.engines.cpp_matrix_free",
    ("matrix_free", "reference"): "pykernel.engines.reference_matrix_free",
}
# In the order in which `auto` prefers them, as long as C++ can run the chain; without it the cheapest by `cost`.
ENGINES = ("matrix_free", "dense")
BACKENDS = ("cpp", "numba", "reference")


def choose(plan, engine="auto", backend="auto", keep=()):
    """The engine and backend for a plan, and their module.

    Returns:
        (engine, backend, module)

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
            if (e, b) not in TABLE:
                others = " or ".join(f'"{other}"' for other in BACKENDS if (e, other) in TABLE)
                reasons.append(f'engine="{e}" does not run in backend="{b}"; backend={others} can, a user\'s own activation included')
                continue
            module = importlib.import_module(TABLE[e, b])
            reason = module.refusal(plan)
            if reason is None:
                if engine != "auto" or backend != "auto" or b == BACKENDS[0] or keep:
                    return e, b, module
                slower.append((cost.seconds(e, b, plan.widths, plan.batch, plan.distribution), e, b, module))
            reasons.append(reason)
    if slower:  # without C++, matrix-free NumPy may take longer than compiled draws of every weight
        return min(slower, key=lambda found: found[0])[1:]
    raise ValueError(reasons[0])


def smaller(plan, module, free: int) -> str | None:
    """Which other backend of a module's engine can run the plan in so many bytes, in words; None where there is none."""
    engines = [engine for (engine, _), name in TABLE.items() if name == module.__name__]
    for (engine, backend), name in TABLE.items():
        if engine in engines and name != module.__name__:
            other = importlib.import_module(name)
            if other.refusal(plan) is None and other.memory(plan, 1) <= free:
                return f'backend="{backend}" can run this in {machine.bytes_text(other.memory(plan, 1))}'
    return None


def matrix_free_refusal(plan) -> str | None:
    """Why no matrix-free backend can run a plan, or None: exact laws are known for Gaussian and Haar weights."""
    reasons = {
        "given": "the caller's own weights",
        "identity": "identity weights",
        "constant": "constant weights",
    }
    if plan.distribution not in ("normal", "haar"):
        what = reasons.get(plan.distribution, f"{plan.distribution} weights")
        return f'engine="matrix_free" is exact for Gaussian and orthogonal weights only, not for {what}; engine="dense" can run this chain'
    if plan.clip_value:
        return 'engine="matrix_free" has no gradient entries to clip by value; engine="dense" can, or clip by norm'
    if not plan.exponent:
        return 'engine="matrix_free" has no plain arithmetic to show; precision="native" needs engine="dense"'
    return None
