# SPDX-License-Identifier: BSD-3-Clause
"""What a weight that is drawn once saves: processor time of an untied chain over that of a tied one, one input, dense,
float32, one thread."""

from __future__ import annotations

import statistics
import time

import pykernel as pk

from .points import ROUNDS, pick

# depth x width
POINTS = pick(["16x64"], ["64x256", "100x512"], ["100x128", "64x256", "100x512", "32x1024", "256x1024"])
LEAST = 4e7  # weights of a measured call, about 40 ms


def processor_seconds(chain):
    replicas = max(1, round(LEAST / (chain.depth * chain.width**2)))
    begin = time.process_time()
    pk.propagate(chain, replicas=replicas, engine="dense", backend="cpp", threads=1)
    return (time.process_time() - begin) / replicas


def ratios(point):
    """Untied over tied, pairs in alternate order."""
    depth, width = (int(number) for number in point.split("x"))
    tied = pk.Chain(depth=depth, width=width, activation="tanh", tied=True)
    both = tied.replace(tied=False), tied
    for chain in both:
        processor_seconds(chain)
    for i in range(4 * ROUNDS):
        taken = {k: processor_seconds(both[k]) for k in ((0, 1) if i % 2 else (1, 0))}
        yield taken[0] / taken[1]


class Tied:
    """Chains of equal layers that use one weight."""

    params = POINTS
    param_names = ("depth x width",)
    timeout = 300

    def track_times_faster(self, point):
        return statistics.median(ratios(point))

    track_times_faster.unit = "untied over tied"
