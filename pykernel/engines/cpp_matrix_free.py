# SPDX-License-Identifier: BSD-3-Clause
"""The matrix-free engine of the compiled backend (csrc/matrix_free.hpp); the law is that of `reference_matrix_free`."""

from __future__ import annotations

from functools import partial

from pykernel.engines import cpp, matrix_free_refusal

run = partial(cpp.run, engine="matrix_free")


def refusal(plan) -> str | None:
    """Why this module cannot run the plan, or None."""
    return matrix_free_refusal(plan) or cpp.refusal(plan)


def memory(plan, threads: int) -> int:
    """Bytes of workspace that a run takes at most, about."""
    return cpp.memory(plan, threads)
