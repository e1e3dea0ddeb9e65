# SPDX-License-Identifier: BSD-3-Clause
"""The table of ops as infinite-width theory sees them: of each kind its map of moments, forward and backward.

A module has
    ROWS, FAR_ROWS: the names of the arrays of `mean_field.Signal` that it fills, by `moments` and by `distance`,
    law(walk, stretch, op) -> structure.Law of what it writes, or a refusal,
    moments(walk, op, number) -> step(repetition): log mean square and relative mean of its register,
    distance(walk, op, number) -> step(repetition): 1 - cosine of two columns there,
    backward(walk, op, n): log squared norm of the gradient, and its correlation between two columns, of op number n or
    a slice of numbers,
where `number` = (first, each): the op's own number in repetition i is first + i * each. `walk` is `mean_field.Forward`
or `Backward`.
"""

import importlib

from pykernel.ops import TABLES

OPS = {kind: importlib.import_module(f"{__name__}.{kind}") for kind in TABLES}
