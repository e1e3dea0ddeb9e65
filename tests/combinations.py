# SPDX-License-Identifier: BSD-3-Clause
"""The layers that tests go through: norms, orders, residuals, heads, and every activation with all of them."""

import itertools

import pykernel as pk
from pykernel import activations

NORMS = (None, "batch", "layer", "rms")
ORDERS = ("linear-norm-activation", "norm-activation-linear")
RESIDUALS = (None, pk.Residual(1), pk.Residual(2, 0.5))
HEADS = (None, pk.Head("mse", 3), pk.Head("sigmoid", 2), pk.Head("softmax", 4), pk.Head("linear", 3))

# Those that theory has closed forms, moments and critical points of.
FUNCTIONS = (
    "linear",
    "sigmoid",
    "tanh",
    "relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "softplus",
    "mish",
    "hardtanh",
    "softsign",
    "erf",
    "arctan",
)

# Every activation with every norm and order; residuals and heads in turn, so that each meets each norm and order.
CASES = [
    (name, norm, order, RESIDUALS[i % 3], HEADS[(i // 3) % 4])
    for i, (name, norm, order) in enumerate(itertools.product(activations.ROWS, NORMS, ORDERS))
] + [
    ("tanh", norm, order, residual, head)
    for norm, order, residual, head in itertools.product(NORMS, ORDERS, RESIDUALS, HEADS)
]
