# SPDX-License-Identifier: BSD-3-Clause
"""The one room of validation: each check returns the value in its plain form, or says what was given and what is
allowed."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from pykernel.dtypes import Floats


def integer(name: str, value: Any, low: int, high: int) -> int:
    """An int in [low, high]; NumPy integers count, booleans and floats do not."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, numbers.Integral, np.integer)):
        raise TypeError(f"{name} must be an int, got {value!r}")
    value = int(value)
    if not low <= value <= high:
        kind = "a positive int" if low == 1 and value < 1 else f"an int from {low} to {high}"
        raise ValueError(f"{name} must be {kind}, got {_said(value)}")
    return value


def _said(value: int) -> int | str:
    """An int as it prints; of one that would fill the screen (or that Python does not print) how long it is."""
    return value if abs(value) < 10**20 else f"an int of about {value.bit_length() * math.log10(2):.0f} digits"


def finite(name: str, value: Any) -> float:
    """A finite float; nan and inf are named."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (float, numbers.Real, np.floating)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    plain: Any = value
    try:
        number = float(plain)
    except OverflowError:
        raise ValueError(f"{name} must fit in a float64, got {_said(int(plain))}") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}")
    return number


def positive(name: str, value: Any) -> float:
    """A finite float above 0."""
    value = finite(name, value)
    if value <= 0:
        raise ValueError(f"{name} must be a positive number, got {value:g}")
    return value


def not_negative(name: str, value: Any) -> float:
    """A finite float, 0 or above."""
    value = finite(name, value)
    if value < 0:
        raise ValueError(f"{name} must be 0 or a positive number, got {value:g}")
    return value


def within(name: str, value: Any, low: float, high: float) -> float:
    """A float in [low, high]."""
    value = finite(name, value)
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low:g} to {high:g}, got {value:g}")
    return value


def fraction(name: str, value: Any) -> float:
    """A float in (0, 1]."""
    value = finite(name, value)
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, got {value:g}")
    return value


def choice(name: str, value: Any, known: Collection[str | None]) -> Any:
    """One of the known names (None among them where it is listed), or the nearest one as a hint."""
    if not isinstance(value, np.ndarray) and value in known:
        return value
    names = [k for k in known if isinstance(k, str)]
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    near = difflib.get_close_matches(str(value), names, 1, 0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}{hint}")


def known(where: str, words: Iterable[Any], allowed: Collection[Any]) -> None:
    """Refuse the first key that is not among the allowed ones, with the nearest as a hint."""
    for word in words:
        if word not in allowed:
            near = difflib.get_close_matches(str(word), [str(name) for name in allowed], 1, 0.5)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(f"unknown key {word!r} of {where}{hint}; allowed are {', '.join(map(str, allowed))}")


def floats(name: str, value: Any) -> Floats:
    """Real numbers as a float64 array of the shape that they have."""
    try:
        given = np.asarray(value)
    except ValueError:  # what NumPy says of lists of unequal lengths
        raise ValueError(f"{name} must be an array of numbers, got lists of unequal lengths") from None
    if np.iscomplexobj(given):
        raise TypeError(f"{name} must be real, got a complex array")
    try:
        if given.dtype.kind in "USmM":  # texts and times, which NumPy would read as numbers
            raise TypeError
        return given.astype(np.float64, copy=False)
    except OverflowError:
        raise ValueError(f"{name} must fit in float64, got an int beyond it") from None
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be an array of numbers, got {type(value).__name__}") from None


def array(name: str, value: Any, shape: Iterable[int]) -> Floats:
    """A finite float64 array of exactly this shape, contiguous."""
    out = np.ascontiguousarray(floats(name, value))
    shape = tuple(int(n) for n in shape)
    if out.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {out.shape}")
    if not np.isfinite(out).all():
        kind = "nan" if np.isnan(out).any() else "inf"
        raise ValueError(
            f"{name} must be finite, got {kind} at index {tuple(int(i) for i in np.argwhere(~np.isfinite(out))[0])}"
        )
    return out


def number_or_array(name: str, value: Any, none: bool = False) -> float | tuple | None:
    """A finite float, or an array of such in one or two dimensions as tuples; `none`: or None."""
    if value is None and none:
        return None
    value = value.detach().cpu() if hasattr(value, "detach") else value
    if isinstance(value, (numbers.Number, np.generic, str)) or not hasattr(value, "__len__"):
        return finite(name, value)
    value = floats(name, value)
    shape = value.shape
    if not shape:
        return finite(name, value[()])
    if len(shape) > 2 or 0 in shape:
        raise ValueError(f"{name} must be a number, one a unit, or (repetitions, units) numbers, got shape {shape}")
    out = array(name, value, shape).tolist()
    return tuple(tuple(row) for row in out) if len(shape) == 2 else tuple(out)


def iterable(value: Any) -> bool:
    """Whether something holds others, one after another; texts do not, nor arrays of no dimension."""
    return hasattr(value, "__iter__") and not isinstance(value, (str, bytes)) and getattr(value, "ndim", 1) != 0


def positions(given: Any) -> tuple[int, ...]:
    """The positions of one input as a tuple, an int an axis."""
    if isinstance(given, tuple) and not given:
        return ()
    axes = (given,) if isinstance(given, numbers.Integral) and not isinstance(given, bool) else given
    axes = axes.tolist() if isinstance(axes, np.ndarray) else axes
    if isinstance(axes, (str, bytes, bytearray)) or not isinstance(axes, Sequence):
        raise TypeError(f"positions must be an int or a sequence of one or two ints, got {given!r}")
    axes = tuple(integer("positions", t, 1, 2**31 - 1) for t in axes)
    if len(axes) > 2:
        raise ValueError(f"positions must have one or two axes, got {axes}")
    return axes


def spread(name: str, value: float | tuple, units: int, repetitions: int) -> list[tuple[float, ...]]:
    """What `number_or_array` gives as tuples of `units` floats, one for all repetitions or one for each."""
    if not isinstance(value, tuple):
        return [(value,) * units]
    rows = list(value) if isinstance(value[0], tuple) else [value]
    if len(rows) not in (1, repetitions):
        raise ValueError(
            f"{name} must have one row, or one for each of the {repetitions} repetitions, got {len(rows)} rows"
        )
    if len(rows[0]) not in (1, units):
        raise ValueError(f"{name} must be a number or one for each of the {units} units, got {len(rows[0])}")
    return [row * units if len(row) == 1 else row for row in rows]
