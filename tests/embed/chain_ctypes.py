# SPDX-License-Identifier: BSD-3-Clause
"""A tile of a weight matrix and a whole chain through the C interface, with ctypes: the way in for any language that
can call C."""

import ctypes as c
import math
import sys

library = c.CDLL(sys.argv[1])  # python chain_ctypes.py "$(python -m pykernel --library)"
doubles = c.POINTER(c.c_double)


class Activation(c.Structure):
    _fields_ = [
        ("size", c.c_size_t),
        ("name", c.c_char_p),
        ("parameters", doubles),
        ("functions", c.c_void_p * 4),
        ("user", c.c_void_p),
        ("facts", c.c_double * 6),
        ("flat", c.c_int32),
    ]


class Plan(c.Structure):
    _fields_ = [
        ("size", c.c_size_t),
        ("depth", c.c_int64),
        ("widths", c.POINTER(c.c_int64)),
        ("batch", c.c_int64),
        ("seed", c.c_uint64),
        *[(name, c.c_int32) for name in ("exponent", "norm", "order", "loss")],
        ("activation", c.POINTER(Activation)),
        ("residual_every", c.c_int64),
        ("residual_scale", doubles),
        ("distribution", c.c_char_p),
        ("distribution_parameter", c.c_double),
        ("scale", doubles),
        ("bias_distribution", c.c_char_p),
        ("bias_scale", doubles),
        ("correlation", c.c_double),
        *[(name, c.c_void_p) for name in ("x", "cotangent", "weights", "biases")],
        ("outputs", c.c_int64),
        ("head_distribution", c.c_char_p),
        ("head_parameter", c.c_double),
        ("head_scale", c.c_double),
        ("targets", c.c_void_p),
        ("clip_value", c.c_double),
        ("norm_eps", c.c_double),
    ]


class Rows(c.Structure):
    _fields_ = [("size", c.c_size_t), ("log10_grad_weight", doubles), ("others", c.c_void_p * 12)]


message = c.create_string_buffer(200)
room = (message, c.c_size_t(len(message)))


def call(name, *arguments):
    """Call a function of the library; a status other than 0 becomes an exception with its message."""
    if getattr(library, name)(*arguments, *room):
        raise RuntimeError(message.value.decode())


if library.pk_abi_version() != 1:
    raise SystemExit("this program was written for ABI version 1")

# Rows 3..5 and columns 10..13 of the unit draws of W[2], replica 0, seed 7.
tile = (c.c_float * 12)()
call(
    "pk_draw_weights",
    c.c_uint64(7),
    c.c_uint32(2),
    c.c_uint32(0),
    b"normal",
    c.c_double(0),
    *map(c.c_int64, (3, 10, 3, 4)),
    tile,
)
print(*[x.hex() for x in tile])

depth, width = 30, 50
activation = Activation(size=c.sizeof(Activation), name=b"gelu")
# norm 2: layer norm
plan = Plan(size=c.sizeof(Plan), depth=depth, batch=1, seed=7, exponent=1, norm=2, distribution=b"uniform")
plan.activation = c.pointer(activation)
plan.widths = (c.c_int64 * (depth + 1))(*[width] * (depth + 1))
plan.scale = (c.c_double * depth)(*[math.sqrt(6 / (width + width))] * depth)
gradient = (c.c_double * depth)()
rows = Rows(size=c.sizeof(Rows), log10_grad_weight=gradient)
dense, float32, most = 0, 0, c.c_size_t()
call("pk_chain_bytes", c.byref(plan), dense, float32, None, c.byref(most))
workspace = c.create_string_buffer(most.value)
first, count = c.c_int64(0), c.c_int64(1)
call("pk_chain_run", c.byref(plan), dense, float32, first, count, c.byref(rows), workspace, most, None, None)
print(*[x.hex() for x in gradient])
