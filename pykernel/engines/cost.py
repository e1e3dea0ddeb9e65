# SPDX-License-Identifier: BSD-3-Clause
"""Nominal seconds of one replica on one core, for every engine and backend: what sweeps cut blocks by, and `auto`
chooses by.

Figures are of one Zen 3 core at 2.3 GHz (AVX2, float32). A sweep learns the factor between them and the machine at
hand. Where both engines cost the same was measured with he_normal ReLU chains on a Zen 4 core (AVX-512), twice as fast:
6 columns at 64 units, some 20 at 128, 60 at 256, 130 at 512, 260 at 1024; 2 at 32 units or fewer.
"""

from __future__ import annotations

import numpy as np

from pykernel.patterns import pattern_of
from pykernel.program import query_layers


def seconds(program, engine: str, backend: str) -> float:
    """Nominal seconds of one replica of a program."""
    layers = program.layers
    distributions = np.array([draw.distribution for draw in program.draws])
    distributions = distributions if len(distributions) == 1 else distributions[layers.draw]
    products = _attention(program.stretches, layers.units, layers.positions, program.mixes.causal, program.batch)
    first = np.bincount(program.first_uses, minlength=program.depth) > 0
    columns = program.batch * layers.positions
    return _seconds(engine, backend, layers.units, layers.columns, columns, distributions, products, first)


def seconds_of(chain, run: dict) -> float:
    """The same of a chain under the words of a run, without lowering it."""
    positions = run.get("positions", ())
    positions = (positions,) if isinstance(positions, int) else tuple(positions)
    columns = run["batch"] * int(np.prod(positions, dtype=np.int64))
    if chain.blocks is None and not chain.has_lists and not chain.tied:
        n = chain.layer_widths
        return _seconds(run["engine"], run["backend"], n[1:], n[:-1], columns, np.array([chain.init.distribution]))
    pattern = pattern_of(chain, positions)
    distributions = np.array([draw.distribution for draw in pattern.draws.rows])[pattern.draw]
    places = pattern.places(positions)
    products = _attention(pattern.stretches, pattern.units, places, pattern.mixes.causal, run["batch"])
    columns = run["batch"] * places
    first = np.bincount(pattern.first_uses, minlength=len(pattern.units)) > 0
    sizes = pattern.units, pattern.columns, columns
    return _seconds(run["engine"], run["backend"], *sizes, distributions, products, first)


def _attention(stretches, units, positions, causal, batch):
    """Multiply-adds of all attentions: scores and their use forward, five products back; units, positions: of
    layers."""
    made_by = query_layers(stretches)
    each = units[made_by] * positions[made_by].astype(float) ** 2 * np.where(causal, 0.5, 1.0)
    return 7 * float(each.sum()) * batch


def _seconds(engine, backend, rows, columns_of_weight, columns, distributions, attention=0.0, first=True):
    """`rows`, `columns_of_weight`: of each W[l].  columns: of every block, or of each layer's.  distributions: of each
    layer, or one of all.  attention: multiply-adds between positions.  first: whether a layer is the first to use its
    weight, which draws it."""
    depth = len(rows)
    columns = np.broadcast_to(np.asarray(columns, dtype=float), depth)
    units = float((rows * columns).sum())
    uses = depth / max(int(np.sum(np.broadcast_to(first, depth))), 1)  # of a weight: each is asked under all before
    if engine == "matrix_free" and backend != "cpp":  # NumPy between the draws
        again = 1e-9 * (uses - 1) * float((rows * columns**2).sum())
        return float((3.3e-3 + 1e-4 * columns).sum()) + units * 1e-6 + again + attention * 1e-9
    total = 2e-5 + depth * (6e-5 if backend == "numba" else 1.5e-6) + units * 6e-9
    total += attention * (0.3e-9 if backend == "numba" else 0.04e-9)
    if engine == "matrix_free":  # draws and products over units; factors of small matrices, column by column and in all
        both = 0.5 * (rows + columns_of_weight) * columns
        total += float((both * (4e-9 + 0.34e-9 * columns)).sum())
        total += float((1.2e-6 * (columns - 1) + 0.26e-9 * (columns - 1) ** 3).sum())
        if uses > 1:  # seven products with all that was asked before, the narrowest as wide as six columns
            known = np.minimum(uses * columns, rows)
            total += 0.25e-9 * float((0.5 * (rows + columns_of_weight) * (columns + 6) * known).sum())
    else:
        weights = rows.astype(float) * columns_of_weight
        cheapest = np.minimum(0.1e-9 * rows * columns**2, 0.04e-9 * weights * columns)  # Gram matrices, or dJ/dW
        total += float(cheapest.sum())
        drawn = ~np.isin(distributions, ("identity", "constant"))
        total += float((weights * drawn * (1.0e-9 * first + 0.2e-9 + 0.08e-9 * columns)).sum())
        haar = (distributions == "haar") & first
        if haar.any():
            total += float((weights * np.minimum(rows, columns_of_weight) * haar).sum()) * 0.5e-9
    return total * {"reference": 1000.0, "numba": 1.5}.get(backend, 1.0)
