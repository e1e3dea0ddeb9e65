# SPDX-License-Identifier: BSD-3-Clause
"""What tests of number formats share: hard numbers of each format, chains to round, and when two runs agree."""

import math

import ml_dtypes
import numpy as np

import pykernel as pk
from pykernel import observables
from pykernel.formats import FORMATS

TYPES = {name: np.float16 if name == "float16" else getattr(ml_dtypes, name) for name in FORMATS}
LAYERS = pk.Chain(depth=6, width=40, activation="relu", init="he_normal")
MLP = pk.Block(pk.Norm("layer"), pk.Linear(40), "gelu", pk.Dropout(0.25), pk.Linear(24), skip=1.0)
GATED = pk.Block(pk.Gated(40, "silu"), pk.Linear(24), skip=1.0, scale=0.5)
CHAINS = {
    "relu": LAYERS,
    "tanh, orthogonal, mse": pk.Chain(depth=5, width=20, activation="tanh", init="orthogonal", head=pk.Head("mse", 3)),
    "blocks, softmax": pk.Chain(depth=3, width=24, blocks=[MLP, GATED], head=pk.Head("softmax", 10)),
    "identity": pk.Chain(depth=9, width=8, activation="linear", init="identity(0.7)"),
    "batch norm, biases": pk.Chain(depth=4, width=24, norm="batch", bias_std=0.1),
    "constant": pk.Chain(depth=4, width=24, init="constant(0.013)", activation="softplus"),
}
FORMATS_OF_RUNS = {
    "bfloat16": pk.Formats("bfloat16", "bfloat16", "bfloat16"),
    "fp8": pk.Formats("float8_e4m3fn", "float8_e4m3fn", "float8_e5m2", loss_scale=2.0**6),
    "signals only": pk.Formats(signals="float16"),
}


def agree(p, q, tolerance=1e-6):
    """Rows of two backends; a residue of cancellation in a sum has no size that they share, a bias behind batch norm or
    of keys neither."""
    for row in observables.ROWS:
        if row.name == "log10_grad_bias" and (p.chain.has_batch_norm or p.chain.attentions):
            continue
        if row.name in ("log10_smallest_signal", "log10_smallest_gradient", "flushed_signal", "flushed_gradient"):
            continue
        a, b = p.rows[row.name], q.rows[row.name]
        tiny = np.maximum(a, b) < (-12 if row.name.startswith("log10_error") else -math.inf)
        same = (a == b) | (np.isnan(a) & np.isnan(b)) | tiny
        np.testing.assert_allclose(np.where(same, 0, a), np.where(same, 0, b), atol=tolerance, err_msg=row.name)


def bits(x):
    """Zero has a sign."""
    return np.asarray(x, np.float64).view(np.uint64)


def hard_cases(name):
    """Every finite number of a format, the midpoint to the next, and the float32 numbers on either side of both."""
    codes = np.arange(2 ** FORMATS[name].bits, dtype=np.uint16 if FORMATS[name].bits == 16 else np.uint8)
    with np.errstate(all="ignore"):
        numbers = codes.view(TYPES[name]).astype(np.float64)
    numbers = np.unique(numbers[np.isfinite(numbers)])
    both = np.concatenate([numbers, (numbers[1:] + numbers[:-1]) / 2]).astype(np.float32)
    with np.errstate(over="ignore"):
        near = [both, np.nextafter(both, np.float32(np.inf)), np.nextafter(both, np.float32(-np.inf))]
    return np.concatenate([*near, np.float32([0.0, -0.0, 3e38, -3e38, 1e-45])])


def random_numbers(count):
    """float32 numbers: half of them any bits, half normal draws over twelve decades."""
    rng = np.random.default_rng(0)
    any_bits = rng.integers(0, 2**32, count // 2, dtype=np.uint32).view(np.float32)
    sized = rng.standard_normal(count // 2) * 10 ** rng.uniform(-8, 6, count // 2)
    return np.concatenate([any_bits[np.isfinite(any_bits)], sized.astype(np.float32)])
