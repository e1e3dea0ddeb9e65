# SPDX-License-Identifier: BSD-3-Clause
"""The package as it is installed: one version, a light import, and instruction sets that stay in their objects."""

import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest
from places import ROOT

import pykernel

HEAVY = ("numpy", "numba", "xarray", "pandas", "matplotlib", "tqdm", "scipy", "distributed")


def test_version_is_written_once():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert pykernel.__version__ == declared == version("pykernel")


def test_import_is_light():
    code = f"import sys, pykernel; print([name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def kernel_objects():
    """(instruction set, object file) of every kernel in the build folder of an editable install."""
    folders = [
        (isa, folder)
        for isa in ("baseline", "avx2", "avx512")
        for folder in ROOT.glob(f"build/cp*/CMakeFiles/pykernel_{isa}.dir")
    ]
    return [(isa, path) for isa, folder in folders for path in folder.rglob("*.o")]


def symbols(path):
    return [
        line.split()[-2:]
        for line in subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout.splitlines()
    ]


@pytest.mark.skipif(not shutil.which("nm"), reason="needs binutils")
def test_kernel_objects_share_nothing_and_start_nothing():
    # A weak symbol compiled with AVX-512 may replace everybody's; code in .init_array runs before the processor is
    # asked what it has.
    for isa, path in kernel_objects():
        assert not [name for kind, name in symbols(path) if kind in "WVuw"], path
        sections = subprocess.run(["objdump", "-h", path], capture_output=True, text=True, check=True).stdout
        assert ".init_array" not in sections, path
        strangers = [name for kind, name in symbols(path) if kind in "TDBR" and isa not in name]
        assert not strangers, f"{path}: outside namespace {isa}: {strangers}"


@pytest.mark.skipif(not shutil.which("objdump"), reason="needs binutils")
def test_baseline_needs_no_newer_processor():
    objects = [path for isa, path in kernel_objects() if isa == "baseline"]
    objects += ROOT.glob("build/*/CMakeFiles/pykernel.dir/**/*.o")
    for path in objects:
        code = subprocess.run(["objdump", "-d", path], capture_output=True, text=True, check=True).stdout
        assert "%ymm" not in code, path
        assert "%zmm" not in code, path
