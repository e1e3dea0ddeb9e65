# SPDX-License-Identifier: BSD-3-Clause
"""What pages, docstrings and README say is what runs; nothing public is missing from the reference."""

import contextlib
import doctest
import importlib
import inspect
import io
import pydoc
import re
import shlex
import subprocess
import sys

import pytest
from places import ROOT

import pykernel as pk
from pykernel import layers

PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "guides").glob("*.md")])
SOURCES = [path for path in sorted((ROOT / "pykernel").rglob("*.py")) if re.search(r"^ *>>> ", path.read_text(), re.M)]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
README = (ROOT / "README.md").read_text()


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_examples_of_docstrings_run(path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert doctest.testmod(importlib.import_module(module_of(path)), optionflags=FLAGS).failed == 0


@pytest.mark.examples
@pytest.mark.parametrize(
    "path",
    PAGES,
    ids=lambda p: p.stem,
)
def test_snippets_of_the_pages_run(path):
    snippets = "\n".join(block for block in blocks(path.read_text(), "python") if ">>>" in block)
    if snippets:
        test = doctest.DocTestParser().get_doctest(snippets, {}, path.name, str(path), 0)
        assert doctest.DocTestRunner(optionflags=FLAGS).run(test).failed == 0


@pytest.mark.parametrize("name", [name for name in pk.__all__ if name != "__version__"])
def test_public_names_are_documented(name):
    value = getattr(pk, name)
    text = inspect.getdoc(value)
    assert ">>> " in text, f"{name} has no example"
    if inspect.isfunction(value):
        assert "Returns:" in text or "return" not in value.__annotations__, f"{name} does not say what it returns"
        arguments = [p for p in inspect.signature(value).parameters if not p.startswith("_")]
        missing = [p for p in arguments if not re.search(rf"\b{p}\b", text)]
        assert not missing, f"{name} does not explain {missing}"


def test_the_reference_is_complete():
    page = (ROOT / "docs" / "api.md").read_text()
    listed = set(re.findall(r"auto\w+:: pykernel\.([\w.]+)", page))
    listed |= {kind.__name__ for kind in layers.STEPS if "@steps@" in page}
    assert sorted(set(pk.__all__) - {"__version__"} - listed) == []
    numba = importlib.import_module("pykernel.numba")
    table = (ROOT / "docs" / "embedding.md").read_text()
    assert [name for name in numba.__all__ if name.islower() and f"`{name}(" not in table] == []
    for name in listed:
        found = pydoc.locate(f"pykernel.{name}")  # which imports modules on the way
        assert found is not None and inspect.getdoc(found), name
    # Methods without a list of members would not be shown: each public one of the two result classes is.
    for kind in (pk.Propagation, pk.Prediction):
        (members,) = re.findall(rf"pykernel\.{kind.__name__}\n +:members: (.*)", page)
        public = {
            name
            for name, value in vars(kind).items()
            if name[0] != "_" and (callable(value) or isinstance(value, property))
        }
        assert sorted(public - set(members.split(", "))) == []


@pytest.mark.examples
def test_python_of_the_readme_runs():
    names = {}
    for block in blocks(README, "python"):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(block, "README.md", "exec"), names)
        if "print(p)" in block:
            assert "verdict: stable" in out.getvalue()
    assert names["ds"].verdict.sizes == {"depth": 2, "init": 2, "activation": 2, "width": 1}


@pytest.mark.examples
def test_commands_of_the_readme_run(tmp_path):
    """`pykernel` and `python` as they stand, in an empty folder; of `make`, that the target is there: it would build an
    environment."""
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    commands = [
        line.split(" #")[0]
        for block in blocks(README, "sh")
        for line in block.splitlines()
        if line and not line.startswith("#")
    ]
    assert commands
    for command in commands:
        word, *rest = shlex.split(command)
        if word == "make":
            assert set(rest) <= targets, command
        elif word in ("pykernel", "python"):
            rest = (
                ["-m", "pykernel", *rest]
                if word == "pykernel"
                else [str(ROOT / r) if (ROOT / r).exists() else r for r in rest]
            )
            subprocess.run([sys.executable, *rest], cwd=tmp_path, check=True, capture_output=True, timeout=200)
        else:
            assert (word, rest[0]) in {("pip", "install"), ("git", "clone"), ("cd", "pykernel")}, command
    for inline in re.findall(r"`make ([\w-]+)`", README):
        assert inline in targets, inline


def test_files_that_contributors_are_sent_to_are_there():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:pykernel|csrc|tests|docs|examples|bench)/[\w./-]*)`", page))
    assert len(named) > 25
    missing = [path for path in named if not (ROOT / path).exists() and not re.search(r"\b(NAME|OP)\b", path)]
    assert not missing
    tests = re.findall(r"`(test_\w+\.py)`", page)
    assert [name for name in tests if not (ROOT / "tests" / name).exists()] == []
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z]\w*)", page)) <= targets


def test_the_one_test_of_contributing_is_there():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    file, word = re.search(r"pytest (\S+) -k (\w+)", page).groups()
    assert re.search(rf"^def test_\w*{word}", (ROOT / file).read_text(), re.M)
