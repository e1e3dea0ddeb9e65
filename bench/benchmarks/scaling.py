# SPDX-License-Identifier: BSD-3-Clause
"""Gradient scaling tracked like speed: a change of the physics shows in the history as a change of these numbers."""

from __future__ import annotations

import numpy as np

import pykernel as pk

from .points import pick

FEW = ["linear", "sigmoid", "tanh", "relu", "gelu"]
ACTIVATIONS = pick(["relu"], FEW, [*FEW, "leaky_relu", "elu", "selu", "silu", "softplus"])
SCHEMES = {
    "identity_0.5": pk.Identity(0.5),
    "identity_1.5": pk.Identity(1.5),
    "normal_0.01": pk.Normal(0.01),
    "lecun_normal": "lecun_normal",
    "glorot_normal": "glorot_normal",
    "he_normal": "he_normal",
    "he_uniform": "he_uniform",
    "torch_linear_default": "torch_linear_default",
    "orthogonal": "orthogonal",
}
DEPTH, WIDTH, BATCH, REPLICAS = pick([6, 8, 2, 2], [100, 64, 2, 16], [100, 128, 2, 64])


class GradientScaling:
    """The median over replicas; seeds are fixed, so the numbers are the same on every machine up to rounding."""

    params = (list(SCHEMES), ACTIVATIONS)
    param_names = ("init", "activation")

    def setup(self, init, activation):
        chain = pk.Chain(depth=DEPTH, width=WIDTH, activation=activation, init=SCHEMES[init])
        self.result = pk.propagate(chain, batch=BATCH, replicas=REPLICAS, seed=0, engine="dense")

    def track_slope(self, init, activation):
        return float(np.median(self.result.slope))

    def track_end_to_end(self, init, activation):
        return float(np.median(self.result.end_to_end))

    track_slope.unit = "decades/layer"
    track_end_to_end.unit = "decades"
