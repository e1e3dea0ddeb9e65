# SPDX-License-Identifier: BSD-3-Clause
"""Nominal seconds of one replica on one core, for every engine and backend: what sweeps cut blocks by, and `auto`
chooses by.

Figures are of one Zen 3 core at 2.3 GHz (AVX2, float32). A sweep learns the factor between them and the machine at
hand.
"""

from __future__ import annotations

import numpy as np

from pykernel.patterns import pattern_of


def seconds(program, engine: str, backend: str) -> float:
    """Nominal seconds of one replica of a program."""
    layers = program.layers
    distributions = np.array([draw.distribution for draw in program.draws])
    distributions = distributions if len(distributions) == 1 else distributions[layers.draw]
    return _seconds(engine, backend, layers.units, layers.columns, program.columns, distributions)


def seconds_of(chain, run: dict) -> float:
    """The same of a chain under the words of a run, without lowering it."""
    columns = run["batch"] * int(np.prod(run.get("positions", ()), dtype=np.int64))
    if chain.blocks is None and not chain.has_lists:
        n = chain.layer_widths
        return _seconds(run["engine"], run["backend"], n[1:], n[:-1], columns, np.array([chain.init.distribution]))
    pattern = pattern_of(chain)
    distributions = np.array([draw.distribution for draw in pattern.draws.rows])[pattern.draw]
    return _seconds(run["engine"], run["backend"], pattern.units, pattern.columns, columns, distributions)


def _seconds(engine, backend, rows, columns_of_weight, columns, distributions):
    """`rows`, `columns_of_weight`: of each W[l].  columns: of every block.  distributions: of each layer, or one of
    all."""
    depth, units = len(rows), float(rows.sum()) * columns
    if engine == "matrix_free" and backend != "cpp":  # NumPy between the draws
        return depth * (3.3e-3 + 1e-4 * columns) + units * 1e-6
    total = 2e-5 + depth * (6e-5 if backend == "numba" else 1.5e-6) + units * 12e-9
    if engine == "matrix_free":
        total += units * (8e-9 + 2e-9 * columns)
    else:
        weights = rows.astype(float) * columns_of_weight
        drawn = ~np.isin(distributions, ("identity", "constant"))
        total += float((weights * drawn).sum()) * (1.2e-9 + 0.08e-9 * columns)
        haar = distributions == "haar"
        if haar.any():
            total += float((weights * np.minimum(rows, columns_of_weight) * haar).sum()) * 0.5e-9
    return total * {"reference": 1000.0, "numba": 1.5}.get(backend, 1.0)
