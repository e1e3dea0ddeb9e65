# SPDX-License-Identifier: BSD-3-Clause
"""The steps that look at windows of positions: convolution, pooling, flattening."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pykernel import checks
from pykernel.step import MAX_WIDTH, Step, Weighted, Writer, set_fields
from pykernel.window import Window

PADDINGS = ("zero", "circular", "valid")
POOLS = ("mean", "max")


@dataclass(frozen=True, repr=False)
class Conv(Weighted):
    """A convolution over one or two axes of positions, z = W u + b at every position, u the patch of positions around
    it.

    Args:
        channels: units that come out, rows of W; None for as many as come in.
        kernel: positions that a patch has along every axis, or one number an axis.
        stride: positions from one patch to the next, likewise.
        padding: "zero" or "circular" for dilation * (kernel - 1) // 2 positions beyond each edge, "valid" for none.
        groups: parts that units are cut into, each seeing its own only; as many as units come in is depthwise.
        dilation: positions from one of a patch to the next, along every axis, or one number an axis.
        init, gain, bias_std: as for `Linear`; fan_in = units in / groups * positions of a patch, fan_out likewise.

    Raises:
        ValueError, TypeError: numbers that are no positive ints, more than two axes, an unknown padding or init.

    Notes:
        As in PyTorch cross-correlation; W is (channels, units in / groups, ...kernel). (positions + 2 padding -
        dilation (kernel - 1) - 1) // stride + 1 positions come out.

    Examples:
        >>> print(Conv(64), "and", Conv(64, 3, stride=2, groups=64))
        conv 64 (3) and conv 64 (3, stride 2, 64 groups)
    """

    brackets, is_spatial = 2, True
    channels: int | None = None
    kernel: Any = 3
    stride: Any = 1
    padding: str = "zero"
    groups: int = 1
    init: Any = None
    gain: float = 1.0
    bias_std: float | None = None
    dilation: Any = 1

    def __post_init__(self) -> None:
        if self.channels is not None:
            set_fields(self, channels=checks.integer("conv channels", self.channels, 1, MAX_WIDTH))
        set_fields(
            self,
            kernel=_each_axis("conv kernel", self.kernel),
            stride=_each_axis("conv stride", self.stride),
            dilation=_each_axis("conv dilation", self.dilation),
            groups=checks.integer("conv groups", self.groups, 1, MAX_WIDTH),
        )
        checks.choice("conv padding", self.padding, PADDINGS)
        if self.channels is not None and self.channels % self.groups:
            raise ValueError(f"conv groups must divide channels, got {self.groups} and {self.channels}")
        self._check_draw("conv")

    def lower(self, pattern: Writer, cur: int, held: bool, busy: tuple[int, ...]) -> int:
        """What each patch sees, and a layer on it."""
        if pattern.width % self.groups:
            raise ValueError(f"conv groups must divide the units that come in, got {self.groups} for {pattern.width}")
        units = pattern.width if self.channels is None else self.channels
        if units % self.groups:
            raise ValueError(f"conv groups must divide channels, got {self.groups} and {units}")
        taps, words = self.taps(pattern.field_of(self)), pattern.words(self)
        if words[0].distribution == "identity" and math.prod(taps) > 1:
            raise ValueError(
                f"init {words[0]} says nothing of a convolution of several taps; use kernel=1, or weights="
            )
        cur = _patches(self, pattern, cur, held, busy)
        return pattern.linear(cur, held, units, *words, pattern.fixup, busy, taps=taps, groups=self.groups)

    def taps(self, positions: tuple[int, ...]) -> tuple[int, ...]:
        """Positions of a patch along each axis of an input."""
        return _of_axes("conv kernel", self.kernel, positions)

    def window(self, positions: tuple[int, ...]) -> Window:
        """Its patches over an input's positions.

        Raises:
            ValueError: positions of another number of axes, or too few for one patch.
        """
        taps, apart = self.taps(positions), _of_axes("conv dilation", self.dilation, positions)
        both = zip(taps, apart, strict=True)
        padding = tuple(0 if self.padding == "valid" else d * (k - 1) // 2 for k, d in both)
        stride = _of_axes("conv stride", self.stride, positions)
        window = _window("conv", positions, taps, stride, padding, apart)
        return window._replace(circular=self.padding == "circular")

    def __str__(self) -> str:
        said = [_spoken(self.kernel)]
        said += [f"stride {_spoken(self.stride)}"] if self.stride != 1 else []
        said += [f"dilation {_spoken(self.dilation)}"] if self.dilation != 1 else []
        said += [f"padding {self.padding}"] if self.padding != "zero" else []
        said += [f"{self.groups} groups"] if self.groups > 1 else []
        return f"conv{'' if self.channels is None else f' {self.channels}'} ({', '.join(said)})"


@dataclass(frozen=True, repr=False)
class Pool(Step):
    """The mean or the largest entry of each window of positions, unit by unit.

    Args:
        kind: "mean" or "max"; of equal entries the first takes the max's gradient.
        size: positions of a window along every axis, or one number an axis; None for all positions, of which one is
            left.
        stride: positions from one window to the next, by default its size; what is left at the end is dropped.
        padding: positions beyond each edge, at most half a window: zeros in a mean, never the max.

    Raises:
        ValueError, TypeError: an unknown kind, numbers that are no positive ints.

    Examples:
        >>> print(Pool("mean"), "and", Pool("max", 3, stride=2, padding=1))
        mean pool and max pool (3, stride 2, padding 1)
    """

    brackets, is_spatial = 2, True
    kind: str
    size: Any = None
    stride: Any = None
    padding: Any = 0

    def __post_init__(self) -> None:
        checks.choice("pool kind", self.kind, POOLS)
        if self.size is None:
            if self.stride is not None or self.padding != 0:
                raise ValueError("pool stride and padding go with a size; without one all positions are one window")
            return
        set_fields(self, size=_each_axis("pool size", self.size), padding=_each_axis("pool padding", self.padding, 0))
        if self.stride is not None:
            set_fields(self, stride=_each_axis("pool stride", self.stride))

    def window(self, positions: tuple[int, ...]) -> Window:
        """Its windows over an input's positions.

        Raises:
            ValueError: positions of another number of axes, too few for one window, or more padding than half of one.
        """
        size = positions if self.size is None else _of_axes("pool size", self.size, positions)
        stride = size if self.stride is None else _of_axes("pool stride", self.stride, positions)
        padding = _of_axes("pool padding", self.padding, positions)
        if any(2 * p > k for p, k in zip(padding, size, strict=True)):
            raise ValueError(f"pool padding must be at most half of its size, got {padding} and {size}")
        return _window("pool", positions, size, stride, padding)._replace(largest=self.kind == "max")

    def lower(self, pattern: Writer, cur: int, held: bool, busy: tuple[int, ...]) -> int:
        """One number a window."""
        window = self.window(pattern.field_of(self))
        pattern.field = () if self.size is None else window.out[2 - len(pattern.field) :]
        return _windows("pool", window, pattern, cur, held, busy)

    def __str__(self) -> str:
        if self.size is None:
            return f"{self.kind} pool"
        said = [_spoken(self.size)]
        said += [f"stride {_spoken(self.stride)}"] if self.stride is not None else []
        said += [f"padding {_spoken(self.padding)}"] if self.padding != 0 else []
        return f"{self.kind} pool ({', '.join(said)})"


@dataclass(frozen=True, repr=False)
class Flatten(Step):
    """All positions of a unit as units of their own, of an input of one position: unit i, position t is unit i T + t.

    Examples:
        >>> print(Flatten())
        flatten
    """

    brackets, is_spatial = 0, True

    def window(self, positions: tuple[int, ...]) -> Window:
        """The one window over an input's positions."""
        return _window("flatten", positions, positions, positions, (0,) * len(positions))._replace(by_units=True)

    def lower(self, pattern: Writer, cur: int, held: bool, busy: tuple[int, ...]) -> int:
        """One patch of all positions."""
        cur = _patches(self, pattern, cur, held, busy)
        pattern.field = ()
        return cur

    def __str__(self) -> str:
        return "flatten"


def _patches(step: Conv | Flatten, pattern: Writer, cur: int, held: bool, busy: tuple[int, ...]) -> int:
    """What the windows of a step see, side by side as units."""
    window = step.window(pattern.field_of(step))
    pattern.field = window.out[2 - len(pattern.field) :]
    pattern.width *= math.prod(window.taps)
    return _windows("gather", window, pattern, cur, held, busy)


def _windows(kind: str, window: Window, pattern: Writer, cur: int, held: bool, busy: tuple[int, ...]) -> int:
    """An op on windows; where each is one position, what is there already."""
    if window.is_whole:
        return cur
    return pattern.elementwise(kind, cur, held, busy, window_steps=pattern.number("windows", window))


def _each_axis(name: str, value: Any, least: int = 1) -> int | tuple[int, ...]:
    """One number for all axes, or a tuple of one or two."""
    if not isinstance(value, (tuple, list)):
        return checks.integer(name, value, least, MAX_WIDTH)
    if not 1 <= len(value) <= 2:
        raise ValueError(f"{name} must be an int, or a tuple of one or two, one an axis, got {value!r}")
    return tuple(checks.integer(name, v, least, MAX_WIDTH) for v in value)


def _of_axes(name: str, value: int | tuple[int, ...], positions: tuple[int, ...]) -> tuple[int, ...]:
    """One number for each axis of positions."""
    if not isinstance(value, tuple):
        return (value,) * len(positions)
    if len(value) != len(positions):
        raise ValueError(f"{name} {value} has {len(value)} axes, and the positions {positions} have {len(positions)}")
    return value


def _window(
    name: str,
    positions: tuple[int, ...],
    taps: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    apart: tuple[int, ...] = (1, 1),
) -> Window:
    """A window of two axes, of which the first is 1 where positions have one."""
    apart = apart[: len(positions)]
    spans = tuple(d * (k - 1) + 1 for k, d in zip(taps, apart, strict=True))
    for n, span, p in zip(positions, spans, padding, strict=True):
        if n + 2 * p < span:
            raise ValueError(
                f"a {name} needs as many positions as its window has: got positions {positions}, padding {padding} and "
                f"windows of {spans}"
            )
    both = lambda pair, missing: (missing,) * (2 - len(pair)) + tuple(pair)
    window = Window(both(positions, 1), both(taps, 1), both(stride, 1), both(padding, 0))
    return window._replace(dilation=both(apart, 1))


def _spoken(value: int | tuple[int, ...]) -> str:
    """One number where all axes have the same."""
    if isinstance(value, tuple) and len({*value}) == 1:
        value = value[0]
    return " x ".join(map(str, value)) if isinstance(value, tuple) else str(value)
