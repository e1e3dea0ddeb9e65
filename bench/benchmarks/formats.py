# SPDX-License-Identifier: BSD-3-Clause
"""What number formats cost: the rounding loop, and a run with formats beside the run that it is compared with."""

from __future__ import annotations

import time

import numpy as np

import pykernel as pk
from pykernel import _core
from pykernel.formats import FORMATS

from .points import pick

SHAPES = pick(["64x8x4"], ["256x32x1", "512x16x32", "1024x8x8"], ["256x32x1", "512x16x32", "1024x8x8", "2048x8x32"])
TIMES = 3000


def seconds(call) -> float:
    """Processor time of one call, the best of five."""
    best = []
    for _ in range(5):
        begin = time.process_time()
        call()
        best.append(time.process_time() - begin)
    return min(best)


class Formats:
    """Ratios of processor time on one thread, both sides in the same process one after the other."""

    params = SHAPES
    param_names = ("width x depth x batch",)

    def setup(self, shape):
        width, depth, batch = map(int, shape.split("x"))
        self.run = dict(batch=batch, replicas=2, threads=1, engine="dense", backend="cpp")
        self.chain = pk.Chain(depth=depth, width=width)
        self.formats = pk.Formats("bfloat16", "bfloat16", "bfloat16")

    def track_run_with_formats_over_without(self, shape):
        """At most 2.5 is promised: 1.5 for itself, 1 for the run that it is compared with."""
        with_formats = lambda: pk.propagate(self.chain, formats=self.formats, **self.run)
        return seconds(with_formats) / seconds(lambda: pk.propagate(self.chain, **self.run))

    track_run_with_formats_over_without.unit = "ratio"

    def track_rounding(self, shape):
        """The compiled loop over a block that stays in cache, its sums included; 0.35 is promised on AVX2."""
        row, x = FORMATS["bfloat16"], np.random.default_rng(0).standard_normal((1024, 4), dtype=np.float32)
        isa = _core.isa()
        loop = lambda: _core.kernels.round_f32(isa, x, row.fraction, row.lowest, row.largest, row.infinite, TIMES)
        return seconds(loop) / TIMES / x.size * 1e9

    track_rounding.unit = "ns a number"
