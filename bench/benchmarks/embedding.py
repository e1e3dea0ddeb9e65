# SPDX-License-Identifier: BSD-3-Clause
"""What embedding costs: a loop over the C layer against the library's own chain, and the user's activation against the
built-in row."""

from __future__ import annotations

import ctypes as c
import math

import numpy as np

import pykernel as pk
from pykernel import activations

from .points import ROUNDS, pick, seconds_in_turn

WIDTH, DEPTH = pick([16], [256], [256])[0], pick([4], [64], [64])[0]
BATCHES = pick([2], [1, 16], [1, 4, 16, 64])


class _Activation(c.Structure):
    _fields_ = [("size", c.c_size_t), ("name", c.c_char_p), ("rest", c.c_char * 112)]


class _Block(c.Structure):
    _fields_ = [("data", c.c_void_p), ("n", c.c_int64), ("exponent", c.c_int64), ("largest", c.c_double)]


class _Layer(c.Structure):
    _fields_ = [
        ("size", c.c_size_t),
        *[(name, c.c_int64) for name in ("rows", "columns", "batch")],
        ("seed", c.c_uint64),
        ("layer", c.c_uint32),
        ("replica", c.c_uint32),
        ("distribution", c.c_char_p),
        ("parameter", c.c_double),
        ("scale", c.c_double),
        *[(name, c.c_void_p) for name in ("draws", "weights", "bias_distribution")],
        ("bias_scale", c.c_double),
        ("bias", c.c_void_p),
        ("activation", c.POINTER(_Activation)),
        ("norm", c.c_int32),
        ("exponent", c.c_int32),
    ]


def embedded(batch):
    """A function that takes a chain forward and backward through pk_layer_forward and pk_layer_backward, draws kept
    between them."""
    library, entries = c.CDLL(pk.get_library()), (WIDTH + 15) // 16 * 16 * batch
    arrays = []

    def block(values=None):
        arrays.append(np.zeros(entries, np.float32) if values is None else values.astype(np.float32))
        return _Block(arrays[-1].ctypes.data, WIDTH, 0, 1.0)

    noise = np.random.default_rng(0).standard_normal((2, entries))
    relu = _Activation(c.sizeof(_Activation), b"relu")
    a, z = [block(noise[0]), *[block() for _ in range(DEPTH)]], [block() for _ in range(DEPTH)]
    g, delta = block(noise[1]), block()
    layers = []
    for number in range(DEPTH):
        draws = np.zeros((WIDTH + 15) // 16 * 16 * WIDTH, np.float32)
        arrays.append(draws)
        layer = _Layer(
            c.sizeof(_Layer),
            WIDTH,
            WIDTH,
            batch,
            0,
            number + 1,
            0,
            b"normal",
            0.0,
            math.sqrt(2 / WIDTH),
            draws.ctypes.data,
        )
        layer.activation, layer.exponent = c.pointer(relu), 1
        layers.append(layer)
    size = c.c_size_t()
    assert library.pk_layer_bytes(c.byref(layers[0]), 0, c.byref(size), None, c.c_size_t(0)) == 0
    workspace = c.create_string_buffer(size.value)
    end = (workspace, size, None, c.c_size_t(0))
    up = [(c.byref(l), 0, c.byref(a[i]), c.byref(z[i]), c.byref(a[i + 1]), None, *end) for i, l in enumerate(layers)]
    down = [
        (c.byref(l), 0, c.byref(z[i]), c.byref(g), c.byref(delta), c.byref(g), None, None, *end)
        for i, l in enumerate(layers)
    ][::-1]
    forward, backward = library.pk_layer_forward, library.pk_layer_backward

    def run(keep=arrays):
        for arguments in up:
            forward(*arguments)
        for arguments in down:
            backward(*arguments)

    return run


class EmbeddedLayer:
    """Percent of time that a loop over the C interface's layer takes beyond `propagate` on one thread; negative:
    less."""

    params = BATCHES
    param_names = ("batch",)
    unit = "percent"
    timeout = 300

    def track_overhead(self, batch):
        chain = pk.Chain(depth=DEPTH, width=WIDTH, activation="relu", init="he_normal")
        loop = embedded(batch)

        def own():
            pk.propagate(chain, batch=batch, engine="dense", backend="cpp", threads=1)

        embedded_seconds, own_seconds = seconds_in_turn([loop, own], rounds=ROUNDS)
        return 100 * (embedded_seconds / own_seconds - 1)


class OwnActivation:
    """Times that the built-in row takes when the same function comes from the user, compiled by Numba, in the C++
    backend."""

    params = (["relu", "softsign", "sigmoid", "tanh"], BATCHES)
    param_names = ("function", "batch")
    unit = "times"
    timeout = 300

    def setup(self, function, batch):
        try:
            import numba  # noqa: F401
        except ImportError:
            raise NotImplementedError from None

    def track_ratio(self, function, batch):
        row = activations.get(function)
        formulas = {
            "relu": (lambda z: np.maximum(z, 0.0), lambda z: (z > 0) * 1.0),
            "softsign": (lambda z: z / (1 + np.abs(z)), lambda z: (1 / (1 + np.abs(z))) ** 2),
            "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda z: np.exp(-np.abs(z)) / (1 + np.exp(-np.abs(z))) ** 2),
            "tanh": (lambda z: np.tanh(z), lambda z: 1 - np.tanh(z) ** 2),
        }
        value, slope = formulas[function]
        own = pk.Activation(value=value, slope=slope, kinks=row.kinks, flat=row.flat)

        def run(activation):
            chain = pk.Chain(depth=DEPTH, width=WIDTH, activation=activation, init="glorot_normal")
            return lambda: pk.propagate(chain, batch=batch, engine="dense", backend="cpp", threads=1)

        own_seconds, row_seconds = seconds_in_turn([run(own), run(row)], rounds=ROUNDS)
        return own_seconds / row_seconds
