# SPDX-License-Identifier: BSD-3-Clause
"""Norms written by hand, x * rsqrt(mean(x**2) + eps) and (x - mean) / sqrt(var + eps), put together again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pykernel.bridges.torch_kinds import norm, plainest
from pykernel.bridges.values import Value

NOTHING = object()
CASTS = ("float", "double", "to", "type_as", "contiguous", "clone")


@dataclass(frozen=True)
class Part:
    """What a value becomes on its way into a norm.

    Attributes:
        of: the value.
        what: "square", "mean", "rest" (value - mean), "moment" (mean of the square), "root" of it, "factor": 1 / root.
        centred: whether it was the rest that was squared.
        eps: what was added to the moment.
        weight: of a rest that was multiplied by an array, that.
    """

    of: Value
    what: str
    centred: bool = False
    eps: float = 0.0
    weight: Any = None

    def __str__(self):
        return {
            "square": "a square",
            "mean": "a mean over units",
            "rest": "a difference from the mean",
            "moment": "a mean square or variance",
        }.get(self.what, "the root of a mean square")


def call(name, args, given, where):
    """What a function of values and Parts gives: a Part, the Value of a norm, or NOTHING where no norm is made.

    Args:
        args: all positional arguments, looked up; given: those behind the first, by name.
    """
    first, second = args[0] if args else None, args[1] if len(args) > 1 else given.get("other")
    if not isinstance(first, (Value, Part)) and not isinstance(second, (Value, Part)):
        return NOTHING
    if isinstance(first, Part) and name in CASTS:
        return first
    if name in ("mul", "truediv", "div"):
        return _product(name, first, second, where)
    if name == "pow":
        return _power(first, given.get("exponent", second))
    if name in ("square", "sqrt", "rsqrt"):
        return _power(first, {"square": 2, "sqrt": 0.5, "rsqrt": -0.5}[name])
    if name in ("mean", "var"):
        return _moment(name, first, given, where)
    if name == "sub" and isinstance(second, Part) and second.what == "mean" and second.of is first:
        return Part(first, "rest")
    if name == "add":
        for part, eps in ((first, second), (second, first)):
            if isinstance(part, Part) and part.what == "moment" and isinstance(eps, (int, float)):
                return replace(part, eps=part.eps + float(eps))
    return NOTHING


def _power(base, exponent):
    if isinstance(base, Value) and exponent == 2:
        return Part(base, "square")
    if isinstance(base, Part):
        then = {("rest", 2): "square", ("moment", 0.5): "root", ("moment", -0.5): "factor"}.get((base.what, exponent))
        if then is not None:
            return replace(base, what=then, centred=base.centred or base.what == "rest")
    return NOTHING


def _moment(name, base, given, where):
    """Means over the units, which must stay as an axis of one."""
    over = given.get("dim") in (-1, (-1,), [-1]) and given.get("keepdim") is True
    if isinstance(base, Part) and base.what == "square" and name == "mean" and over:
        return replace(base, what="moment")
    if not isinstance(base, Value) or not over:
        return NOTHING
    if name == "mean":
        return Part(base, "mean")
    if given.get("unbiased", True) and given.get("correction", 1) != 0:
        raise ValueError(f"{where} divides by one unit less than there are; a chain's norms divide by all of them")
    return Part(base, "moment", centred=True)


def _product(name, first, second, where):
    if first is second and name == "mul":
        return _power(first, 2)
    if name != "mul":
        if isinstance(first, (int, float)) and first == 1 and isinstance(second, Part) and second.what == "root":
            return replace(second, what="factor")
        pairs, needed = [(first, second)], "root"
    else:
        pairs, needed = [(first, second), (second, first)], "factor"
    for base, by in pairs:
        if isinstance(by, Part) and by.what == needed and _belongs(base, by):
            return _normed(by, base.weight if by.centred else None, where)
        if isinstance(base, Part) and base.what == "rest" and base.weight is None and getattr(by, "ndim", 0) == 1:
            return replace(base, weight=by)
    return NOTHING


def _belongs(base, by):
    """Whether a root or factor divides what its moment was taken of."""
    if by.centred:
        return isinstance(base, Part) and base.what == "rest" and base.of is by.of
    return base is by.of


def _normed(part, weight, where):
    """The value of the norm whose root or factor a Part is."""
    units = part.of.units
    step = norm("layer" if part.centred else "rms", (units,), (None, None), part.eps, where, units)
    if weight is not None:
        step = replace(step, weight=plainest(weight, 1.0, where))
    return Value(where, (part.of,), step, units=units)
