# SPDX-License-Identifier: BSD-3-Clause
"""How the matrix-free engine scales: linearly in width and depth, and with the square of the batch once it exceeds a
few inputs."""

from __future__ import annotations

import pykernel as pk

from .points import he_relu, need, pick, seconds_of

WIDTHS = pick([16], [1000, 10_000, 100_000], [1000, 10_000, 100_000, 1_000_000])
DEPTHS = pick([4], [100, 1000, 10_000], [100, 1000, 10_000, 100_000])
BATCHES = pick([2], [1, 4, 16, 64], [1, 4, 16, 64, 256])


def nanoseconds(width: int, depth: int, batch: int) -> float:
    """Per layer, unit and input: flat while the cost is O(n B) a layer."""
    chain = he_relu(width, depth)
    seconds = seconds_of(lambda: pk.propagate(chain, batch=batch, replicas=2, seed=0, engine="matrix_free"))
    return seconds / 2 / (width * depth * batch) * 1e9


class MatrixFree:
    """Nanoseconds per layer, unit and input along each axis."""

    timeout = 300

    def setup(self, _):
        need("matrix_free", "cpp")

    def track_width(self, width):
        return nanoseconds(width, 8, 2)

    def track_depth(self, depth):
        return nanoseconds(256, depth, 2)

    def track_batch(self, batch):
        return nanoseconds(2048, 16, batch)

    for function, name, values in (
        (track_width, "width", WIDTHS),
        (track_depth, "depth", DEPTHS),
        (track_batch, "batch", BATCHES),
    ):
        function.params, function.param_names, function.unit = [values], [name], "ns/(layer unit input)"
    del function, name, values
