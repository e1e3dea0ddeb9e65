# SPDX-License-Identifier: BSD-3-Clause
"""Convolutions of PyTorch, pools, and what makes units of positions, as steps of a block."""

from __future__ import annotations

import math

from pykernel.bridges.values import Source, Value
from pykernel.conv import Conv, Flatten, Pool
from pykernel.layers import Dropout, Norm, Scale
from pykernel.step import Step

NOTHING = object()
CONVS = {"Conv1d": 1, "Conv2d": 2}  # axes of positions
POOLS = {"MaxPool1d": ("max", 1), "MaxPool2d": ("max", 2), "AvgPool1d": ("mean", 1), "AvgPool2d": ("mean", 2)}
ADAPTIVE = {
    "AdaptiveAvgPool1d": ("mean", 1),
    "AdaptiveAvgPool2d": ("mean", 2),
    "AdaptiveMaxPool1d": ("max", 1),
    "AdaptiveMaxPool2d": ("max", 2),
}
SPATIAL = (*CONVS, *POOLS, *ADAPTIVE, "BatchNorm2d")  # a module with one of these reads (inputs, units, *positions)
FUNCTIONS = {"conv1d": "Conv1d", "conv2d": "Conv2d", "max_pool1d": "MaxPool1d", "max_pool2d": "MaxPool2d"}
FUNCTIONS |= {"avg_pool1d": "AvgPool1d", "avg_pool2d": "AvgPool2d"}
FUNCTIONS |= {f"adaptive_{word}_pool{n}d": f"Adaptive{word.title()}Pool{n}d" for word in ("avg", "max") for n in (1, 2)}
PADDINGS = {"zeros": "zero", "circular": "circular"}


def layer(kind, weight, bias, words, value, where) -> Value:
    """The value that a convolution gives.

    Args:
        words: stride, padding, dilation, groups, padding_mode, as of torch.nn.

    Raises:
        ValueError: a padding, dilation or order of steps that a chain has not.
    """
    axes = CONVS[kind]
    taps = tuple(int(n) for n in weight.shape[2:])
    groups, entering = int(words.get("groups", 1)), int(weight.shape[1]) * int(words.get("groups", 1))
    apart = tuple(_each(words.get("dilation", 1), axes))
    left = _axes_of(value, axes, where) if set(taps) != {1} or value.axes != 0 else 0
    if value.axes is None:
        _require_image(value, where)
    if value.units not in (None, entering):
        raise ValueError(f"{where} takes {entering} channels, but {value.maker} gives {value.units}")
    step = Conv(
        int(weight.shape[0]),
        taps,
        stride=_plain(words.get("stride", 1)),
        padding=_padding(taps, apart, words.get("padding", 0), words.get("padding_mode", "zeros"), where),
        groups=groups,
        dilation=_plain(words.get("dilation", 1)),
    )
    source = Source(where, weight, bias, (0, int(weight.shape[0])), groups)
    return Value(where, (value,), step, (source,), units=step.channels, maker=where, axes=left)


def _padding(taps, apart, padding, mode, where):
    """The word for a convolution's padding."""
    if mode not in PADDINGS:
        raise ValueError(f"{where} has padding_mode={mode!r}; a chain's convolution pads with zeros or circularly")
    centred = tuple(d * (k - 1) // 2 for k, d in zip(taps, apart, strict=True))
    if padding == "same" and any(d * (k - 1) % 2 for k, d in zip(taps, apart, strict=True)):
        raise ValueError(f"{where} has padding='same' and a kernel of {taps}, so more on one side than on the other")
    own = {"same": centred, "valid": (0,) * len(taps)}.get(padding) if isinstance(padding, str) else None
    own = _each(padding, len(taps)) if own is None else own
    if own == centred:
        return PADDINGS[mode] if any(centred) else "zero"
    if not any(own):
        return "valid"
    raise ValueError(
        f"{where} has padding {padding} and a kernel of {taps}; a chain's convolution pads dilation * "
        f"(kernel - 1) // 2, here {centred}, or nothing"
    )


def pool(kind, words, value, where) -> Value:
    """The value that a pool of windows gives; words as of torch.nn."""
    name, axes = POOLS[kind]
    size, padding = words["kernel_size"], _plain(words.get("padding", 0))
    stride = size if words.get("stride") in (None, []) else words["stride"]
    refused = {
        "dilation": any(n != 1 for n in _each(words.get("dilation", 1), axes)),
        "ceil_mode": bool(words.get("ceil_mode")),
        "return_indices": bool(words.get("return_indices")),
        "divisor_override": words.get("divisor_override") is not None,
        "count_include_pad": name == "mean" and not words.get("count_include_pad", True) and padding != 0,
    }
    for word, is_wrong in refused.items():
        if is_wrong:
            raise ValueError(f"{where} has {word}={words[word]}, which a chain's pool has not")
    size, stride = _plain(size), _plain(stride)
    step = Pool(name, size, stride=None if stride == size else stride, padding=padding)
    return Value(where, (value,), step, units=value.units, axes=_axes_of(value, axes, where))


def pool_of_all(kind, size, value, where, flattened) -> Value:
    """The value that an adaptive pool gives, of one position.

    Args:
        flattened: whether all that follows is flattened at once: then as many positions as `size` are what the layer
            behind takes, and at the size of input where there are so many already the pool does nothing.
    """
    name, axes = ADAPTIVE[kind]
    sizes = _each(size, axes)
    if set(sizes) == {1}:
        _axes_of(value, axes, where)
        return Value(where, (value,), Pool(name), units=value.units, axes=0)
    if not flattened or None in sizes or value.units is None:
        raise ValueError(
            f"{where} pools to {size} positions, by windows that depend on the input's size; a chain's pools are of a "
            "window, or of all positions to one"
        )
    return value


def call(name, args, given, where, flattened=False):
    """What a function or method makes of a value with positions; NOTHING where it is none of these.

    Args:
        args: all positional arguments, looked up; given: those behind the first, by name.

    Raises:
        ValueError: it takes positions apart, or mixes them with inputs or units.
    """
    value = args[0] if args else None
    if not isinstance(value, Value):
        return NOTHING
    kind = FUNCTIONS.get(name)
    if kind in CONVS:
        return layer(kind, given["weight"], given.get("bias"), given, value, where)
    if kind in POOLS:
        return pool(kind, given, value, where)
    if kind in ADAPTIVE:
        return pool_of_all(kind, given["output_size"], value, where, flattened)
    if not value.axes:
        return NOTHING
    if name in ("mean", "amax"):
        dims = given.get("dim")
        dims = (dims,) if isinstance(dims, int) else tuple(dims or ())
        if {d % (2 + value.axes) for d in dims} != set(range(2, 2 + value.axes)):
            raise ValueError(f"{where} is over axes {dims}; a chain pools over all positions, or windows of them")
        return Value(where, (value,), Pool("mean" if name == "mean" else "max"), units=value.units, axes=0)
    if name == "flatten":
        return flatten(value, given.get("start_dim", 0), given.get("end_dim", -1), where)
    if name in ("view", "reshape"):
        shape = args[1] if len(args) == 2 and isinstance(args[1], tuple | list) else args[1:]
        return flatten(value, 1 if len(shape) == 2 else 0 if tuple(shape) == (-1,) else 2, -1, where)
    if name in ("var", "pow", "square"):
        raise ValueError(f"{where} acts on positions, and is no norm that a chain knows there; BatchNorm is one")
    return NOTHING


def flatten(value, start, end, where) -> Value:
    """The value with all its positions as units."""
    if not value.axes:
        return value
    if start == 0 and value.units == 1:  # one number an input, where positions are one
        start = 1
    if start != 1 or end not in (-1, 1 + value.axes):
        raise ValueError(f"{where} lays axes together other than units and all positions; a chain flattens all of them")
    if value.units is None:
        raise ValueError(f"{where} flattens before any convolution says how many channels there are; give x flattened")
    return Value(where, (value,), Flatten(), axes=0)


def require_plain(value, where):
    """Refuse positions where a module acts on the last axis."""
    if isinstance(value, Value) and value.axes:
        raise ValueError(
            f"{where} acts on the last axis, which is one of positions behind {value.maker}; flatten or pool to one "
            "position before"
        )


def _axes_of(value, axes, where):
    if value.axes not in (None, axes):
        has = f"{value.axes} axes" if value.axes else "one position"
        raise ValueError(f"{where} looks at {axes} axes of positions, but what it acts on has {has}")
    return axes


def _require_image(value, where):
    """Refuse a convolution behind what reads (inputs, positions, units)."""
    while value.ins:
        is_layout = (
            value.sources or value.step == "half" or (isinstance(value.step, Norm) and value.step.kind != "batch")
        )
        if is_layout or (isinstance(value.step, Step) and not isinstance(value.step, Norm | Dropout | Scale)):
            raise ValueError(f"{where} is behind {value.where}, whose units it takes for positions")
        value = value.ins[0]


def _each(number, axes):
    """One number an axis."""
    numbers = tuple(number) if isinstance(number, tuple | list) else (number,)
    return numbers * axes if len(numbers) == 1 else numbers


def _plain(number):
    """One number where all axes have the same."""
    if not isinstance(number, tuple | list):
        return int(number)
    return int(number[0]) if len(set(number)) == 1 else tuple(map(int, number))


def fans(source) -> tuple[int, int]:
    """(fan_in, fan_out) of a layer, as its schemes count them."""
    rows, columns = source.sizes
    taps = math.prod(source.weight.shape[2:])
    return columns * taps // source.groups, rows * taps // source.groups
