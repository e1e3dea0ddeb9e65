# SPDX-License-Identifier: BSD-3-Clause
"""What design.md says of every source file: it says its licence and why it exists."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path
    for room in ("csrc", "pykernel", "bench", "tests", "examples")
    for path in (ROOT / room).rglob("*")
    if path.suffix in (".py", ".cpp", ".hpp", ".h", ".c") and not {".asv", "__pycache__"} & set(path.parts)
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_says_its_licence_and_purpose(path):
    text = path.read_text()
    lines = text.splitlines()
    assert any("SPDX-License-Identifier: BSD-3-Clause" in line for line in lines[:2])
    if path.suffix == ".py":
        assert ast.get_docstring(ast.parse(text))
    else:
        assert all(line.startswith(("//", "/*")) for line in lines[:2])
