# SPDX-License-Identifier: BSD-3-Clause
"""A user's activation function as a C function over arrays: compiled where Numba can, else called in Python.

The C type is void (int64 what, int64 count, const double *z, double *out, double *sign), `what` as in `activate`.
"""

from __future__ import annotations

import ctypes
import functools

import numba
import numpy as np
from numba.core.errors import NumbaError
from numba.np.ufunc.dufunc import DUFunc

from pykernel.cfunctions import ARRAY, MOST_NOTED, CFunction, Elementwise, Failure
from pykernel.kernels import activate, jit
from pykernel.kernels.memory import pointer

_POINTER = ctypes.POINTER(ctypes.c_double)
_TYPE = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, _POINTER, _POINTER, _POINTER)
_SIGNATURE = "void(int64, int64, CPointer(float64), CPointer(float64), CPointer(float64))"


@jit
def note(address, z, count):
    """Keep the first arguments at which a user's function raised, in the numbers of a Failure."""
    numbers = numba.carray(pointer(address, 0.0), MOST_NOTED + 1)
    if numbers[0] == 0:
        count = min(count, MOST_NOTED)
        for i in range(count):
            numbers[1 + i] = z[i]
        numbers[0] = count


@functools.lru_cache(64)
def compiled(activation):
    """The C function of a user's row (`.address` goes to kernels) and the Failures of value and slope; None where Numba
    cannot compile them."""
    if activation.builtin:
        return None
    functions = (f.over_arrays() if isinstance(f, Elementwise) else f for f in (activation.value, activation.slope))
    try:
        value, slope = (f if numba.extending.is_jitted(f) else numba.njit(f) for f in functions)
    except TypeError:
        return None

    failures = Failure(), Failure()
    of_value, of_slope = (f.address for f in failures)

    def fill(what, count, z, out, sign):
        try:
            if what == activate.ASK_VALUE:
                numba.carray(out, count)[:] = value(numba.carray(z, count))
            else:
                numba.carray(out, count)[:] = slope(numba.carray(z, count))
        except Exception:
            note(of_value if what == activate.ASK_VALUE else of_slope, z, count)
            numba.carray(out, count)[:] = np.nan

    try:
        return numba.cfunc(_SIGNATURE)(fill), failures
    except (NumbaError, TypeError, NotImplementedError):
        return None


@functools.lru_cache(64)
def c_functions(activation):
    """(value, slope) of a user's row as CFunctions, for C++; None where Numba cannot compile what is none yet."""
    pair = [f if isinstance(f, CFunction) else _c_function(f) for f in (activation.value, activation.slope)]
    return None if None in pair else tuple(pair)


def _c_function(function):
    failure = Failure()
    noted = failure.address
    try:
        if isinstance(function, Elementwise):
            function = function.over_arrays()
        inner = (
            function if numba.extending.is_jitted(function) or isinstance(function, DUFunc) else numba.njit(function)
        )

        def fill(z, out, n, user):
            try:
                numba.carray(out, n)[:] = inner(numba.carray(z, n))
            except Exception:
                note(noted, z, n)
                numba.carray(out, n)[:] = np.nan

        compiled = numba.cfunc("void(CPointer(float64), CPointer(float64), int64, voidptr)")(fill)
        return CFunction(ARRAY(compiled.address), ARRAY, compiled, failure)
    except (NumbaError, TypeError, NotImplementedError):
        return None


class Row:
    """The addresses of a row, alive within a `with` block; `check` raises what a Python function raised."""

    def __init__(self, activation, plain_dtype):
        self._activation, self._plain = activation, plain_dtype
        self._error = None
        self._compiled = compiled(activation)
        self._function = _TYPE(self._fill)

    def __enter__(self):
        self.compiled, self._failures = (self._compiled[0].address, self._compiled[1]) if self._compiled else (0, ())
        for failure in self._failures:
            failure.forget()
        self.address = ctypes.cast(self._function, ctypes.c_void_p).value
        return self

    def __exit__(self, *error):
        self._function = None

    def check(self):
        """Raise the first exception of the row's own functions."""
        if self._error is not None:
            raise self._error
        for failure, what in zip(self._failures, ("value", "slope"), strict=False):
            failure.check(self._activation, what)

    def _fill(self, what, count, z, out, sign):
        z, out, sign = (np.ctypeslib.as_array(p, (count,)) for p in (z, out, sign))
        row = self._activation
        try:
            with np.errstate(all="ignore"):
                if what == activate.ASK_VALUE:
                    out[:] = row.evaluate("value", z)
                elif what == activate.ASK_SLOPE:
                    out[:] = row.evaluate("slope", z)
                elif what == activate.ASK_LOG2_VALUE:
                    sign[:], out[:] = row.evaluate("log2_value", z)
                elif what == activate.ASK_LOG2_SLOPE:
                    sign[:], out[:] = row.evaluate("log2_slope", z)
                elif what == activate.ASK_PLAIN_VALUE:
                    out[:] = row.evaluate("plain_value", z.astype(self._plain)).astype(self._plain)
                else:
                    out[:] = row.evaluate("plain_slope", z.astype(self._plain)).astype(self._plain)
        except Exception as error:
            self._error = self._error or error
            out[:] = np.nan
