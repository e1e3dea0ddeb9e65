# SPDX-License-Identifier: BSD-3-Clause
"""Which files a module of ours is made of: itself and what it imports, however far away; one digest of them for Numba's cache."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
_FROM = re.compile(rf"^[ \t]*from ({PACKAGE.name}[\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)
_IMPORT = re.compile(rf"^[ \t]*import ({PACKAGE.name}[\w.]*)", re.MULTILINE)


def digest(module: str) -> str:
    """A hash of the sources of a module of this package and of all that it imports from this package."""
    sha = hashlib.sha256()
    for name, text in sorted(_closure(module).items()):
        sha.update(f"{name}\0{text}\0".encode())
    return sha.hexdigest()


def _closure(module):
    """The sources of a module and of what it imports, anywhere in them, by name."""
    found, todo = {}, [module]
    while todo:
        name = todo.pop()
        if name not in found:
            found[name] = _file(name).read_text(encoding="utf-8")
            todo += _imports(found[name])
    return found


def _imports(text):
    """Modules of this package that a source imports; of `from package import name` the package only where the name is no module."""
    found = set(_IMPORT.findall(text))
    for module, names in _FROM.findall(text):
        for name in re.findall(r"(\w+)(?: as \w+)?", names):
            found.add(f"{module}.{name}" if _file(f"{module}.{name}") else module)
    return found


def _file(module):
    """The file of a module of this package; None for what is none."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    files = (path.parent / f"{path.name}.py", path / "__init__.py") if path != PACKAGE else (path / "__init__.py",)
    return next((file for file in files if file.is_file()), None)
