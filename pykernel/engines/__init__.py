# SPDX-License-Identifier: BSD-3-Clause
"""The table of engines and backends, and what every module of it has. `choice` imports them when they are first asked
for.

A module has
    run(program, first, count, *, threads, keep=()) -> rows by name, and "keep" where asked for
    refusal(program) -> None, or the sentence that says why not and what can
    trace(program, replica) -> (exponent, log10 norm) of what every op wrote; not in every module
    memory(program, threads) -> bytes of workspace that a run cannot do without
"""

from __future__ import annotations

import numpy as np

from pykernel.distributions import GAUSSIAN
from pykernel.program import Program

TABLE = {
    ("dense", "cpp"): "pykernel.engines.cpp",
    ("dense", "numba"): "pykernel.engines.numba_dense",
    ("dense", "reference"): "pykernel.engines.reference",
    ("matrix_free", "cpp"): "pykernel.engines.cpp_matrix_free",
    ("matrix_free", "reference"): "pykernel.engines.reference_matrix_free",
}
# `auto` takes the engine that is the cheapest by `cost`, in the first backend that can run the program; of an explicit
# backend the first engine that can.
ENGINES = ("matrix_free", "dense")
BACKENDS = ("cpp", "numba", "reference")


def matrix_free_refusal(program: Program) -> str | None:
    """Why no matrix-free backend can run a program, or None: exact laws are known for Gaussian and Haar weights."""
    kinds = {"given": "the caller's own weights", "identity": "identity weights", "constant": "constant weights"}
    for i in np.unique(program.layers.draw) if len(program.draws) > 1 else (0,):
        distribution = program.draws[i].distribution
        if distribution not in GAUSSIAN:
            what = kinds.get(distribution, f"{distribution} weights")
            return (
                f'engine="matrix_free" is exact for Gaussian and orthogonal weights only, not for {what}; '
                'engine="dense" can run this chain'
            )
    if program.formats is not None and program.formats.row("weights") is not None:
        return (
            'engine="matrix_free" draws no weights to round; engine="dense" can, or leave the weights format at '
            '"float32"'
        )
    if program.has_groups:
        return 'engine="matrix_free" asks whole weights, not those of convolutions in groups; engine="dense" can'
    if any(draw.distribution == "haar" and draw.parameter for draw in program.draws):
        return 'engine="matrix_free" has no law of delta-orthogonal kernels of several taps; engine="dense" can'
    if program.clip_value:
        return 'engine="matrix_free" has no gradient entries to clip by value; engine="dense" can, or clip by norm'
    if not program.exponent:
        return 'engine="matrix_free" has no plain arithmetic to show; precision="native" needs engine="dense"'
    return None
