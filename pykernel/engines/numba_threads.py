# SPDX-License-Identifier: BSD-3-Clause
"""Python threads over kernels that hold no GIL, and a flag that Ctrl-C raises for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import numpy as np


class Team:
    """Threads that run a list of functions at a time; an interrupt sets `stop[0]` and waits until they have returned.

    The work is never done by the calling thread: Python delivers Ctrl-C only to a thread that is in Python.
    """

    def __init__(self, size: int, stop: np.ndarray) -> None:
        self.size, self._stop = size, stop
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="pykernel")

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()

    def run(self, functions: Sequence[Callable[[], Any]]) -> None:
        """Run all, return when all have; the first exception is raised."""
        futures = [self._pool.submit(function) for function in functions]
        try:
            wait(futures)
        except BaseException:
            self._stop[0] = 1
            wait(futures)
            raise
        for future in futures:
            future.result()
