# SPDX-License-Identifier: BSD-3-Clause
"""C functions as a user's own activation: pointers with a checked signature, callable on NumPy arrays.

Two signatures are known: `double f(double)`, and `void f(const double *z, double *out, int64_t n, void *user)` over
arrays.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from pykernel.dtypes import Floats

_POINTER = ctypes.POINTER(ctypes.c_double)
SCALAR = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)
ARRAY = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, ctypes.c_int64, ctypes.c_void_p)
_NUMBA = {
    "(float64,) -> float64": SCALAR,
    "(float64*, float64*, int64, void*) -> none": ARRAY,
}
MOST_NOTED = 1024
ALLOWED = "double (double) or void (const double *z, double *out, int64_t n, void *user)"


class Failure:
    """Where compiled code notes what a user's function was given when it raised, as an exception cannot leave it.

    Attributes:
        numbers: how many, then the arguments.  address: of these.
    """

    def __init__(self) -> None:
        self.numbers = np.zeros(1 + MOST_NOTED)
        self.address = self.numbers.ctypes.data

    def forget(self) -> None:
        self.numbers[0] = 0

    def check(self, activation: Any, what: str) -> None:
        """Raise what the function raised, by calling it once more in Python.

        Raises:
            RuntimeError: naming the activation and the function.
        """
        count = int(self.numbers[0])
        if count:
            activation.evaluate(what, self.numbers[1 : count + 1].copy())
            raise RuntimeError(
                f"activation {activation.name!r}: {what} raised in compiled code what it does not raise in Python"
            )


class CFunction:
    """A C function of one of the two signatures: called with a float64 array it gives an array, elementwise.

    Attributes:
        address: of the C function.  scalar: whether it is `double (double)`.  failure: of what we compiled, else None.
    """

    def __init__(self, function: Any, kind: Any, source: Any, failure: Failure | None = None) -> None:
        self.failure = failure
        self.address, self.scalar = ctypes.cast(function, ctypes.c_void_p).value, kind is SCALAR
        self._call, self._source = kind(self.address), source  # the source keeps the code alive
        self.__name__ = getattr(source, "__name__", "c_function")

    def __call__(self, z: Any) -> Floats:
        z = np.ascontiguousarray(z, dtype=np.float64)
        out = np.empty_like(z)
        if self.scalar:
            out.reshape(-1)[:] = [self._call(x) for x in z.reshape(-1).tolist()]
        else:
            self._call(z.ctypes.data_as(_POINTER), out.ctypes.data_as(_POINTER), z.size, None)
        return out

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CFunction) and self.address == other.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a C function pointer means nothing in another process: build the Activation there, or use Python or "
            "Numba functions"
        )


@dataclass(frozen=True)
class Elementwise:
    """A function of one number as a function of arrays."""

    function: Callable

    def __call__(self, z: Any) -> Floats:
        return np.array([self.function(x) for x in np.ravel(z).tolist()], dtype=np.float64).reshape(np.shape(z))

    @property
    def __name__(self) -> str:
        return getattr(self.function, "__name__", "custom")

    def over_arrays(self) -> Any:
        """The same for Numba: a jitted function of flat arrays."""
        import numba

        single = self.function if numba.extending.is_jitted(self.function) else numba.njit(self.function)

        def each(z: Floats) -> Floats:
            out = np.empty(len(z))
            for i in range(len(z)):
                out[i] = single(z[i])
            return out

        return numba.njit(each)


def wrap(function: Any, what: str) -> Any:
    """A CFunction for a ctypes function or a numba.cfunc; anything else as it is.

    Raises:
        TypeError: a C function of another signature.

    Examples:
        >>> import math
        >>> wrap(SCALAR(math.tanh), "value")(np.zeros(2))
        array([0., 0.])
    """
    if isinstance(function, ctypes._CFuncPtr):  # type: ignore[attr-defined]  # typeshed hides it
        for kind in (SCALAR, ARRAY):
            if tuple(function.argtypes or ()) == kind._argtypes_ and function.restype is kind._restype_:
                return CFunction(function, kind, function)
        given = f"{getattr(function.restype, '__name__', None)} {tuple(a.__name__ for a in function.argtypes or ())}"
    elif (numba := sys.modules.get("numba.core.ccallback")) and isinstance(function, numba.CFunc):
        given = str(function._sig)
        if given in _NUMBA:
            return CFunction(_NUMBA[given](function.address), _NUMBA[given], function)
    else:
        return function
    raise TypeError(
        f"activation {what} as a C function must be {ALLOWED}, got {given}; set argtypes and restype of a ctypes "
        "function"
    )
