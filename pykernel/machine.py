# SPDX-License-Identifier: BSD-3-Clause
"""What the machine offers: cores to use and memory that is free, under the limits that the user or a container set."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pykernel import checks


class TooLarge(MemoryError, ValueError):
    """A job that cannot fit in memory, refused before any work; a MemoryError and a ValueError.

    Examples:
        >>> import pykernel as pk
        >>> try:
        ...     pk.propagate(pk.Chain(depth=2, width=10**9), batch=10**6)
        ... except pk.TooLarge:
        ...     print("too large")
        too large
    """


def cores(threads: int | None = None) -> int:
    """Threads to use: the argument, else PYKERNEL_NUM_THREADS, else OMP_NUM_THREADS, else the cores this process may
    run on."""
    if threads is not None:
        return checks.integer("threads", threads, 1, 4096)
    for name in ("PYKERNEL_NUM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "").split(",")[0].strip()
        if text:
            try:
                return checks.integer(name, int(text), 1, 4096)
            except ValueError:
                raise ValueError(f"{name} must be a positive int, got {text!r}") from None
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(allowed, _cgroup_cores()))


def _cgroup_cores() -> int:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return 4096 if quota == "max" else max(1, int(quota) // int(period))
    except (OSError, ValueError):
        return 4096


def free_memory() -> int:
    """Bytes that this process may still take: free memory of the machine, the container's limit, the address-space
    limit."""
    bounds = [_system_memory()]
    try:
        import resource

        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            bounds.append(soft - used)
    except (ImportError, OSError):
        pass
    return max(0, min(bounds))


_asked = (float("-inf"), 0)  # when, and the answer: short calls would spend most of their time asking


def _system_memory() -> int:
    """What machine and container have free, as of a tenth of a second ago at most."""
    global _asked
    if time.monotonic() - _asked[0] < 0.1:
        return _asked[1]
    bounds = [2**62]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        bounds += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except OSError:
        pass
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            bounds.append(int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, ValueError):
        pass
    _asked = (time.monotonic(), min(bounds))
    return _asked[1]


def require_memory(needed: int, what: str, instead: str) -> None:
    """Refuse a job that needs more than is free.

    Raises:
        TooLarge: with the estimate, what is free and what would fit.
    """
    free = free_memory()
    if needed > free:
        raise TooLarge(f"{what} needs about {bytes_text(needed)}, {bytes_text(free)} is free; {instead}")


def bytes_text(count: float) -> str:
    """Bytes as people read them."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.0f} B" if unit == "B" else f"{size:.4g} {unit}"
        size /= 1024
    return ""
