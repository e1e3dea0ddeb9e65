# SPDX-License-Identifier: BSD-3-Clause
"""Numba kernels, and the decorators they share: no GIL, cached on disk, stale when a file changes that they import."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numba
from numba.core import event
from numba.core.caching import IndexDataCacheFile

from pykernel.kernels import sources

Kernel = TypeVar("Kernel", bound=Callable)


class _Announcer(event.Listener):
    """Says once that kernels are being compiled; what is loaded from disk raises no event."""

    said = False

    def on_start(self, event: Any) -> None:
        dispatcher = event.data["dispatcher"]
        if self.said or not (dispatcher.py_func.__module__ or "").startswith(__name__):
            return
        self.said = True
        kept = f"once; kept in {_cached_in}" if _cached_in else "in every process: no cache folder is writable"
        logging.getLogger("pykernel").warning("compiling the Numba kernels: up to a minute, %s", kept)

    def on_end(self, event: Any) -> None:
        pass


event.register("numba:compile", _Announcer())


class _SharedCacheFile(IndexDataCacheFile):
    """Numba's cache of one function, for processes that compile at the same time.

    Numba reads the index, picks a free file name and writes both without a lock: two processes may give float32 and
    float64 code one name, and a third loads the wrong one.
    """

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                import fcntl

                file = stack.enter_context(open(os.path.join(self._cache_path, "lock"), "a"))
                fcntl.flock(file, fcntl.LOCK_EX)
            except (ImportError, OSError):  # no such folder yet, read-only, or a file system without locks
                pass
            yield

    def save(self, key: Any, data: Any) -> None:
        with self._locked():
            super().save(key, data)

    def load(self, key: Any) -> Any:
        with self._locked():
            return super().load(key)


_cached_in = None  # the folder
# Numba looks at a function's own file only; a formula edited in a neighbour would silently keep its old machine code.
_stamp = functools.cache(sources.digest)


def jit(function: Kernel) -> Kernel:
    """Compile a kernel: no GIL, no Python objects, NumPy's division, kept on disk where a folder is writable."""
    global _cached_in
    compiled: Any = numba.njit(nogil=True, error_model="numpy")(function)
    try:
        compiled.enable_caching()
    except RuntimeError:  # Numba's word for no such folder
        return compiled
    cache, _cached_in = compiled._cache._cache_file, compiled._cache.cache_path
    cache.__class__, cache._source_stamp = _SharedCacheFile, _stamp(function.__module__)
    return compiled


def inline(function: Kernel) -> Kernel:
    """Compile a piece of a kernel that is always merged into its caller."""
    compiled: Any = numba.njit(nogil=True, error_model="numpy", forceinline=True)(function)
    return compiled


def address_of(function: Any, key: tuple) -> int:
    """The address of a kernel compiled for these argument types, for `lanes.call`."""
    function.compile(key)
    compiled = function.overloads[key]
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
