# SPDX-License-Identifier: BSD-3-Clause
"""The matrix-free engine of the compiled backend (csrc/matrix_free.hpp); the law is that of `reference_matrix_free`."""

from __future__ import annotations

from functools import partial

from pykernel.engines import cpp
from pykernel.program import Program

run = partial(cpp.run, engine="matrix_free")
trace = partial(cpp.trace, engine="matrix_free")
memory = partial(cpp.memory, engine="matrix_free")


def refusal(program: Program) -> str | None:
    """Why this module cannot run the program, or None."""
    return cpp.refusal(program, '"reference"')
