# SPDX-License-Identifier: BSD-3-Clause
"""The table of ops: of each kind its definition in plain NumPy, forward and backward. Backends have the same kinds by
the same names.

A module has TABLE (the table of `program.Counts` that its number belongs to),
    forward(run, op, number) -> what backward needs of it,
    backward(run, op, number, kept),
where `run` (pykernel/engines/reference.py) holds the registers, their gradients and the rows, and `number` is the op's
own, from 0.
"""

import importlib
import pkgutil

OPS = {name: importlib.import_module(f"{__name__}.{name}") for _, name, _ in pkgutil.iter_modules(__path__)}
TABLES = {kind: module.TABLE for kind, module in OPS.items()}
