# SPDX-License-Identifier: BSD-3-Clause
"""What this installation is made of: for bug reports and for whoever wonders which instruction set runs."""

from __future__ import annotations

import platform

import numpy

from pykernel import _core, machine, stream


def show_config() -> dict:
    """Versions, the instruction set in use and those this machine could use, cores and free memory.

    Returns:
        dict of str to str, int or list of str.

    Raises:
        ValueError: PYKERNEL_ISA names an instruction set that this machine cannot run.

    Examples:
        >>> sorted(show_config())[:3]
        ['cores', 'free_memory', 'instruction_set']
    """
    return {
        "pykernel": _core.version,
        "stream_version": stream.VERSION,
        "instruction_set": _core.isa(),
        "usable_instruction_sets": list(_core.kernels.isas()),
        "cores": machine.cores(),
        "free_memory": machine.bytes_text(machine.free_memory()),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "machine": platform.platform(),
    }
