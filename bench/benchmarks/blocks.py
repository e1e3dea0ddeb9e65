# SPDX-License-Identifier: BSD-3-Clause
"""What blocks cost beside their weights: processor time over that of the same layers as a plain chain, in one run."""

from __future__ import annotations

import statistics

import numpy as np

import pykernel as pk

from .points import pairs, pick

WIDTH, DEPTH = pick([16], [256], [256])[0], pick([2], [16], [16])[0]
BATCHES = pick([2], [1, 32], [1, 32])


def blocks():
    """The branches compared, by name: blocks, and their layers without norm and skip."""
    n, layers = WIDTH, [pk.Block(pk.Linear(4 * WIDTH), "gelu"), pk.Block(pk.Linear(WIDTH), "gelu")]
    numbers = {"weight": np.linspace(0.5, 1.5, n), "bias": np.linspace(-0.1, 0.1, n)}
    branch = (pk.Linear(4 * n), "gelu", pk.Linear(n))
    return {
        "pre-norm": ([pk.Block(pk.Norm("layer"), *branch, skip=1.0)], layers),
        "post-norm": ([pk.Block(*branch, skip=1.0, after=pk.Norm("layer"))], layers),
        "trained pre-norm": ([pk.Block(pk.Norm("layer", **numbers), *branch, skip=1.0)], layers),
    }


def run(pattern, batch):
    chain = pk.Chain(depth=DEPTH, width=WIDTH, init="lecun_normal", blocks=pattern)
    pk.propagate(chain, batch=batch, threads=1, engine="dense", backend="cpp")


class Blocks:
    """MLP blocks of 4 x WIDTH units."""

    params = (list(blocks()), BATCHES)
    param_names = ("block", "batch")
    timeout = 300

    def track_of_dense_layers(self, name, batch):
        branch, layers = blocks()[name]
        taken = pairs(lambda: run(branch, batch), lambda: run(layers, batch))
        return statistics.median(whole / alone for whole, alone in taken)

    track_of_dense_layers.unit = "of the time of the layers alone"
