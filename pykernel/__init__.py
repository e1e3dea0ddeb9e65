# SPDX-License-Identifier: BSD-3-Clause
"""Signal and gradient propagation through very deep random chains, and how gradients scale with depth."""

import importlib

from pykernel._core import version as __version__

# Public name -> the module that has it, imported when the name is first used: the lines of the stub, which editors and
# type checkers read.
with open(f"{__file__}i", encoding="utf-8") as _stub:
    _IMPORTS = [line.split() for line in _stub if line.startswith("from ")]
_WHERE = {name: module for _, module, _, name, *_ in _IMPORTS}

__all__ = ["__version__", *_WHERE]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'pykernel' has no attribute {name!r}")
    if _WHERE[name] == "pykernel":  # a room whose functions are reached by its name
        return importlib.import_module(f"pykernel.{name}")
    value = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
