# SPDX-License-Identifier: BSD-3-Clause
"""What a sweep would take, before it is run: a short trial of its kernels on this machine, then time, memory and
disk."""

from __future__ import annotations

import bisect
import itertools
import time
from typing import Any

from pykernel.sweeps import statistics, work
from pykernel.sweeps.blocks import OVERHEAD, Pace, Piece, family
from pykernel.sweeps.plan import SweepPlan


def calibrate(pieces: list[Piece], pace: Pace, kept: Any, cores: int, seconds: float = 1.5) -> None:
    """Time some replicas of each family of pieces on all cores, as a run would on this machine as busy as it is; dear
    families first.

    Of each family a piece is timed in which half of its cost is reached, or the dearest that its share of the time
    allows.
    """
    families: dict[Any, list[tuple[float, Piece]]] = {}
    for piece in pieces:
        families.setdefault(family(piece), []).append((pace.per_replica(piece), piece))
    share = seconds / max(len(families), 1)
    end = time.perf_counter() + 2 * seconds  # nominal figures may be far off
    for found in sorted(families.values(), key=lambda found: -sum(each * piece.count for each, piece in found)):
        found.sort(key=lambda pair: pair[0])
        costs = list(itertools.accumulate(each * piece.count for each, piece in found))
        middle = bisect.bisect_left(costs, costs[-1] / 2)
        affordable = bisect.bisect_right(found, share * cores / 4, key=lambda pair: pair[0] * cores) - 1
        if affordable < 0 or time.perf_counter() > end:
            continue
        each, piece = found[min(middle, affordable)]
        count = cores * max(int(share / 4 / each), 1)
        begin = time.perf_counter()
        work.run_block([found[0][1]._replace(count=1)], kept, cores)  # the first call loads and compiles
        end += time.perf_counter() - begin
        times = []
        for _ in (1, 2):
            begin = time.perf_counter()
            work.run_block([piece._replace(count=count)], kept, cores)
            times.append(time.perf_counter() - begin)
        pace.learn(piece._replace(count=count), (min(times) - OVERHEAD) * cores + OVERHEAD)


def resources(plan: SweepPlan, pieces: list[Piece], cores: int, pace: Pace, workers: int = 1) -> dict[str, float]:
    """What a run on so many cores by so many processes would take: {"cells", "chains", "seconds", "memory_bytes",
    "disk_bytes"}."""
    layers = {depth: len(plan.kept.at(depth)) for depth in {cell.chain.extent for cell in plan.cells}}
    disk = 0
    for cell in plan.cells:
        nodes, kept = cell.replicas.bit_count(), layers[cell.chain.extent]
        values = nodes * kept * 3 * len(plan.kept.rows) + kept * len(plan.kept.quantiles) * min(
            cell.replicas, statistics.KEPT * nodes
        )
        values += cell.replicas * (len(statistics.SCALARS) + plan.kept.replicas * kept * len(plan.kept.rows))
        disk += 8 * values + 150
    return {
        "cells": len(plan.cells),
        "chains": sum(piece.count for piece in pieces),
        "seconds": sum(pace.of(piece) - OVERHEAD for piece in pieces) / cores + OVERHEAD * len(pieces) / workers,
        "memory_bytes": disk + plan.memory(),
        "disk_bytes": disk,
    }
