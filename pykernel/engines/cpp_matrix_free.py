# SPDX-License-Identifier: BSD-3-Clause
"""The matrix-free engine of the compiled backend (csrc/matrix_free.hpp); the law is that of `reference_matrix_free`."""

from __future__ import annotations

from functools import partial

from pykernel.engines import cpp

run = partial(cpp.run, engine="matrix_free")


def refusal(plan) -> str | None:
    """Why this module cannot run the plan, or None."""
    return cpp.refusal(plan, '"reference"')


def memory(plan, threads: int) -> int:
    """Bytes of workspace that a run cannot do without, about."""
    if _one_input(plan):
        return threads * (104 + 24) * (plan.depth + 1) + 104 * (int(plan.widths.max()) // 1024 + 1)
    return cpp.memory(plan, threads, copies=2)


def _one_input(plan) -> bool:
    """Whether the compiled engine keeps sums only (csrc/single.cpp; `SingleChain::takes`)."""
    plain = plan.activation.builtin and not (plan.norm or plan.residual_every or plan.loss)
    given = plan.x is not None or plan.cotangent is not None or plan.biases is not None
    return plan.batch == 1 and plan.distribution == "normal" and plain and not given and plan.correlation == 0
