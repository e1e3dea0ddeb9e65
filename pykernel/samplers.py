# SPDX-License-Identifier: BSD-3-Clause
"""Weights of the user's own inits: drawn by their samplers, a replica at a time, before a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pykernel import checks, stream
from pykernel.program import Program, by_powers_of_two


def sampled(program: Program, layer: int, replica: int) -> np.ndarray:
    """W[layer] of a replica from the sampler of the user's init, (n[l], n[l-1]) float64."""
    assert program.samplers is not None
    init, scale = program.samplers[layer - 1], program.layers.scale[layer - 1]
    rows, columns, address = (
        int(a[layer - 1]) for a in (program.layers.units, program.layers.columns, program.layers.address)
    )
    where = f"init {init}: the sampler's answer for layer {layer}"
    try:
        draw = init.sampler(rows, columns, stream.sampler_seed(program.seed, address, replica))
    except Exception as error:
        raise RuntimeError(
            f"init {init}: the sampler raised {type(error).__name__} for layer {layer}: {error}"
        ) from error
    with np.errstate(over="ignore", under="ignore"):
        matrix = scale * checks.array(where, draw, (rows, columns))
    if not np.isfinite(matrix).all():
        raise ValueError(f"{where} times its scale {scale:g} must be finite")
    return matrix


def with_samples(program: Program, replica: int) -> Program:
    """The program of one replica with every weight that has a sampler drawn from it."""
    assert program.samplers is not None
    chosen = [i for i in program.first_uses if program.samplers[i] is not None]
    given, powers = by_powers_of_two([sampled(program, i + 1, replica) for i in chosen], program.exponent)
    drawn = {program.layers.weight[i]: (a, p) for i, a, p in zip(chosen, given, powers, strict=True)}
    weights = list(program.weights or (None,) * program.depth)
    scale = program.layers.scale.copy()
    for i, weight in enumerate(program.layers.weight):
        if weight in drawn:
            weights[i], scale[i] = drawn[weight]
    return replace(program, samplers=None, weights=tuple(weights), layers=program.layers._replace(scale=scale))
