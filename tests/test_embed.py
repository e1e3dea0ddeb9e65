# SPDX-License-Identifier: BSD-3-Clause
"""Outside consumers are built and run against the installed package, in a temporary folder, with nothing but what it tells them."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pykernel as pk

EMBED = Path(__file__).parent / "embed"
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
CMAKE = shutil.which("cmake", path=PATH)


def run(*command, **options):
    """Run a command and give back what it prints; its own messages are the best report of a failure."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, env={**os.environ, "PATH": PATH}, **options)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="module")
def consumers(tmp_path_factory):
    """The programs of tests/embed, built by a project that only knows pk.get_cmake_dir()."""
    if not CMAKE:
        pytest.skip("needs cmake")
    room = tmp_path_factory.mktemp("consumers")
    shutil.copytree(EMBED, room / "source")
    run(CMAKE, "-S", room / "source", "-B", room / "build", f"-Dpykernel_DIR={pk.get_cmake_dir()}")
    run(CMAKE, "--build", room / "build")
    return room / "build"


@pytest.mark.parametrize("name", ["consumer_cpp", "consumer_c"])
def test_cmake_consumer_runs(consumers, name):
    assert run(consumers / name) == pk.__version__


@pytest.mark.parametrize("source", ["consumer.cpp", "consumer.c"])
def test_printed_flags_are_enough(tmp_path, source):
    flags, libraries = (run(sys.executable, "-m", "pykernel", what, cwd=tmp_path).split() for what in ("--includes", "--libs"))
    compiler, standard = ("c++", ["-std=c++20"]) if source.endswith("cpp") else ("cc", [])
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}")
    run(compiler, *standard, *flags, EMBED / source, *libraries, "-o", tmp_path / "program")
    assert run(tmp_path / "program") == pk.__version__


def test_shared_library_shows_the_c_interface_only():
    library = ctypes.CDLL(pk.get_library())
    library.pk_version.restype = ctypes.c_char_p
    assert library.pk_version().decode() == pk.__version__
    if not shutil.which("nm"):
        pytest.skip("needs binutils")
    names = [line.split()[-1] for line in run("nm", "-D", "--defined-only", pk.get_library()).splitlines()]
    assert names
    assert all(name.startswith("pk_") for name in names), names


def test_pkg_config_files_say_where_they_are():
    for name in ("pykernel", "pykernel_c"):
        text = (Path(pk.get_library()).parent / "pkgconfig" / f"{name}.pc").read_text()
        assert f"Version: {pk.__version__}" in text
        assert "prefix=${pcfiledir}/../.." in text
