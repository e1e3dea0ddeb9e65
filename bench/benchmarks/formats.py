# SPDX-License-Identifier: BSD-3-Clause
"""What number formats cost: the rounding loop, and a run with formats beside the run that it is compared with."""

from __future__ import annotations

import numpy as np

import pykernel as pk
from pykernel import _core
from pykernel.formats import FORMATS

from .points import pick, processor_seconds

SHAPES = pick(["64x8x4"], ["256x32x1", "512x16x32", "1024x8x8"], ["256x32x1", "512x16x32", "1024x8x8", "2048x8x32"])
MATRIX_FREE = pick(["64x8x4"], ["2048x16x8", "512x16x32"], ["8192x8x1", "2048x16x8", "512x16x32", "256x1000x16"])
TIMES = 3000


def seconds(*calls) -> list[float]:
    """Processor time of each call, the best of seven turns, whose order alternates."""
    best = [float("inf")] * len(calls)
    for turn in range(8):
        for i in list(range(len(calls)))[:: 1 if turn % 2 else -1]:
            taken = processor_seconds(calls[i])
            best[i] = min(best[i], taken) if turn else best[i]
    return best


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
        rounded, plain = seconds(with_formats, lambda: pk.propagate(self.chain, **self.run))
        return rounded / plain

    track_run_with_formats_over_without.unit = "ratio"

    def track_rounding(self, shape):
        """The compiled loop over a block that stays in cache, its sums included; 0.35 is promised on AVX2."""
        row, x = FORMATS["bfloat16"], np.random.default_rng(0).standard_normal((1024, 4), dtype=np.float32)
        isa = _core.isa()
        loop = lambda: _core.kernels.round_f32(isa, x, row.fraction, row.lowest, row.largest, row.infinite, TIMES)
        return seconds(loop)[0] / TIMES / x.size * 1e9

    track_rounding.unit = "ns a number"


class MatrixFree:
    """Two runs with the same weights ask each weight for the columns of both, which must be drawn jointly: so what they
    are compared with is a run without formats of twice the columns, which costs 2.3 to 3.6 times one of as many."""

    params = MATRIX_FREE
    param_names = ("width x depth x batch",)

    def track_run_with_formats_over_twice_the_columns(self, shape):
        """1.25 would be what is promised of dense runs, 2.5 over both; the roundings weigh more where products are
        few."""
        width, depth, batch = map(int, shape.split("x"))
        chain = pk.Chain(depth=depth, width=width)
        run = dict(replicas=2, threads=1, engine="matrix_free", backend="cpp")
        formats = pk.Formats(signals="bfloat16", gradients="bfloat16")
        rounded, both = seconds(
            lambda: pk.propagate(chain, batch=batch, formats=formats, **run),
            lambda: pk.propagate(chain, batch=2 * batch, **run),
        )
        return rounded / both

    track_run_with_formats_over_twice_the_columns.unit = "ratio"
