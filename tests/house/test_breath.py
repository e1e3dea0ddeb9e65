# SPDX-License-Identifier: BSD-3-Clause
"""Lines to 120 columns, functions to 60 lines, files to 400; exceptions are named here, with the reason."""

import ast

import pytest
from places import ROOT, SOURCES

COLUMNS, FUNCTION, FILE = 120, 60, 400
# A file of the package or of the kernels that may be longer.
LONG_FILES = {
    "pykernel/activations.py": "a table: one short class a function, which reads better whole",
    "pykernel/chain.py": "the words of a network, their checks, and the facts that follow from them",
    "pykernel/blocks.py": "presets: one plain function a family, with its sources",
    "pykernel/theory/predict.py": "one result: its numbers and how it says them",
    "pykernel/kernels/blocks.py": "one small kernel after another, on one kind of block",
    "pykernel/layers.py": "the words of blocks: a class a step, mostly what their docstrings say",
    "pykernel/pattern.py": "one reader of a chain and its blocks, all of which writes the same tables",
    "pykernel/bridges/torch_graph.py": "one reader of a graph, a method a kind of call",
    "pykernel/kernels/lanes.py": "one type: its operators and what they become",
    "pykernel/kernels/ops/mix.py": "one op: forward, backward, and the room that both need",
    "csrc/network.cpp": "one class: its loop over ops, and the registers that they read and write",
    "csrc/kernels/product-inl.hpp": "one product, forward and backward, by the same tiles",
    "pykernel/bridges/structure.py": "one reader of values, from parts to the network",
}
# Tests are lists of cases that nobody reads from end to end, and share fixtures by file.
LISTS = ("tests/", "bench/")
# A file one of whose functions may be longer.
LONG_FUNCTIONS = {
    "pykernel/lower.py": "two thirds of it are the arguments and the fields, one a line",
    "pykernel/bridges/torch_trace.py": "the forms of one call, each a few lines",
    "csrc/run.cpp": "the life of a run's workers, whose locals its lambdas share",
    "csrc/matrix_free.cpp": "one conditional law, in the order of its derivation in docs/matrix-free.md",
    "tests/random_chains.py": "a function inside for every part of a chain, which share the generator",
    "tests/embed/any_program.c": "reads fields in the order of a file",
}


def functions_of_python(text):
    """(name, lines) of every function, without its docstring: arguments and code."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            said = first.end_lineno - first.lineno + 1 if ast.get_docstring(node, clean=False) is not None else 0
            yield node.name, node.end_lineno - node.lineno + 1 - said


def functions_of_cpp(text):
    """(first line, lines) of what a brace alone on its line closes, as clang-format lays it out: from the line of its
    depth before. Classes end in "};" and namespaces say their name."""
    begun: dict[int, int] = {}
    lines = text.splitlines()
    for i, line in enumerate(lines):
        depth = len(line) - len(line.lstrip())
        if line.strip() == "}":
            yield lines[begun[depth]].strip(), i - begun[depth] + 1
        elif line.strip() and not line.lstrip().startswith("}"):
            begun[depth] = i


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_is_short_of_breath_nowhere(path):
    name, text = str(path.relative_to(ROOT)), path.read_text()
    wide = [i for i, line in enumerate(text.splitlines(), 1) if len(line) > COLUMNS]
    assert not wide, f"{name}: lines {wide} have more than {COLUMNS} columns"
    count = len(text.splitlines())
    assert count <= FILE or name in LONG_FILES or name.startswith(LISTS), f"{name} has {count} lines: split it"
    found = functions_of_python(text) if path.suffix == ".py" else functions_of_cpp(text)
    long = {function: lines for function, lines in found if lines > FUNCTION}
    assert not long or name in LONG_FUNCTIONS, f"{name}: more than {FUNCTION} lines: {long}"


def test_exceptions_are_needed():
    for name in LONG_FILES:
        assert len((ROOT / name).read_text().splitlines()) > FILE, f"{name} is no exception any more"
    for name in LONG_FUNCTIONS:
        text = (ROOT / name).read_text()
        found = functions_of_python(text) if name.endswith(".py") else functions_of_cpp(text)
        assert max(lines for _, lines in found) > FUNCTION, f"{name} is no exception any more"


def test_long_functions_are_found():
    body = "  x;\n" * FUNCTION
    assert dict(functions_of_cpp(f"template <class T> void f(int a) const {{\n{body}}}\n")).popitem()[1] == FUNCTION + 2
    assert dict(functions_of_python(f"def f():\n    '''Said.'''\n{'    x' + chr(10)}"))["f"] == 2
