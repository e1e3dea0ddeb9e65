# SPDX-License-Identifier: BSD-3-Clause
"""Imports go down the floors of docs/design.md and nowhere in a circle, hidden ones included; what has an underscore
stays in its file."""

import ast
import graphlib
import re
from pathlib import Path

import pytest
from places import ROOT

PACKAGE = ROOT / "pykernel"
OF_NAMEDTUPLE = {"_asdict", "_fields", "_make", "_replace"}


def module_of(path: Path) -> str:
    """The dotted name of a file: "pykernel" of the package itself, "pykernel.ops.gate" of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {module_of(path): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
KNOWN = {*TREES, "pykernel._core"}


def rooms() -> dict[str, int]:
    """The room of design.md -> its floor, counted from the top. A room is a module, or a package with all that no other
    room names."""
    page = (ROOT / "docs" / "design.md").read_text()
    (block,) = re.findall(r":name: floors\n\n(.*?)```", page, re.DOTALL)
    found: dict[str, int] = {}
    for floor, line in enumerate(block.splitlines()):
        for word in line.split():
            name = "pykernel" if word == "pykernel" else f"pykernel.{word}"
            assert name in KNOWN, f"design.md names {word}, which is not there"
            assert name not in found, f"design.md names {word} twice"
            found[name] = floor
    return found


FLOORS = rooms()


def room_of(module: str) -> str:
    """The longest name of a room that holds a module; the face holds nothing but itself."""
    at = module
    while at not in FLOORS or (at == "pykernel" != module):
        at = at.rpartition(".")[0]
        if not at:
            pytest.fail(f"{module} stands on no floor of docs/design.md")
    return at


def modules_imported(tree: ast.AST) -> dict[str, int]:
    """What a file imports of the package, wherever in it, as modules: "from pykernel.engines import run" is
    pykernel.engines.run."""
    found: dict[str, int] = {}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").partition(".")[0] == "pykernel":
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in KNOWN else str(node.module) for name in whole]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports name the package"
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] == "pykernel"]
        for name in names:
            found.setdefault(name, node.lineno)
    return found


IMPORTS = {module: modules_imported(tree) for module, tree in TREES.items()}
# A package whose files are a table imports them all.
for module, tree in TREES.items():
    if "pkgutil.iter_modules(__path__)" in ast.unparse(tree) and module != "pykernel.kernels.sources":
        IMPORTS[module] |= {name: 1 for name in TREES if name.rpartition(".")[0] == module}
# The face imports a module when a name of it is first used, as its stub says: imports as real as any.
IMPORTS["pykernel"] |= modules_imported(ast.parse((PACKAGE / "__init__.pyi").read_text()))


@pytest.mark.parametrize("module", sorted(TREES))
def test_imports_go_down(module):
    mine = room_of(module)
    for other, line in IMPORTS[module].items():
        room = room_of(other)
        down = room == mine or FLOORS[room] > FLOORS[mine]
        assert down, (
            f"{module}, line {line}: {other} stands on floor {FLOORS[room]}, {mine} on {FLOORS[mine]} (docs/design.md)"
        )


def test_no_circle():
    graph = {module: set(found) - {module} for module, found in IMPORTS.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, naming one


@pytest.mark.parametrize("module", sorted(TREES))
def test_what_has_an_underscore_stays_in_its_file(module):
    tree = TREES[module]
    hidden = lambda name: (
        name.startswith("_") and not name.startswith("__") and name not in OF_NAMEDTUPLE and name != "_core"
    )
    taken, aliases = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "pykernel":
            aliases |= {alias.asname or alias.name for alias in node.names}
            taken += [alias.name for alias in node.names if hidden(alias.name)]
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in aliases
            and hidden(node.attr)
        ):
            taken.append(ast.unparse(node))
    assert not taken, f"{module} takes {', '.join(taken)}: what another file uses has a public name"
