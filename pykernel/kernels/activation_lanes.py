# SPDX-License-Identifier: BSD-3-Clause
"""The built-in activation functions in lanes of float64: `pykernel.activations`, fast; a user's row is called back.

Accuracy: a few units in the last place; `tests/engines/test_numba.py` holds every row here to the table of
`pykernel.activations`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from pykernel.activations import GELU_CUBIC, SELU_ALPHA, SELU_LAMBDA
from pykernel.kernels import address_of, inline, jit
from pykernel.kernels.lanes import absolute, fma, greater, larger, less, spread, where
from pykernel.kernels.maths import arctan, cos, erf, erfc, exp_of_minus, expm1_of_minus, log1p, sigmoids, sin
from pykernel.kernels.memory import load, store

# PIECEWISE covers every function that is linear on each side of zero; OTHER every function that is not in this file.
OTHER, PIECEWISE = -1, 0


class Row(NamedTuple):
    """A function in lanes: phi and phi' of (parameter, z)."""

    value: Callable
    slope: Callable


_ROOT_2_OVER_PI = math.sqrt(2 / math.pi)
_ERF_SLOPE_0 = 2 / math.sqrt(math.pi)
_DENSITY_0 = 1 / math.sqrt(2 * math.pi)


@inline
def _sigmoid(_, z):
    up, _ = sigmoids(z)
    return up


@inline
def _sigmoid_slope(_, z):
    up, down = sigmoids(z)
    return up * down


@inline
def _tanh(_, z):
    m = expm1_of_minus(absolute(z) * 2.0)
    t = (spread(0.0) - m) / (m + 2.0)
    return where(less(z, spread(0.0)), spread(0.0) - t, t)


@inline
def _tanh_slope(_, z):
    e = exp_of_minus(absolute(z) * 2.0)
    over = spread(1.0) / (e + 1.0)
    return e * 4.0 * over * over


@inline
def _below_zero(z):
    """-min(z, 0), nan of nan."""
    return where(greater(z, spread(0.0)), spread(0.0), spread(0.0) - z)


@inline
def _elu(a, z):
    return where(greater(z, spread(0.0)), z, expm1_of_minus(_below_zero(z)) * a)


@inline
def _elu_slope(a, z):
    return where(greater(z, spread(0.0)), spread(1.0), exp_of_minus(_below_zero(z)) * a)


@inline
def _selu(_, z):
    return _elu(SELU_ALPHA, z) * SELU_LAMBDA


@inline
def _selu_slope(_, z):
    return _elu_slope(SELU_ALPHA, z) * SELU_LAMBDA


@inline
def _half_tail(z):
    """The probability that a normal is below z."""
    return erfc((spread(0.0) - z) * math.sqrt(0.5)) * 0.5


@inline
def _gelu(_, z):
    return z * erfc((spread(0.0) - z) * math.sqrt(0.5)) * 0.5


@inline
def _gelu_slope(_, z):
    return z * exp_of_minus(z * z * 0.5) * _DENSITY_0 + _half_tail(z)


@inline
def _gelu_argument(z):
    square = z * z
    factor = 2 * _ROOT_2_OVER_PI
    return fma(z * square, spread(GELU_CUBIC), z) * factor, fma(square, spread(3 * GELU_CUBIC), spread(1.0)) * factor


@inline
def _gelu_tanh(_, z):
    y, _ = _gelu_argument(z)
    up, _ = sigmoids(y)
    return z * up


@inline
def _gelu_tanh_slope(_, z):
    y, dy = _gelu_argument(z)
    up, down = sigmoids(y)
    inside = where(less(absolute(z), spread(1e3)), z * dy, spread(0.0))
    return up * fma(inside, down, spread(1.0))


@inline
def _silu(_, z):
    up, _ = sigmoids(z)
    return z * up


@inline
def _silu_slope(_, z):
    up, down = sigmoids(z)
    return up * fma(z, down, spread(1.0))


@inline
def _softplus(_, z):
    return larger(z, spread(0.0)) + log1p(exp_of_minus(absolute(z)))


@inline
def _mish_gate(z):
    e = exp_of_minus(absolute(z))
    negative = less(z, spread(0.0))
    n = where(negative, e * (e + 2.0), e * 2.0 + 1.0)
    d = n + where(negative, spread(2.0), e * e * 2.0)
    return n / d, (d - n) * (d + n) / (d * d)


@inline
def _mish(_, z):
    gate, _ = _mish_gate(z)
    return z * gate


@inline
def _mish_slope(_, z):
    gate, rest = _mish_gate(z)
    up, _ = sigmoids(z)
    return fma(z * rest, up, gate)


@inline
def _hardtanh(_, z):
    return where(greater(z, spread(1.0)), spread(1.0), where(less(z, spread(-1.0)), spread(-1.0), z))


@inline
def _hardtanh_slope(_, z):
    return where(less(absolute(z), spread(1.0)), spread(1.0), spread(0.0))


@inline
def _softsign(_, z):
    return z / (absolute(z) + 1.0)


@inline
def _softsign_slope(_, z):
    over = spread(1.0) / (absolute(z) + 1.0)
    return over * over


@inline
def _erf_value(_, z):
    return erf(z)


@inline
def _erf_slope(_, z):
    return exp_of_minus(z * z) * _ERF_SLOPE_0


@inline
def _arctan_value(_, z):
    return arctan(z)


@inline
def _arctan_slope(_, z):
    return spread(1.0) / fma(z, z, spread(1.0))


@inline
def _sin_value(_, z):
    return sin(z)


@inline
def _sin_slope(_, z):
    return cos(z)


ROWS = {
    "sigmoid": Row(_sigmoid, _sigmoid_slope),
    "tanh": Row(_tanh, _tanh_slope),
    "elu": Row(_elu, _elu_slope),
    "selu": Row(_selu, _selu_slope),
    "gelu": Row(_gelu, _gelu_slope),
    "gelu_tanh": Row(_gelu_tanh, _gelu_tanh_slope),
    "silu": Row(_silu, _silu_slope),
    "softplus": Row(_softplus, _sigmoid),
    "mish": Row(_mish, _mish_slope),
    "hardtanh": Row(_hardtanh, _hardtanh_slope),
    "softsign": Row(_softsign, _softsign_slope),
    "erf": Row(_erf_value, _erf_slope),
    "arctan": Row(_arctan_value, _arctan_slope),
    "sin": Row(_sin_value, _sin_slope),
}
NAMES = ("piecewise", *ROWS)
ELU = NAMES.index("elu")


def _of_row(column):
    """An intrinsic (row, parameter, z): the table's function, known where the row is a literal, else by a switch."""

    def impl_of(typingctx, function, lanes):
        kind = numba.typeof(function)
        return kind, kind.get_call_type(typingctx, (types.float64, lanes), {})

    @intrinsic(prefer_literal=True)
    def evaluate(typingctx, row, parameter, z):
        if not isinstance(row, types.Integer | types.IntegerLiteral):
            return None
        numbers = (row.literal_value,) if isinstance(row, types.IntegerLiteral) else range(1, len(NAMES))
        functions = {n: impl_of(typingctx, getattr(ROWS[NAMES[n]], column), z) for n in numbers}

        def call(context, builder, number, args):
            kind, sig = functions[number]
            function = context.get_function(kind, sig)
            for library in getattr(function, "libs", ()):
                context.active_code_library.add_linking_library(library)
            return function(builder, args)

        def codegen(context, builder, sig, args):
            if len(functions) == 1:
                return call(context, builder, numbers[0], args[1:])
            end = builder.append_basic_block("row.end")
            switch = builder.switch(args[0], end)
            here = builder.block
            incoming = [(args[2], here)]
            for n in functions:
                case = builder.append_basic_block(f"row.{NAMES[n]}")
                switch.add_case(n, case)
                builder.position_at_end(case)
                incoming.append((call(context, builder, n, args[1:]), builder.block))
                builder.branch(end)
            builder.position_at_end(end)
            phi = builder.phi(args[2].type)
            for value, block in incoming:
                phi.add_incoming(value, block)
            return phi

        return z(row, types.float64, z), codegen

    return evaluate


_value, _slope = _of_row("value"), _of_row("slope")


@jit
def values(row, parameter, z, out, count):
    """out = phi(z) for `count` (a multiple of 16) float64 numbers; row is a number of this file above PIECEWISE."""
    for i in range(0, count, 16):
        store(out, i, _value(row, parameter, load(z, i)))


@jit
def slopes(row, parameter, z, out, count):
    """out = phi'(z), as `values`."""
    for i in range(0, count, 16):
        store(out, i, _slope(row, parameter, load(z, i)))


def addresses(row):
    """Addresses of `values` and `slopes` compiled for one row, for `calls.call_row`."""
    numbers = types.CPointer(types.float64)
    return [address_of(f, (types.literal(row), types.float64, numbers, numbers, types.int64)) for f in (values, slopes)]


def number(activation):
    """The row number of an Activation and its one parameter, OTHER where this file has no formula for it."""
    linear_sides = (
        activation.at_zero == 0
        and activation.left == activation.before_zero
        and activation.right == activation.after_zero
    )
    if activation.builtin and activation.name in ("linear", "relu", "leaky_relu") and linear_sides:
        return PIECEWISE, 0.0
    if activation.builtin and activation.name in ROWS:
        return NAMES.index(activation.name), float(activation.parameters[0]) if activation.parameters else 0.0
    return OTHER, 0.0


def slope_at_zero(activation):
    """phi'(0) as the row gives it: one of the two sides at a kink."""
    return float(np.asarray(activation.slope(np.zeros(1)))[0])
