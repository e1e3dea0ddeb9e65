# SPDX-License-Identifier: BSD-3-Clause
"""Cost as work grows, matrix-free: linear in width and depth, and with the square of the batch once it exceeds a few
inputs."""

from __future__ import annotations

import pykernel as pk

from .points import ROUNDS, SECONDS, he_relu, need, pick, processor_seconds

WIDTHS = pick([16], [1000, 10_000, 100_000], [1000, 10_000, 100_000, 1_000_000])
DEPTHS = pick([4], [100, 1000, 10_000], [100, 1000, 10_000, 100_000])
COLUMNS = pick([2], [1, 16, 128], [1, 16, 128])  # a block of 1e6 units and 128 columns is half a GB, and 8 GB do
BATCHES = pick([2], [1, 4, 16, 64], [1, 4, 16, 64, 256])


def nanoseconds(width: int, depth: int, batch: int) -> float:
    """Per layer, unit and input, of one processor: flat while the cost is O(n B) a layer. Enough replicas that a call's
    own cost does not show."""
    chain = he_relu(width, depth)
    replicas = min(500, max(1, int(SECONDS * 1e7 / (width * depth * batch))))
    run = lambda: pk.propagate(chain, batch=batch, replicas=replicas, seed=0, engine="matrix_free", threads=1)
    run()
    return min(processor_seconds(run) for _ in range(ROUNDS)) / (replicas * width * depth * batch) * 1e9


class MatrixFree:
    """Nanoseconds per layer, unit and input along each axis."""

    timeout = 1800

    def setup(self, *_):
        need("matrix_free", "cpp")

    def track_width(self, columns, width):
        return nanoseconds(width, 4, columns)

    def track_depth(self, columns, depth):
        return nanoseconds(256, depth, columns)

    def track_batch(self, batch):
        return nanoseconds(2048, 16, batch)

    track_width.params, track_width.param_names = [COLUMNS, WIDTHS], ["columns", "width"]
    track_depth.params, track_depth.param_names = [COLUMNS[:2], DEPTHS], ["columns", "depth"]
    track_batch.params, track_batch.param_names = [BATCHES], ["batch"]
    for function in (track_width, track_depth, track_batch):
        function.unit = "ns/(layer unit input)"
    del function
