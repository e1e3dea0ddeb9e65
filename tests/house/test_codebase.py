# SPDX-License-Identifier: BSD-3-Clause
"""What design.md says of every source file: it says its licence and why it exists."""

import ast
import re

import pytest
from places import ROOT, SOURCES

from pykernel.ops import OPS


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_says_its_licence_and_purpose(path):
    text = path.read_text()
    lines = text.splitlines()
    assert any("SPDX-License-Identifier: BSD-3-Clause" in line for line in lines[:2])
    if path.suffix == ".py":
        assert ast.get_docstring(ast.parse(text))
    else:
        assert all(line.startswith(("//", "/*")) for line in lines[:2])


def test_every_op_has_a_file_in_every_language():
    folders = ("pykernel/ops", "pykernel/theory/ops", "pykernel/kernels/ops", "csrc/ops")
    for folder in folders:
        sources = [path for ending in ("py", "cpp") for path in (ROOT / folder).glob(f"*.{ending}")]
        assert {path.stem for path in sources} - {"__init__"} == set(OPS), folder


def test_files_that_recipes_name_are_there():
    named = re.findall(r"`((?:pykernel|csrc|docs|tests|bench)/[\w./]+\.\w+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 30
    assert [name for name in named if not re.search(r"NAME|OP\b", name) and not (ROOT / name).exists()] == []


def test_tests_that_commands_name_are_there():
    """In workflows, hooks, the Makefile and what a wheel is tried with."""
    commands = [ROOT / name for name in ("Makefile", "pyproject.toml", ".pre-commit-config.yaml")]
    texts = [path.read_text() for path in (*commands, *(ROOT / ".github" / "workflows").iterdir())]
    named = {name for text in texts for name in re.findall(r"tests/\w+/test_\w+\.py", text)}
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []
