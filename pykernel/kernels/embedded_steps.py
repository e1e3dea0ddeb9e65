# SPDX-License-Identifier: BSD-3-Clause
"""Steps of blocks for other people's njit loops, on plain (units, columns) arrays: the engine's within float range."""

from __future__ import annotations

import numpy as np

from pykernel import stream
from pykernel.kernels import activation_lanes, blocks, jit, norms
from pykernel.kernels.embedded import pack, seed_keys, unpack
from pykernel.kernels.memory import cast_like

BATCH_NORM, LAYER_NORM, RMS_NORM = norms.BATCH, norms.LAYER, norms.RMS
_STEP = 256  # numbers at a time through the activation functions: 4 KiB of scratch


@jit
def activate(a, z, row, row_parameter):
    """a = phi(z), as the engine evaluates it.

    Args:
        a: written, z: C-contiguous arrays of one shape and dtype.
        row, row_parameter: what `activation(name)` gives.
    """
    x, y = z.reshape(-1), a.reshape(-1)
    if row == activation_lanes.PIECEWISE:
        slope = cast_like(row_parameter, x)
        for i in range(len(x)):
            y[i] = x[i] * slope if x[i] < 0 else x[i]
        return
    wide, out = np.zeros(_STEP), np.empty(_STEP)
    for start in range(0, len(x), _STEP):
        count = min(_STEP, len(x) - start)
        for i in range(count):
            wide[i] = x[start + i]
        activation_lanes.values(row, row_parameter, wide, out, (count + 15) // 16 * 16)
        for i in range(count):
            y[start + i] = out[i]


@jit
def activate_backward(dz, da, z, row, row_parameter):
    """dz = da phi'(z), as the engine evaluates it; dz may be da."""
    x, g, d = z.reshape(-1), da.reshape(-1), dz.reshape(-1)
    wide, out = np.zeros(_STEP), np.empty(_STEP)
    for start in range(0, len(x), _STEP):
        count = min(_STEP, len(x) - start)
        for i in range(count):
            wide[i] = x[start + i]
        if row == activation_lanes.PIECEWISE:
            for i in range(count):
                out[i] = 1.0 if wide[i] > 0 else row_parameter
        else:
            activation_lanes.slopes(row, row_parameter, wide, out, (count + 15) // 16 * 16)
        for i in range(count):
            d[start + i] = float(g[start + i]) * out[i]


@jit
def gate(out, g, v, row, row_parameter):
    """out = phi(g) * v entry by entry.

    Args:
        out: written, g, v: C-contiguous arrays of one shape and dtype; out is neither of them.
        row, row_parameter: what `activation(name)` gives.
    """
    activate(out, g, row, row_parameter)
    y, w = out.reshape(-1), v.reshape(-1)
    for i in range(len(y)):
        y[i] *= w[i]


@jit
def gate_backward(dg, dv, dout, g, v, row, row_parameter):
    """dg = dout * v * phi'(g) and dv = dout * phi(g), from what `gate` was given.

    Args:
        dg, dv: written; neither is another argument.
    """
    x, w, d, value = dout.reshape(-1), v.reshape(-1), dg.reshape(-1), dv.reshape(-1)
    activate(dv, g, row, row_parameter)
    for i in range(len(x)):
        value[i] *= x[i]
        d[i] = x[i] * w[i]
    activate_backward(dg, dg, g, row, row_parameter)


@jit
def add(out, a, v, skip, branch):
    """out = skip * a + branch * v; out may be a or v. Backward dJ/da = skip * dJ/dout and dJ/dv = branch * dJ/dout."""
    x, y, z = a.reshape(-1), v.reshape(-1), out.reshape(-1)
    on, off = cast_like(skip, x), cast_like(branch, x)
    for i in range(len(x)):
        z[i] = off * y[i] + (x[i] if skip == 1 else on * x[i])


@jit
def affine(out, x, weight, bias):
    """out = weight * x + bias unit by unit, as a trained norm ends. Backward dJ/dx = affine(dJ/dout, weight, zeros).

    Args:
        out: (units, columns), written, may be x.  x: the same.
        weight, bias: (units,).
    """
    n, B = x.shape
    y, z = x.reshape(-1), out.reshape(-1)
    for i in range(n):
        w, b = cast_like(weight[i], y), cast_like(bias[i], y)
        for j in range(i * B, i * B + B):
            z[j] = w * y[j] + b


@jit
def norm_size(kind, units, columns):
    """Numbers that `norm` keeps for its backward pass.

    Examples:
        >>> norm_size(LAYER_NORM, 20, 3)
        3
    """
    return norms.kept(units, columns, kind) // 8


@jit
def norm(y, kept, x, kind, eps):
    """y = Norm(x).

    Args:
        y: (units, columns), written; x: the same; y may be x.
        kept: (norm_size(kind, units, columns),) float64, written.
        kind: BATCH_NORM (per unit over the columns), LAYER_NORM or RMS_NORM (per column over the units).
        eps: what is added to the variance.
    """
    n, B = x.shape
    block = np.empty(blocks.size(n, B), x.dtype)
    pack(x, block)
    norms.forward(kind, eps, block, 0, n, B, kept, 0)
    unpack(block, y)


@jit
def norm_backward(dx, dy, y, kept, kind):
    """dJ/dx from dJ/dy through the statistics.

    Args:
        dx: (units, columns), written, may be dy.  y, kept: what `norm` wrote.
    """
    n, B = y.shape
    g, block = np.empty(blocks.size(n, B), y.dtype), np.empty(blocks.size(n, B), y.dtype)
    pack(dy, g)
    pack(y, block)
    norms.backward(kind, g, 0, block, 0, n, B, kept, 0, 0)
    unpack(g, dx)


@jit
def mask(out, x, p, seed, number, replica):
    """Dropout: x with entries zeroed with probability p, the rest divided by 1 - p. Backward is the same function.

    Args:
        out: (units, columns), written, may be x.
        p: 0 to below 1.
        seed, number, replica: the address of the mask; masks of a network count from 1.
    """
    n, B = x.shape
    key0, key1 = seed_keys(seed)
    block = np.empty(blocks.size(n, B), x.dtype)
    pack(x, block)
    blocks.mask(block, n, B, p, key0, key1, np.uint32(number | stream.DROPOUT << 24), np.uint32(replica))
    blocks.multiply_by(block, len(block), 1 / (1 - p))
    unpack(block, out)
