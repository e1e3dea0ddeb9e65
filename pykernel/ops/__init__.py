# SPDX-License-Identifier: BSD-3-Clause
"""The table of ops: of each kind its definition in plain NumPy, forward and backward. Backends have the same kinds by
the same names.

A module has TABLE (the table of `program.Counts` that its number belongs to),
    forward(run, op, number) -> what backward needs of it,
    backward(run, op, number, kept),
where `run` (pykernel/engines/reference.py) holds the registers, their gradients and the rows, and `number` is the op's
own, from 0.
"""

from pykernel.ops import add, affine, drive, gate, gather, linear, mask, mix, node, norm, phi, pool, scale

OPS = {
    "linear": linear,
    "phi": phi,
    "gate": gate,
    "norm": norm,
    "affine": affine,
    "add": add,
    "scale": scale,
    "mask": mask,
    "mix": mix,
    "gather": gather,
    "pool": pool,
    "drive": drive,
    "node": node,
}
TABLES = {kind: module.TABLE for kind, module in OPS.items()}
