# SPDX-License-Identifier: BSD-3-Clause
"""Which files a module of ours is made of: itself and what it imports, however far away; a digest for Numba's cache."""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path

from pykernel._core import constants

PACKAGE = Path(__file__).resolve().parent.parent
# A pattern, as parsing thirty files takes a tenth of a second of every start.
_IMPORT = re.compile(
    rf"^(?:from ({PACKAGE.name}[\w.]*) import (\([^)]*\)|.*)|import ({PACKAGE.name}[\w.]*))", re.MULTILINE
)

_FOLDER = "pkgutil.iter_modules(__path__)"  # a package whose files are a table imports them all


def digest(module: str) -> str:
    """A hash of the sources of a module of this package and of all that it imports from this package."""
    sha = hashlib.sha256()
    for name in sorted(_closure(module)):
        sha.update(name.encode() + b"\0" + _content(name))
    return sha.hexdigest()


def _content(module: str) -> bytes:
    """The bytes of a module; of the compiled one its constants, which is all of it that Numba freezes."""
    file = _file(module)
    if file is not None:
        return file.read_bytes()
    return repr([(name, getattr(constants, name)) for name in dir(constants) if not name.startswith("_")]).encode()


def _closure(module: str) -> set[str]:
    found, todo = set[str](), [module]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += _imports(name)
    return found


@functools.cache
def _imports(module: str) -> list[str]:
    """Modules of this package that a module imports at its top: Numba freezes globals that come from them."""
    found, file = set[str](), _file(module)
    if file is None:
        return []
    text = file.read_text()
    if file.name == "__init__.py" and _FOLDER in text:
        found |= {f"{module}.{other.stem}" for other in file.parent.glob("*.py") if other != file}
    for package, names, whole in _IMPORT.findall(text):
        inner = (f"{package}.{name}" for name in re.findall(r"\w+", names))
        found |= {name if _file(name) else package for name in inner} if names else {whole}
    return sorted(found - {module})


def _file(module: str) -> Path | None:
    """The file of a module of this package; None for what is none."""
    path = PACKAGE.joinpath(*module.split(".")[1:])
    for file in (path.with_suffix(".py") if path != PACKAGE else path / "__init__.py", path / "__init__.py"):
        if file.is_file():
            return file
    return None
