# SPDX-License-Identifier: BSD-3-Clause
"""The default sweep: what `make run` answers. Which schemes make gradients vanish or explode, how fast, at which depths
and widths."""

from __future__ import annotations

from pykernel.sweeps.plan import Replicas

ACTIVATIONS = ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "gelu")
INITS = (
    "identity(0.5)",
    "identity(1.5)",
    "normal(0.01)",
    "lecun_normal",
    "glorot_normal",
    "he_normal",
    "he_uniform",
    "torch_linear_default",
    "orthogonal",
)
WIDTHS = (32, 128, 1024)
DEPTHS = (10, 30, 100, 300, 1000)
GRID = {"activation": list(ACTIVATIONS), "init": list(INITS), "width": list(WIDTHS), "depth": list(DEPTHS)}
# Uniform schemes must draw every weight: a second a chain at 1000 layers of 1024 units. Wide chains also differ least
# from one draw to the next, so a few of them say as much as many narrow ones.
RUN = {"batch": 1, "seed": 0, "replicas": Replicas(most=24, seconds=0.3, least=2)}
