# SPDX-License-Identifier: BSD-3-Clause
"""A chain lowered to plain numbers and arrays: all that an engine needs to know, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

NORMS = (None, "batch", "layer", "rms")
ORDERS = ("linear-norm-activation", "norm-activation-linear")
LOSSES = (None, "mse", "sigmoid", "softmax")
NORM_EPS = 1e-5


@dataclass(frozen=True)
class Plan:
    """What a backend runs. Layers are counted from 1 in the maths; arrays over layers start at index 0 for layer 1.

    Attributes:
        widths: (L + 1,) int64, units of a[0] .. a[L].
        batch: inputs propagated together.
        seed: the key of the stream.
        dtype: "float32" or "float64", the arithmetic of the kernels.
        exponent: True for blocks with exponents, False for plain arithmetic (precision="native").
        activation: a row of `pykernel.activations` (a frozen object with `name`, `value`, `slope`, `parameters` ...).
        norm: index into NORMS.  order: index into ORDERS.
        residual_every: 0 for none, else k.  residual_scale: (L,) float64, s of each layer (used where k divides l).
        distribution: name of the unit draw ("normal", "uniform", "truncated", "sparse", "student", "stable",
            "identity", "constant", "haar", "given"); distribution_parameter: density, degrees of freedom or alpha (else 0).
        scale: (L,) float64, W[l] = scale[l] * unit draw (1 for "given").
        bias_distribution: "zero", "normal", "uniform" or "given"; bias_scale: (L,) float64.
        correlation: pairwise correlation of the drawn inputs.
        x, cotangent: the caller's (n0, B), (nL, B) float64 arrays, or None: drawn.
        weights, biases: tuples of the caller's float64 arrays, or None.
        loss: index into LOSSES; outputs: rows of the head's weight (0 without); head_distribution, head_parameter,
            head_scale: its draw; targets: (outputs, B) float64 or None: drawn (for softmax one-hot columns).
        clip_value: bound on every entry of the parameter gradients, or 0 for none.
    """

    widths: np.ndarray
    batch: int
    seed: int
    dtype: str
    exponent: bool
    activation: Any
    norm: int
    order: int
    residual_every: int
    residual_scale: np.ndarray
    distribution: str
    distribution_parameter: float
    scale: np.ndarray
    bias_distribution: str
    bias_scale: np.ndarray
    correlation: float
    x: np.ndarray | None
    cotangent: np.ndarray | None
    weights: tuple | None
    biases: tuple | None
    loss: int
    outputs: int
    head_distribution: str
    head_parameter: float
    head_scale: float
    targets: np.ndarray | None
    clip_value: float

    @property
    def depth(self) -> int:
        return len(self.widths) - 1
