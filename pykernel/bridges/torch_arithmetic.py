# SPDX-License-Identifier: BSD-3-Clause
"""What arithmetic on values of a PyTorch module is in a chain: factors, arrays of a norm, dropout, gates."""

from __future__ import annotations

from dataclasses import replace

from pykernel import activations
from pykernel.activation import Activation
from pykernel.bridges import torch_kinds as kinds
from pykernel.bridges.values import Value
from pykernel.layers import Dropout, Gated, Linear, Norm, Scale


def is_own(own, value):
    """Whether `own` is an array of the module's with one number for each unit of a value."""
    return (
        isinstance(value, Value) and not value.axes and getattr(own, "ndim", 0) == 1 and value.units in (None, len(own))
    )


def scaled(value, factor, where):
    """A factor, none where it is 1."""
    return value if factor == 1.0 else value.then(Scale(factor), where)


def scaled_by_unit(value, own, where):
    """A norm's weight, or a factor for each unit."""
    numbers = kinds.plainest(own, 1.0, where)
    if isinstance(value.step, Norm) and not value.step.is_affine:
        return replace(value, step=replace(value.step, weight=numbers))
    return value if numbers is None else value.then(Scale(numbers), where)


def shifted(value, own, where):
    """A norm or a layer with a bias behind it."""
    if isinstance(value.step, Norm) and value.step.bias is None:
        return replace(value, step=replace(value.step, bias=kinds.plainest(own, 0.0, where)))
    if isinstance(value.step, Linear) and value.sources[0].bias is None:
        return replace(value, sources=(value.sources[0]._replace(bias=own),))
    raise ValueError(
        f"{where} adds an array of its own to what is no output of a norm or a Linear without a bias; a chain has "
        "biases there only"
    )


def gate(left, right, where):
    """phi(G u) * (V u), either way round; or u * sigmoid(u), which is SiLU."""
    for u, other in ((left, right), (right, left)):
        if other.step == activations.get("sigmoid") and other.ins[0] is u:
            return u.then(activations.get("silu"), where)
    sides = [(side.ins[0], side.step) if isinstance(side.step, Activation) else (side, None) for side in (left, right)]
    sides.sort(key=lambda side: side[1] is None)
    (gated, phi), (other, second) = sides
    if second is None:
        fused = gated.step == other.step == "half" and gated.ins[0] is other.ins[0] and gated.half != other.half
        apart = (
            isinstance(gated.step, Linear)
            and isinstance(other.step, Linear)
            and gated.ins[0] is other.ins[0]
            and gated is not other
        )
        if fused or apart:
            sources = [_half(side) if fused else side.sources[0] for side in (gated, other)]
            u = gated.ins[0].ins[0] if fused else gated.ins[0]
            step = Gated(sources[0].sizes[0], "linear" if phi is None else phi)
            return Value(where, (u,), step, tuple(sources), units=sources[0].sizes[0], maker=where)
    raise ValueError(
        f"{where} multiplies two values that form no gate: a chain multiplies an activation of one Linear by "
        "another Linear of the same input, or a value by a number"
    )


def glu(value, dim, where):
    """One half of a fused layer times the sigmoid of the other."""
    first, second = halves(value, 2, dim, "chunk", where)
    return gate(first, second.then(activations.get("sigmoid"), where), where)


def halves(value, size, dim, name, where):
    """The two halves of a fused layer's units, as `chunk` and `split` give them."""
    if not isinstance(value.step, Linear):
        raise ValueError(
            f"{where} takes something apart that is no output of a Linear; a chain reads halves of a fused "
            "Linear as a gate"
        )
    units = value.units
    size = list(size) if isinstance(size, (list, tuple)) else size
    in_halves = size == 2 if name == "chunk" else size in (units // 2, [units // 2] * 2)
    if dim not in (-1, 1) or not in_halves or units % 2:
        raise ValueError(
            f"{where} takes {units} units apart, but not into halves of the last axis; a gate has two halves"
        )
    return tuple(Value(where, (value,), "half", units=units // 2, half=half) for half in (0, 1))


def _half(value):
    """The rows of a fused layer that make one half."""
    whole = value.ins[0].sources[0]
    rows = whole.sizes[0] // 2
    return whole._replace(rows=(value.half * rows, (value.half + 1) * rows))


def dropout(value, p, where, plain):
    """Dropout entry by entry, none where p is 0."""
    if p and not plain:
        raise ValueError(
            f"{where} drops by another rule than Dropout, entry by entry; call .eval() on it to read the network "
            "without"
        )
    if p == 1:
        raise ValueError(f"{where} drops everything; a chain needs a p below 1")
    return value.then(Dropout(p), where) if p else value
