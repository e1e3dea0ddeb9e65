# SPDX-License-Identifier: BSD-3-Clause
"""What editors and type checkers are told agrees with what there is: stubs, rows as attributes, arguments of
`Chain`."""

import ast
import importlib
import re
from pathlib import Path

import pytest

import pykernel
from pykernel import _core, layers, observables

PACKAGE = Path(observables.__file__).parent


def stub(name):
    return ast.parse((PACKAGE / f"{name}.pyi").read_text()).body


def test_the_stub_of_the_package_is_what_there_is():
    told = {}
    for node in stub("__init__"):
        if isinstance(node, ast.ImportFrom):
            assert all(alias.asname == alias.name for alias in node.names)  # checkers take only these for public
            told |= {alias.asname: node.module for alias in node.names}
    assert {"__version__", *told} == set(pykernel.__all__)
    for name, module in told.items():
        assert getattr(pykernel, name) is getattr(importlib.import_module(module), name)


def test_every_step_is_public():
    assert all(getattr(pykernel, kind.__name__) is kind for kind in layers.STEPS)


def functions(body):
    found = {
        node.name: [a.arg for a in node.args.posonlyargs + node.args.args]
        for node in body
        if isinstance(node, ast.FunctionDef)
    }
    same = [(node.targets[0].id, node.value.id) for node in body if isinstance(node, ast.Assign)]
    return found | {name: found[other] for name, other in same}


def arguments(function):
    """The names of a compiled function's arguments, as the first line of its docstring says them."""
    inside = function.__doc__.partition("\n")[0].partition("(")[2].rpartition(") ->")[0]
    return re.findall(r"(?:^|, )(\w+): ", inside)


def test_the_stub_of_the_extension_module_has_its_functions_with_their_arguments():
    body = stub("_core")
    inside = {node.name: node.body for node in body if isinstance(node, ast.ClassDef)}
    kernels = functions(inside["kernels"])
    constants = {node.target.id for node in inside["constants"] if isinstance(node, ast.AnnAssign)}
    assert constants == {name for name in vars(_core.constants) if name[0] != "_"}
    named = {name: function for name, function in vars(_core).items() if callable(function) and name[0] != "_"}
    assert functions(body) == {name: arguments(function) for name, function in named.items()}
    counted = {
        name: len(arguments(function))
        for name, function in vars(_core.kernels).items()
        if callable(function) and name[0] != "_"
    }
    assert {name: len(names) for name, names in kernels.items()} == counted


def test_every_row_is_an_attribute_with_a_type():
    assert tuple(observables.Rows.__annotations__) == ("rows", *observables.NAMES)


@pytest.mark.slow
def test_a_checker_sees_arguments_and_rows(tmp_path):
    api = pytest.importorskip("mypy.api")
    program = tmp_path / "program.py"
    program.write_text(
        "import pykernel as pk\n"
        "p = pk.propagate(pk.Chain(depth=3, width=4))\n"
        "reveal_type(p.dead)\n"
        "reveal_type(pk.predict(p.chain).loss)\n"
        "pk.Chain(dept=3)\n"
        "pk.Chian\n"
    )
    said, errors, _ = api.run(
        [str(program), "--follow-imports=silent", "--ignore-missing-imports", "--hide-error-context"]
    )
    assert not errors
    assert re.search(r':3: note: Revealed type is "numpy\.ndarray\[', said)
    assert ':4: note: Revealed type is "builtins.float"' in said or ':4: note: Revealed type is "float"' in said
    assert ':5: error: Unexpected keyword argument "dept" for "Chain"' in said
    assert ':6: error: Module has no attribute "Chian"' in said
