# SPDX-License-Identifier: BSD-3-Clause
"""An activation function: value, derivative and the facts that engines and theory need, checked and measured where a
user brings it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pykernel import cfunctions, checks
from pykernel.dtypes import Floats

FUNCTIONS = ("value", "slope", "plain_value", "plain_slope", "log2_value", "log2_slope")


@dataclass(frozen=True, eq=False)
class Activation:
    """An elementwise activation function with its derivative.

    Args:
        value: function of a float64 array of any shape, elementwise: plain Python, `@njit`, or a C function (a
            `numba.cfunc` or a ctypes function) `double (double)` or `void (const double *z, double *out, int64_t n,
            void *user)`. One that takes single numbers only is applied to each entry.
        slope: its derivative, likewise. At a kink it gives one of the two sides.
        name: how tables and labels call it; by default the name of `value`.
        parameters: the numbers that tell this function from others of its name.
        kinks: points where the function or its derivative jumps.
        left, right: derivative at minus and plus infinity.
        before_zero, after_zero: derivative at 0 from below and from above.
        at_zero: value at 0.
        max_slope: largest magnitude of the derivative.
        flat: whether the derivative is exactly zero on some interval (then units can be dead).
        plain_value, plain_slope: the textbook formulas, as plain arithmetic evaluates them (by default `value` and
            `slope`).
        log2_value, log2_slope: functions that return (sign, log2 of the magnitude), finite where the plain result
            underflows.

    Numbers that are not given are measured from the functions.

    Notes:
        Beyond 2^60 a function is continued by its slopes at infinity, so that magnitudes can leave float range. A
        function that grows faster than linearly has none: `propagate` warns when its arguments come near, and
        precision="native" shows plain arithmetic.

    Raises:
        TypeError: `value` or `slope` is not callable, or a C function of another signature.
        ValueError: they fail, change their argument, do not work elementwise,
            or `slope` is not the derivative of `value`: says at which point they differ.

    Examples:
        >>> import numpy as np
        >>> square = Activation(value=lambda z: z * z / 4, slope=lambda z: z / 2, name="quarter square")
        >>> float(square.value(np.array([2.0]))[0])
        1.0
    """

    value: Callable
    slope: Callable
    name: str = ""
    parameters: tuple = ()
    kinks: tuple = ()
    left: float = None  # type: ignore[assignment]  # a number once made
    right: float = None  # type: ignore[assignment]  # a number once made
    before_zero: float = None  # type: ignore[assignment]  # a number once made
    after_zero: float = None  # type: ignore[assignment]  # a number once made
    at_zero: float = None  # type: ignore[assignment]  # a number once made
    max_slope: float = None  # type: ignore[assignment]  # a number once made
    flat: bool = True
    plain_value: Callable | None = field(default=None, repr=False)
    plain_slope: Callable | None = field(default=None, repr=False)
    log2_value: Callable | None = field(default=None, repr=False)
    log2_slope: Callable | None = field(default=None, repr=False)
    builtin: ClassVar[bool] = False  # of `activations.BuiltIn`: a row of the table, known by name in every backend

    def __post_init__(self) -> None:
        for key in ("value", "slope"):
            self._complete(key, cfunctions.wrap(getattr(self, key), key))
            if not callable(getattr(self, key)):
                raise TypeError(f"activation {key} must be a function of an array, got {getattr(self, key)!r}")
            self._complete(key, _of_arrays(key, getattr(self, key)))
        self._check_facts()
        self._complete("name", self.name or getattr(self.value, "__name__", "custom"))
        self._complete("parameters", tuple(float(p) for p in self.parameters))
        self._complete("kinks", tuple(sorted(float(k) for k in self.kinks)))
        self._complete("plain_value", self.plain_value or self.value)
        self._complete("plain_slope", self.plain_slope or self.slope)
        _check_slope(self)
        self._measure()

    def _complete(self, key: str, value: Any) -> None:
        object.__setattr__(self, key, value)

    def _check_facts(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"activation name must be a text, got {self.name!r}")
        for key in ("left", "right", "before_zero", "after_zero", "at_zero", "max_slope"):
            if getattr(self, key) is not None:
                check = checks.not_negative if key == "max_slope" else checks.finite
                self._complete(key, check(f"activation {key}", getattr(self, key)))
        for key in FUNCTIONS[2:]:
            if getattr(self, key) is not None and not callable(getattr(self, key)):
                raise TypeError(f"activation {key} must be a function of an array or None, got {getattr(self, key)!r}")

    def evaluate(self, key: str, z: np.ndarray) -> Any:
        """One of its functions at an array; what a user's own does wrong is told under its name.

        Raises:
            RuntimeError: the function raised, with its error as the cause.
            ValueError: its answer has another shape than the array.
        """
        try:
            answer = getattr(self, key)(z)
        except Exception as error:
            raise RuntimeError(f"activation {self.name!r}: {key} raised {type(error).__name__}: {error}") from error
        if not key.startswith("log2") and np.shape(answer) != np.shape(z):
            raise ValueError(
                f"activation {self.name!r}: {key} must return the shape it is given, {np.shape(z)}, got "
                f"{np.shape(answer)}"
            )
        return answer

    def limits(self, key: str) -> Floats:
        """What "value" or "slope" tends to at -inf and at inf; nan where it tends to nothing, as that of a sine.

        Where `left` and `right` do not say it: the formula at infinity, or, where that is nan for the way it is
        written (inf times 0), the numbers at 2^500 and at 2^1000 if they agree.
        """
        slopes = np.array([self.left, self.right], dtype=np.float64)
        if key == "slope" and slopes.any():
            return slopes
        ends = np.array([-np.inf, np.inf])
        with np.errstate(all="ignore"):
            z = np.concatenate([ends, ends.clip(-(2.0**1000), 2.0**1000), ends.clip(-(2.0**500), 2.0**500)])
            at, far, near = np.asarray(self.evaluate(key, z), dtype=np.float64).reshape(3, 2)
            agreed = np.where(np.abs(far - near) <= 1e-6 * np.maximum(np.abs(far), 1), far, np.nan)
            told = np.where(np.isnan(at), agreed, at)
            return np.where(slopes != 0, slopes * ends, told) if key == "value" else told

    @property
    def is_superlinear(self) -> bool:
        """Whether the function still bends far away, so that its slopes at infinity do not continue it."""
        with np.errstate(all="ignore"):
            near, far = (np.abs(np.asarray(self.slope(np.array([-z, z])), dtype=np.float64)) for z in (1e6, 1e9))
        return bool((far > 1.05 * near + 1e-9).any())

    def _measure(self) -> None:
        slope = lambda *z: np.asarray(self.evaluate("slope", np.array(z)), dtype=np.float64)
        with np.errstate(all="ignore"):
            left, right = slope(-1e6, 1e6)
            before, after = slope(-1e-30, 1e-30)
            top = np.abs(slope(*np.linspace(-40, 40, 16001))).max()
            zero = np.asarray(self.evaluate("value", np.zeros(1)), dtype=np.float64)[0]
        measured = {
            "left": left,
            "right": right,
            "before_zero": before,
            "after_zero": after,
            "max_slope": top,
            "at_zero": zero,
        }
        for key, number in measured.items():
            if getattr(self, key) is None:
                if not np.isfinite(number):
                    raise ValueError(f"activation {self.name!r}: {key} came out as {number}; give it as an argument")
                self._complete(key, float(number))

    @property
    def key(self) -> tuple:
        """What makes two activation functions the same: all that is given or measured."""
        return tuple(vars(self).values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Activation) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"<Activation {self}>"

    def __str__(self) -> str:
        return self.name + (f"({', '.join(f'{p:g}' for p in self.parameters)})" if self.parameters else "")


def _of_arrays(key: str, function: Callable) -> Callable:
    """The function as one of arrays: itself, or applied to each entry where it takes single numbers only."""
    if isinstance(function, (cfunctions.CFunction, cfunctions.Elementwise)):
        return function
    z = np.array([-1.5, -0.4, 0.3, 1.2, 2.7])
    before = z.copy()
    try:
        with np.errstate(all="ignore"):
            function(z)
    except Exception as error:
        try:
            single = [float(function(x)) for x in before.tolist()]
        except Exception:
            reason = str(error).strip().splitlines()
            raise ValueError(
                f"activation {key} fails for a float64 array: {type(error).__name__}: "
                f"{reason[0] if reason else 'no message'}"
            ) from error
        del single
        return cfunctions.Elementwise(function)
    if not np.array_equal(z, before):
        raise ValueError(f"activation {key} changes the array it is given; let it work on a copy")
    return function


def _check_slope(row: Activation) -> None:
    """Refuse a derivative that central differences contradict, with the point where it differs most."""
    z = np.concatenate([np.linspace(-6, 6, 241) + 0.0123, [-30.0, 30.0]])
    h = 1e-5 * np.maximum(1, np.abs(z))
    for kink in row.kinks:
        z, h = z[np.abs(z - kink) > 1e-3], h[np.abs(z - kink) > 1e-3]
    with np.errstate(all="ignore"):
        value, slope = (np.asarray(f(z)) for f in (row.value, row.slope))
        if np.iscomplexobj(value) or np.iscomplexobj(slope):
            raise TypeError(f"activation {row.name!r}: value and slope must return real numbers, got complex ones")
        for name, answer in (("value", value), ("slope", slope)):
            if answer.dtype.kind == "f" and answer.dtype.itemsize < 8:
                raise TypeError(
                    f"activation {row.name!r}: {name} must keep the float64 it is given, got {answer.dtype}"
                )
        value, slope = value.astype(np.float64), slope.astype(np.float64)
        if value.shape != z.shape or slope.shape != z.shape:
            raise ValueError(
                f"activation {row.name!r}: value and slope must return arrays of the shape they are given, {z.shape}, "
                f"got {value.shape} and {slope.shape}"
            )
        if not np.isfinite(value).all():
            at = z[~np.isfinite(value)][0]
            raise ValueError(f"activation {row.name!r}: value({at:g}) is not finite")
        difference = (
            np.asarray(row.value(z + h), dtype=np.float64) - np.asarray(row.value(z - h), dtype=np.float64)
        ) / (2 * h)
        # Central differences err by h^2 phi''' / 6 + eps |phi| / h: 1e-4 leaves room for both in any smooth function of
        # scale one.
        wrong = np.abs(difference - slope) > 1e-4 * (1 + np.abs(slope) + np.abs(value))
    if wrong.any() or not np.isfinite(slope).all():
        i = np.argmax(np.where(np.isfinite(slope), np.abs(difference - slope), np.inf))
        raise ValueError(
            f"activation {row.name!r}: slope is not the derivative of value: at z = {z[i]:.4g} slope gives "
            f"{slope[i]:.6g}, "
            f"differences give {difference[i]:.6g} (points where the derivative jumps belong in kinks=)"
        )
