# SPDX-License-Identifier: BSD-3-Clause
"""The table of ops in Numba: the kinds of `pykernel.ops`, each a file of the same name.

A module has FORWARD and BACKWARD: one kernel (spec, work, op, number, replica, index), or three of which the middle one
takes a range (spec, work, op, number, replica, worker, from, to) and may be cut among threads. Where they apply it also
has
    NUMBERS, names of the arrays of the program that its kernels read, and numbers(program) -> those arrays in that
    order; tape(program, number, n, B, item) -> bytes that it keeps for an input of n units and B columns of numbers of
    `item` bytes; result(program, number, n, B) -> units and columns of its result, where they are not those of its
    input.
The last two take arrays of numbers and units, one entry a repetition.
"""

import importlib
import pkgutil

from pykernel.kernels import records

OPS = {name: importlib.import_module(f"{__name__}.{name}") for _, name, _ in pkgutil.iter_modules(__path__)}
KINDS = tuple(OPS)
WITH_NUMBERS = tuple(module for module in OPS.values() if hasattr(module, "NUMBERS"))


def spec_dtype(dtype):
    """The structured dtype of a program's record for a run in `dtype`."""
    return records.spec_dtype(dtype, [name for module in WITH_NUMBERS for name in module.NUMBERS])


def numbers(program):
    """The arrays of a program that ops read, by name."""
    return {
        name: array
        for module in WITH_NUMBERS
        for name, array in zip(module.NUMBERS, module.numbers(program), strict=True)
    }
