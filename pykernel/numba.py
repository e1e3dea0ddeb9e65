# SPDX-License-Identifier: BSD-3-Clause
"""pykernel inside your own Numba code: functions for `@njit` and `prange`, cached on disk, the bits of `propagate`.

Letters: rows = n[l], columns = n[l-1], B inputs; arrays are C-contiguous, float32 or float64. A weight is never stored:
every function takes its address (seed, layer from 1, replica) and draws what it needs. Distributions: NORMAL, UNIFORM
(on (-1, 1)), TRUNCATED (at 2), and with a parameter SPARSE (density), STUDENT (degrees of freedom), STABLE (alpha).
Attention, convolutions and pools are no functions here: `propagate(..., backend="numba")` runs them; in your own loop
they are layers with code of yours between them (docs/embedding.md has an attention).
Your functions may use `cache=True`; Numba does not notice a new version of pykernel then, so clear `__pycache__` when
you upgrade.

    import numpy as np
    from numba import njit
    import pykernel.numba as pkn

    @njit
    def reservoir(steps, x, seed):
        z = np.empty_like(x)
        for t in range(steps):
            pkn.layer_forward(z, x, 1.2 / np.sqrt(len(x)), seed, 1, 0, pkn.NORMAL, 0.0)
            x = np.tanh(z)
        return x

    reservoir(10, np.ones((64, 1), np.float32), 7)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pykernel import activations, stream
from pykernel.dtypes import Reals
from pykernel.kernels import activation_lanes, blocks, embedded, jit, product
from pykernel.kernels.draws import NORMAL, SPARSE, STABLE, STUDENT, TRUNCATED, UNIFORM
from pykernel.kernels.embedded import (
    kept_size,
    layer_backward,
    layer_backward_kept,
    layer_forward,
    layer_forward_keep,
)
from pykernel.kernels.embedded_chain import chain, chain_row
from pykernel.kernels.embedded_steps import (
    BATCH_NORM,
    LAYER_NORM,
    RMS_NORM,
    activate,
    activate_backward,
    add,
    affine,
    gate,
    gate_backward,
    mask,
    norm,
    norm_backward,
    norm_size,
)

__all__ = [
    "BATCH_NORM",
    "LAYER_NORM",
    "NORMAL",
    "RMS_NORM",
    "SPARSE",
    "STABLE",
    "STUDENT",
    "TRUNCATED",
    "UNIFORM",
    "activate",
    "activate_backward",
    "activation",
    "add",
    "affine",
    "chain",
    "chain_row",
    "gate",
    "gate_backward",
    "kept_size",
    "layer_backward",
    "layer_backward_kept",
    "layer_forward",
    "layer_forward_keep",
    "mask",
    "norm",
    "norm_backward",
    "norm_size",
    "normals",
    "philox",
    "weight_tile",
]

_LOW = np.uint64(0xFFFFFFFF)
_UP = np.uint64(32)
_ROUNDS = stream.ROUNDS


def activation(name: Any) -> tuple:
    """The row and parameter of a built-in function, for `activate`, `gate`, `chain_row`. Call it outside njit code.

    Raises:
        ValueError: an unknown name, or a function of your own: `chain` takes those.

    Examples:
        >>> activation("leaky_relu(0.2)")
        (0, 0.2)
    """
    row, parameter = activation_lanes.number(activations.get(name))
    if row == activation_lanes.OTHER:
        raise ValueError(
            f"activation {name} is no built-in row; pykernel.numba.chain takes value and slope functions of your own"
        )
    return (row, float(activations.get(name).left)) if row == activation_lanes.PIECEWISE else (row, parameter)


@jit
def philox(c0: int, c1: int, c2: int, c3: int, seed: int) -> tuple[np.uint32, np.uint32, np.uint32, np.uint32]:
    """The four words of one Philox4x32-7 block.

    Args:
        c0, c1, c2, c3: the counter, integers below 2^32; seed: integer below 2^64.

    Returns:
        Four uint32.

    Examples:
        >>> [hex(w) for w in philox(0, 0, 0, 0, 0)]
        ['0x5f6fb709', '0xd893f64', '0x4f121f81', '0x4f730a48']
    """
    a, b, c, d = np.uint64(c0), np.uint64(c1), np.uint64(c2), np.uint64(c3)
    k0, k1 = np.uint64(seed) & _LOW, np.uint64(seed) >> _UP
    for _ in range(_ROUNDS):
        p, q = np.uint64(0xD2511F53) * a, np.uint64(0xCD9E8D57) * c
        a, b, c, d = (q >> _UP) ^ b ^ k0, q & _LOW, (p >> _UP) ^ d ^ k1, p & _LOW
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & _LOW, (k1 + np.uint64(0xBB67AE85)) & _LOW
    return np.uint32(a), np.uint32(b), np.uint32(c), np.uint32(d)


@jit
def normals(out: Reals, seed: int, purpose: int, layer: int, replica: int) -> None:
    """Fill out, (n, B), with standard normals at tall addresses of the stream: what inputs, cotangents and biases are.

    Args:
        purpose: pykernel.stream.INPUT (layer 0), COTANGENT (layer L), BIAS (B = 1) ...
    """
    n, B = out.shape
    flat = np.empty(blocks.size(n, B), out.dtype)
    key0, key1 = embedded.seed_keys(seed)
    blocks.draw_tall(flat, n, B, False, key0, key1, np.uint32(layer | purpose << 24), np.uint32(replica))
    embedded.unpack(flat, out)


@jit
def weight_tile(
    out: Reals, row: int, column: int, seed: int, layer: int, replica: int, distribution: int, parameter: float
) -> None:
    """Unit draws of a tile of W[layer] into out: rows row .. row + len(out) - 1, columns from a multiple of 4.

    Args:
        out: (rows, columns) float32 or float64.
        distribution, parameter: see the head of this file.
    """
    height, columns = out.shape
    terms = (columns + 15) // 16 * 16
    tile = np.empty(terms * 16, out.dtype)
    where = embedded.weight_address(seed, layer, replica)
    for i in range(0, height, 16):
        product.draw_rows(tile, distribution, parameter, where, row + i, column, terms, column + columns)
        for j in range(min(16, height - i)):
            for k in range(columns):
                out[i + j, k] = tile[k * 16 + j]
