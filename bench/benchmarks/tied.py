# SPDX-License-Identifier: BSD-3-Clause
"""What a weight that is drawn once saves: processor time of an untied chain over that of a tied one, one input, dense,
float32, one thread."""

from __future__ import annotations

import statistics

import pykernel as pk

from .points import pairs, pick

# depth x width
POINTS = pick(["16x64"], ["64x256", "100x512"], ["100x128", "64x256", "100x512", "32x1024", "256x1024"])
LEAST = 4e7  # weights of a measured call, about 40 ms


class Tied:
    """Chains of equal layers that use one weight."""

    params = POINTS
    param_names = ("depth x width",)
    timeout = 300

    def track_times_faster(self, point):
        depth, width = (int(number) for number in point.split("x"))
        run = dict(replicas=max(1, round(LEAST / (depth * width**2))), engine="dense", backend="cpp", threads=1)
        tied = pk.Chain(depth=depth, width=width, activation="tanh", tied=True)
        taken = pairs(lambda: pk.propagate(tied.replace(tied=False), **run), lambda: pk.propagate(tied, **run))
        return statistics.median(untied / once for untied, once in taken)

    track_times_faster.unit = "untied over tied"
