# SPDX-License-Identifier: BSD-3-Clause
"""Nominal seconds of one replica on one core, for every engine and backend: what sweeps cut blocks by, and `auto`
chooses by.

Figures are of one Zen 3 core at 2.3 GHz (AVX2, float32). A sweep learns the factor between them and the machine at
hand. Where both engines cost the same was measured with he_normal ReLU chains on a Zen 4 core (AVX-512), twice as fast:
6 columns at 64 units, some 20 at 128, 60 at 256, 130 at 512, 260 at 1024; 2 at 32 units or fewer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pykernel.chain import Chain
from pykernel.dtypes import Bools, Ints
from pykernel.patterns import pattern_of
from pykernel.program import Draw, Program, Stretch, query_layers


def seconds(program: Program, engine: str, backend: str) -> float:
    """Nominal seconds of one replica of a program."""
    layers = program.layers
    columns = program.batch * layers.positions if len(program.windows) else program.columns
    attention = _attention(program.stretches, layers.units, layers.positions, program.mixes.causal, program.batch)
    first = _first(program.first_uses, program.depth)
    drawn, haar = _kinds(program.draws, layers.draw)
    head = _head(program.head.outputs, program.nodes[-1], program.read_columns, backend) if program.head.loss else 0.0
    seen, times = (slice(0, 1), program.depth) if _is_uniform(program) else (slice(None), 1)
    sizes = layers.units[seen], layers.columns[seen], columns
    return head + _seconds(engine, backend, *sizes, drawn, haar, attention, first, times)


def _is_uniform(program: Program) -> bool:
    """Whether all layers are as the first, each the only one of its repetition, and use weights of their own."""
    one = len(program.stretches) == 1 and program.stretches[0].each.layer == 1 and not program.counts.weight
    plain = len(program.draws) == 1 and not program.windows and len(program.kernels) == 1
    return one and plain and int(program.nodes.min()) == program.widest


def seconds_of(chain: Chain, run: dict) -> float:
    """The same of a chain under the words of a run, without lowering it."""
    positions = run.get("positions", ())
    positions = (positions,) if isinstance(positions, int) else tuple(positions)
    columns = run["batch"] * math.prod(positions)
    engine, backend = run["engine"], run["backend"]
    if chain.blocks is None and not chain.has_lists and not chain.tied:
        n, times = (chain.layer_widths, 1) if chain.width is None else (np.full(2, chain.width), chain.depth)
        drawn, haar = _kinds([chain.init], None)
        each = _seconds(engine, backend, n[1:], n[:-1], columns, drawn, haar, times=times)
        return _head_of(chain, n[-1], columns, run) + each
    pattern = pattern_of(chain, positions)
    places = pattern.places(positions)
    attention = _attention(pattern.stretches, pattern.units, places, pattern.causal, run["batch"])
    first = _first(pattern.first_uses, len(pattern.units))
    drawn, haar = _kinds(pattern.draws, pattern.draw)
    sizes = pattern.units, pattern.columns, run["batch"] * places
    last = 1 if pattern.windows else places[-1]  # images end in one position, or in few
    head = _head_of(chain, pattern.nodes[-1], run["batch"] * last, run)
    return head + _seconds(engine, backend, *sizes, drawn, haar, attention, first)


def _head_of(chain: Chain, units: int, columns: int, run: dict) -> float:
    if chain.head is None:
        return 0.0
    read = columns if chain.head.over == "positions" else run["batch"]
    return _head(chain.head.outputs, units, read, run["backend"])


def _head(outputs: int, units: int, columns: int, backend: str) -> float:
    """A weight of its own, and three exponentials of each logit."""
    each = units * (1.2e-9 + 0.12e-9 * columns) + 50e-9 * columns
    return float(outputs * each) * {"reference": 1000.0, "numba": 1.5}.get(backend, 1.0)


def _first(first_uses: Ints, depth: int) -> Any:
    """Whether a layer is the first to use its weight, which draws it: of each layer, or of all."""
    return True if len(first_uses) == depth else np.bincount(first_uses, minlength=depth) > 0


def _kinds(draws: Sequence[Draw], of_layers: Any) -> tuple[Any, Any]:
    """Whether weights are drawn, and whether they are orthogonal: of each layer, or of all."""
    drawn = [draw.distribution not in ("identity", "constant") for draw in draws]
    haar = [draw.distribution == "haar" for draw in draws]
    return (drawn[0], haar[0]) if len(draws) == 1 else (np.array(drawn)[of_layers], np.array(haar)[of_layers])


def _attention(stretches: Sequence[Stretch], units: Ints, positions: Ints, causal: Bools, batch: int) -> float:
    """Multiply-adds of all attentions: scores and their use forward, five products back; units, positions: of
    layers."""
    if not len(causal):
        return 0.0
    made_by = query_layers(stretches)
    each = units[made_by] * positions[made_by].astype(float) ** 2 * np.where(causal, 0.5, 1.0)
    return 7 * float(each.sum()) * batch


def _seconds(
    engine: str,
    backend: str,
    rows: Ints,
    columns_of_weight: Ints,
    columns: Any,
    drawn: Any,
    haar: Any,
    attention: float = 0.0,
    first: Any = True,
    times: int = 1,
) -> float:
    """`rows`, `columns_of_weight`: of each W[l].  columns: of every block, or of each layer's.  drawn, haar, first: of
    each layer, or of all.  attention: multiply-adds between positions.  times: how often these layers come."""
    depth = len(rows) * times
    rows, columns_of_weight, columns = rows.astype(float), columns_of_weight.astype(float), columns * 1.0
    uses = 1.0 if first is True else depth / np.count_nonzero(first)  # of a weight: each is asked under all before
    if engine == "matrix_free" and backend != "cpp":  # NumPy between the draws
        again = 1e-9 * (uses - 1) * rows * columns**2
        each = 3.3e-3 + 1e-4 * columns + 1e-6 * rows * columns + again
        return float(each.sum()) * times + attention * 1e-9
    total = 2e-5 + depth * (6e-5 if backend == "numba" else 1.5e-6)
    total += attention * (0.3e-9 if backend == "numba" else 0.04e-9)
    each = 6e-9 * rows * columns
    if engine == "matrix_free":  # draws and products over units; factors of small matrices, column by column and in all
        both = 0.5 * (rows + columns_of_weight)
        each = each + both * columns * (4e-9 + 0.34e-9 * columns)
        each += 1.2e-6 * (columns - 1) + 0.26e-9 * (columns - 1) ** 3
        if uses > 1:  # seven products with all that was asked before, the narrowest as wide as six columns
            each += 0.25e-9 * both * (columns + 6) * np.minimum(uses * columns, rows)
    else:
        weights = rows * columns_of_weight
        each = each + np.minimum(0.1e-9 * rows * columns**2, 0.04e-9 * weights * columns)  # Gram matrices, or dJ/dW
        each += weights * (drawn * (1.0e-9 * first + 0.2e-9 + 0.08e-9 * columns))
        if haar is not False:
            each += 0.5e-9 * weights * np.minimum(rows, columns_of_weight) * (haar & np.asarray(first))
    return (total + float(each.sum()) * times) * {"reference": 1000.0, "numba": 1.5}.get(backend, 1.0)
