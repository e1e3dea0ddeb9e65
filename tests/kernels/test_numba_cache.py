# SPDX-License-Identifier: BSD-3-Clause
"""Compiled Numba code is loaded where its sources are those it was compiled from, and compiled again where one of them
has changed."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pykernel._core
from pykernel.kernels import sources

PACKAGE = Path(sources.PACKAGE)
KERNELS = sorted(PACKAGE.glob("kernels/**/*.py"))
SCRIPT = """
import sys, json
sys.meta_path = [finder for finder in sys.meta_path if "Scikit" not in type(finder).__name__]  # of an editable install
sys.path.insert(0, sys.argv[1])
import pykernel, pykernel.numba as pkn
assert pykernel.__file__.startswith(sys.argv[1])
from pykernel.kernels import probe_program, probe_rows
functions = {"numba": pkn.philox, "rows": probe_rows.probe, "program": probe_program.probe}
values = {"numba": int(pkn.philox(0, 0, 0, 0, 0)[0]), "rows": probe_rows.probe(), "program": probe_program.probe()}
print(json.dumps({name: (values[name], sum(f.stats.cache_hits.values())) for name, f in functions.items()}))
"""


@pytest.fixture
def copy(tmp_path):
    """A copy of the package that a test may edit, with two small kernels more."""
    package = tmp_path / "pykernel"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(pykernel._core.__file__, package)  # which an editable installation keeps elsewhere
    frozen = {
        "probe_rows": "from pykernel.observables import NAMES\nNUMBER = NAMES.index('dead')\n",
        "probe_program": "from pykernel.program import BIASES\nNUMBER = len(BIASES)\n",
    }
    probe = "from pykernel.kernels import jit\n\n@jit\ndef probe():\n    return NUMBER\n"
    for name, number in frozen.items():
        (package / "kernels" / f"{name}.py").write_text(number + probe)
    return package


def run(package):
    """{kernel: (what it returns, whether it came from the cache)} in a new process."""
    command = [sys.executable, "-c", SCRIPT, str(package.parent)]
    env = {**os.environ, "NUMBA_CACHE_DIR": str(package.parent / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name: tuple(found) for name, found in json.loads(done.stdout).items()}


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_an_edit_compiles_what_depends_on_it_and_nothing_else(copy):
    """Names and constants of other files are frozen in machine code; these three once kept their old values."""
    first = run(copy)
    assert not any(cached for _, cached in first.values())
    assert run(copy) == {name: (value, 1) for name, (value, _) in first.items()}

    edit(copy / "numba.py", "0xD2511F53", "0xD2511F55")
    edit(copy / "observables.py", "ROWS = (", 'ROWS = (\n    Row("new", "replica", "1", "one more"),')
    second = run(copy)
    assert second["numba"][0] != first["numba"][0] and not second["numba"][1]
    assert second["rows"] == (first["rows"][0] + 1, 0)
    assert second["program"] == (first["program"][0], 1)

    edit(copy / "program.py", "BIASES = (", 'BIASES = ("another", ')
    third = run(copy)
    assert third["program"] == (first["program"][0] + 1, 0)
    assert third["numba"] == (second["numba"][0], 1) and third["rows"] == (second["rows"][0], 1)


@pytest.mark.parametrize("path", [*KERNELS, PACKAGE / "numba.py"], ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_digest_of_a_kernel_follows_its_imports(path):
    """Against Python's own parser; and no kernel imports inside a function, where a constant could hide from the
    digest."""
    module = "pykernel." + str(path.relative_to(PACKAGE).with_suffix("")).replace(os.sep, ".").removesuffix(".__init__")
    tree = ast.parse(path.read_text())
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "pykernel":
            assert node in tree.body, f"line {node.lineno}"
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    closure = sources._closure(module)
    files = {name: PACKAGE.joinpath(*name.split(".")[1:]) for name in imported}
    modules = {
        name for name, file in files.items() if file.with_suffix(".py").exists() or (file / "__init__.py").exists()
    }
    assert modules <= closure
    assert {name.rpartition(".")[0] for name in imported - modules} <= closure


def test_the_digest_of_a_table_of_files_has_each_of_them():
    ops = {f"pykernel.kernels.ops.{path.stem}" for path in (PACKAGE / "kernels" / "ops").glob("[a-z]*.py")}
    assert len(ops) >= 10 and ops <= sources._closure("pykernel.kernels.ops") & sources._closure("pykernel.kernels.run")
