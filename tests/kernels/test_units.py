# SPDX-License-Identifier: BSD-3-Clause
"""The unit tests in C++, which lie beside what they test (csrc/*.test.cpp): built against the installed library, and
run. `make sanitize` runs them under sanitizers."""

import os
import subprocess
from pathlib import Path

import pytest
from places import ROOT

from pykernel import embed

CSRC = ROOT / "csrc"
LIBRARY = Path(embed.get_library()).parent / "libpykernel.a"


@pytest.mark.parametrize("source", sorted(CSRC.glob("*.test.cpp")), ids=lambda path: path.name)
def test_a_unit_does_what_it_says(source, tmp_path):
    program = tmp_path / "unit"
    places = ["-I", CSRC, "-I", embed.get_include()]
    compiler = os.environ.get("CXX", "c++")
    subprocess.run([compiler, "-std=c++20", "-O1", *places, source, LIBRARY, "-pthread", "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
