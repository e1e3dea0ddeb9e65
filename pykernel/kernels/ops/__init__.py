# SPDX-License-Identifier: BSD-3-Clause
"""The table of ops in Numba: the kinds of `pykernel.ops`, each a file of the same name.

A module has FORWARD and BACKWARD: one kernel (spec, work, op, number, replica, index), or three of which the middle one
takes a range (spec, work, op, number, replica, worker, from, to) and may be cut among threads. One that keeps something
on the tape has
    kept(n, B, item, of) -> its bytes, for an input of n units and B columns of numbers of `item` bytes, and what OF
    names.
"""

from pykernel.kernels.ops import add, gate, linear, mask, node, norm, phi, scale

OPS = {"linear": linear, "phi": phi, "gate": gate, "norm": norm, "add": add, "scale": scale, "mask": mask, "node": node}
KINDS = tuple(OPS)
