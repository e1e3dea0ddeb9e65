# SPDX-License-Identifier: BSD-3-Clause
"""What is compiled per instruction set stays apart: nothing weak, nothing that runs at start-up, no wide registers in
the baseline."""

import os
import shutil
import subprocess
import sys

import pytest
from places import ROOT

OBJECTS = sorted(ROOT.glob("build/**/pykernel_*.dir/csrc/kernels/*.o"))

needs_objects = pytest.mark.skipif(
    not OBJECTS or not shutil.which("nm") or not shutil.which("objdump"), reason="needs binutils and a build tree"
)


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@needs_objects
def test_objects_have_no_weak_symbols_and_no_start_up_code():
    for path in OBJECTS:
        weak = [line for line in run("nm", path).splitlines() if line[17:18] in "uVvWw"]
        assert not weak, f"{path.name}: {weak[:5]}"
        assert not [s for s in (".init_array", ".ctors") if s in run("objdump", "-h", path)], path


@needs_objects
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x86 register names")
def test_baseline_objects_use_no_wide_registers():
    for path in OBJECTS:
        if "pykernel_baseline.dir" in str(path):
            assert "%ymm" not in (code := run("objdump", "-d", "--no-show-raw-insn", path)) and "%zmm" not in code, path


def test_an_unknown_instruction_set_is_refused():
    command = [sys.executable, "-c", "import pykernel._core as core; core.isa()"]
    done = subprocess.run(command, env={**os.environ, "PYKERNEL_ISA": "sse9"}, capture_output=True, text=True)
    assert done.returncode != 0 and "sse9" in done.stderr and "baseline" in done.stderr
