# SPDX-License-Identifier: BSD-3-Clause
"""What attention costs beside its weights: processor time over that of its four layers alone, and how near the products
between positions come to the roofline."""

from __future__ import annotations

import statistics

import pykernel as pk
from pykernel import _core

from .points import ROUNDS, pairs, pick, processor_seconds

# units, heads, positions
POINTS = pick(
    ["32x2x8"], ["256x8x64", "256x4x512"], ["256x8x64", "256x4x512", "768x12x128", "256x16x256", "512x4x1024"]
)
DEPTH = 2
DRAWS = pick([4096], [2_000_000], [20_000_000])[0]
PRODUCTS = 7  # two forward, five back, of units * positions^2 multiply-adds each


def run(step, n, positions):
    chain = pk.Chain(depth=DEPTH, width=n, init="lecun_normal", blocks=[step])
    pk.propagate(chain, positions=positions, threads=1, engine="dense", backend="cpp")


def seconds(point):
    """Pairs: attention, its layers alone."""
    n, heads, positions = (int(number) for number in point.split("x"))
    attention, layers = pk.Block(pk.Attention(heads)), pk.Block(*[pk.Linear(n)] * 4)
    return pairs(lambda: run(attention, n, positions), lambda: run(layers, n, positions))


def roofline():
    """The most multiply-adds a second that one core does here, on processor time."""
    peak = lambda: _core.kernels.peak_multiply_add(DRAWS)
    return 16 * DRAWS / min(processor_seconds(peak) for _ in range(4 * ROUNDS))


class Attention:
    """Blocks of attention, dense, float32, one thread."""

    params = POINTS
    param_names = ("units x heads x positions",)
    timeout = 300

    def track_of_its_layers(self, point):
        """Median over pairs."""
        return statistics.median(mix / layers for mix, layers in seconds(point))

    track_of_its_layers.unit = "of the time of its four layers alone"

    def track_products_of_roofline(self, point):
        """Multiply-adds between positions a second, over those that this core can do at most."""
        n, _, positions = (int(number) for number in point.split("x"))
        extra = statistics.median(mix - layers for mix, layers in seconds(point))
        return PRODUCTS * DEPTH * n * positions**2 / max(extra, 1e-9) / roofline()

    track_products_of_roofline.unit = "of the roofline"
