# SPDX-License-Identifier: BSD-3-Clause
"""The work that the benchmarks share: He-initialised ReLU chains at points written WIDTHxDEPTHxBATCH, and how much of
it to do."""

from __future__ import annotations

import os
import time

import pykernel as pk
from pykernel import engines

# "smallest": each class once, in the test suite; "quick": minutes; "full": every point of the side-by-side table and
# larger.
EFFORT = os.environ.get("PYKERNEL_BENCH", "quick")
SECONDS = {"smallest": 0.0, "quick": 0.25, "full": 1.0}[EFFORT]
ROUNDS = {"smallest": 1, "quick": 3, "full": 5}[EFFORT]  # of works in turn


def pick(smallest: list, quick: list, full: list) -> list:
    """The list of parameters for the effort of this run."""
    return {"smallest": smallest, "quick": quick, "full": full}[EFFORT]


POINTS = pick(
    ["16x4x2"],
    ["64x64x1", "256x64x1", "256x64x32", "1024x32x1", "1024x32x32"],
    [
        "64x64x1",
        "128x128x16",
        "256x64x1",
        "256x64x32",
        "1024x32x1",
        "1024x32x32",
        "2048x16x32",
        "4096x8x1",
        "1000x1000x1",
    ],
)


def parse(point: str) -> tuple[int, int, int]:
    """Width, depth and batch of "WIDTHxDEPTHxBATCH"."""
    width, depth, batch = (int(number) for number in point.split("x"))
    return width, depth, batch


def replicas_at(width: int, depth: int, batch: int) -> int:
    """An even number of networks that keeps two cores busy for some tenths of a second in the dense engine."""
    if EFFORT == "smallest":
        return 2
    wanted = int(SECONDS * 4e8 / (width * width * depth * (1 + batch / 16)))
    return min(64, max(2, wanted + wanted % 2))


def he_relu(width: int, depth: int) -> pk.Chain:
    """The chain that all tools can run."""
    return pk.Chain(depth=depth, width=width, activation="relu", init="he_normal")


def seconds_of(work, at_least: float = SECONDS) -> float:
    """The shortest of repeated calls, after one that is not counted; a minimum is what a shared machine disturbs
    least."""
    return seconds_in_turn([work], at_least)[0]


def seconds_in_turn(works, at_least: float = SECONDS, rounds: int = 1, clock=time.perf_counter) -> list[float]:
    """The shortest call of each work: all take turns, `rounds` times, so that what else the machine does meets every
    one. Of works on one thread `clock` may be `time.process_time`."""
    best = [float("inf")] * len(works)
    for _ in range(rounds):
        for i, work in enumerate(works):
            work()
            spent, calls = 0.0, 0
            while not calls or spent < at_least / rounds:
                start = clock()
                work()
                took = clock() - start
                best[i], spent, calls = min(best[i], took), spent + took, calls + 1
    return best


def processor_seconds(work) -> float:
    """Processor time of one call."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def pairs(*works):
    """Processor time of both works, pair after pair in alternate order, after a call of each that is not counted."""
    for work in works:
        work()
    for i in range(4 * ROUNDS):
        taken = {k: processor_seconds(works[k]) for k in ((0, 1) if i % 2 else (1, 0))}
        yield taken[0], taken[1]


def need(engine: str, backend: str) -> None:
    """asv shows n/a for what raises NotImplementedError in setup."""
    if (engine, backend) not in engines.TABLE:
        raise NotImplementedError
