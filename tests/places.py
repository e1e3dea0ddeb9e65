# SPDX-License-Identifier: BSD-3-Clause
"""Where things lie in the checkout, for tests in any folder."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
DATA = TESTS / "data"
EMBED = TESTS / "embed"
SOURCES = sorted(
    path
    for room in ("csrc", "pykernel", "bench", "tests", "examples")
    for path in (ROOT / room).rglob("*")
    if path.suffix in (".py", ".cpp", ".hpp", ".h", ".c") and not {".asv", "__pycache__"} & set(path.parts)
)
