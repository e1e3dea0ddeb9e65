# SPDX-License-Identifier: BSD-3-Clause
"""Which files a module of ours is made of: itself and what it imports, however far away; one digest of them for Numba's cache."""

from __future__ import annotations

import ast
import functools
import hashlib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent


def digest(module: str) -> str:
    """A hash of the sources of a module of this package and of all that it imports from this package."""
    sha = hashlib.sha256()
    for name in sorted(_closure(module)):
        sha.update(name.encode() + b"\0" + _file(name).read_bytes())
    return sha.hexdigest()


def _closure(module):
    found, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += _imports(name)
    return found


@functools.cache
def _imports(module):
    """Modules of this package that a module imports, anywhere in it; not the packages that contain them, unless it names things of theirs."""
    tree, root = ast.parse(_file(module).read_bytes()), PACKAGE.name
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == root}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == root:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if _file(inner) else node.module)
    return sorted(found - {module})


def _file(module):
    """The file of a module of this package; None for what is none."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    for file in (path.with_suffix(".py") if path != PACKAGE else path / "__init__.py", path / "__init__.py"):
        if file.is_file():
            return file
    return None
