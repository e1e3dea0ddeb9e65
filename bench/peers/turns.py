# SPDX-License-Identifier: BSD-3-Clause
"""Contenders take turns, so that what else the machine does meets all of them; a ratio is of the same turn's times."""

from __future__ import annotations

import os
import time

# Every tool runs with the kernels that it chooses for this processor.
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

import numpy as np  # noqa: E402 - NumPy reads the environment when it is imported

MOST, LEAST = 7, 3  # turns
elsewhere = [0.0]  # processor seconds of other processes, which our own clock does not see


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0))


def seconds_of(run, work: tuple) -> tuple[float, float]:
    """By the clock, and of processors."""
    clock, processor, outside = time.perf_counter(), time.process_time(), elsewhere[0]
    run(*work)
    return time.perf_counter() - clock, time.process_time() - processor + elsewhere[0] - outside


def seconds_in_turns(contenders: dict, work: tuple, shape: tuple, turns: int | None, budget: float) -> dict:
    """{name: (turns, 2)}, after a turn that compiles and warms up and whose answer, positive norms of a shape, is
    looked at.

    Where `turns` is None a point has as many as `budget` seconds hold, between LEAST and MOST; and whoever took a
    fifth of it when warming up has one, its first, so that the slowest cannot keep a point from ending.
    """
    first = {}
    for name, run in contenders.items():
        kept = []
        first[name] = seconds_of(lambda *work, run=run, kept=kept: kept.append(np.asarray(run(*work))), work)
        if kept[0].shape != shape or not np.all(kept[0] > 0):
            raise RuntimeError(f"{name}: expected positive norms of shape {shape} at {work}")
    slow = {name for name, (clock, _) in first.items() if turns is None and clock > budget / 5}
    quick = [name for name in contenders if name not in slow]
    if turns is None:
        turns = min(MOST, max(LEAST, int(budget / max(1e-9, sum(first[name][0] for name in quick)))))
    taken = {name: [first[name]] * turns if name in slow else [] for name in contenders}
    for turn in range(turns):
        for name in quick[:: 1 if turn % 2 else -1]:
            taken[name].append(seconds_of(contenders[name], work))
    return {name: np.array(seconds) for name, seconds in taken.items()}


def median(seconds: np.ndarray) -> float:
    """By the clock."""
    return float(np.median(seconds[:, 0]))


def ratio(theirs: np.ndarray, ours: np.ndarray) -> str:
    """Median and quartiles by the clock, median of processor time."""
    low, middle, high = np.percentile(theirs[:, 0] / ours[:, 0], [25, 50, 75])
    return f"{middle:.1f} ({low:.1f} to {high:.1f}), {np.median(theirs[:, 1] / ours[:, 1]):.1f}"
