# SPDX-License-Identifier: BSD-3-Clause
"""Where the headers and libraries of this installation lie, for those who build against them."""

from __future__ import annotations

from pathlib import Path

from pykernel import _core

# Beside the extension module, which in an editable installation is not where the Python sources are.
_ROOT = Path(_core.__file__).parent


# What a build may ask for, and how `--help` says it.
FLAGS = {
    "includes": "flag of the compiler: where the headers are",
    "cmakedir": "folder of pykernelConfig.cmake",
    "library": "shared library with the C interface",
    "cflags": "flags of the compiler, C++20",
    "libs": "flags of the linker, static, for C and C++",
}


def get_include() -> str:
    """The folder to give a compiler with -I; headers are `pykernel/...`.

    Returns:
        An absolute path.

    Examples:
        >>> import os, pykernel as pk
        >>> os.path.isfile(os.path.join(pk.get_include(), "pykernel", "pykernel.h"))
        True
    """
    return str(_ROOT / "include")


def get_cmake_dir() -> str:
    """The folder with pykernelConfig.cmake, for -Dpykernel_DIR or CMAKE_PREFIX_PATH.

    Returns:
        An absolute path.

    Examples:
        >>> import os, pykernel as pk
        >>> os.path.isfile(os.path.join(pk.get_cmake_dir(), "pykernelConfig.cmake"))
        True
    """
    return str(_ROOT / "lib" / "cmake" / "pykernel")


def get_library() -> str:
    """The shared library with the C interface of `pykernel/pykernel.h`, for ctypes and the like.

    Returns:
        An absolute path.

    Examples:
        >>> import ctypes, pykernel as pk
        >>> library = ctypes.CDLL(pk.get_library())
        >>> library.pk_version.restype = ctypes.c_char_p
        >>> library.pk_version().decode() == pk.__version__
        True
    """
    return str(_ROOT / "lib" / "libpykernel_c.so")


def get_flags(what: str) -> str:
    """What `python -m pykernel --WHAT` prints, one of FLAGS."""
    return {
        "includes": f"-I{get_include()}",
        "cmakedir": get_cmake_dir(),
        "library": get_library(),
        "cflags": f"-I{get_include()} -std=c++20",
        "libs": f"-L{_ROOT / 'lib'} -lpykernel -lstdc++ -lm -pthread",
    }[what]
