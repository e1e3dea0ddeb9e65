# SPDX-License-Identifier: BSD-3-Clause
"""What all steps of a block share: how they are written, and what those with weights take."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar, NamedTuple

import numpy as np

from pykernel import activations, checks, inits
from pykernel.activation import Activation
from pykernel.init import Init

MAX_WIDTH = 2**31 - 64
SHOWN = 64  # numbers of an array that its repr holds


class Roles(NamedTuple):
    """Names of what has rows of its own, in the order of use: layers, activation steps, attentions."""

    layer: tuple[str, ...] = ()
    activation: tuple[str, ...] = ()
    mix: tuple[str, ...] = ()


class Step:
    """What a block is made of. An activation function is a step, too; a name stands for it.

    A kind of step is a frozen dataclass with `lower(pattern, cur, held, busy)`, which writes its ops into a
    `pykernel.pattern.Pattern` and returns the register of their result: from register `cur`, where `busy` hold
    something else and, if `held`, register A is still needed.
    """

    brackets: ClassVar[int] = 1  # fields, the first ones, that stand in the brackets of its text; others take a table
    is_spatial: ClassVar[bool] = False  # whether it looks at positions as a field: it needs their number an axis

    @classmethod
    def word(cls) -> str:
        """What texts and tables call this kind of step, and rows its layer."""
        return cls.__name__.lower()

    def roles(self) -> Roles:
        """What has rows of its own."""
        return Roles()

    def __repr__(self) -> str:
        """The call that makes it, with what differs from the defaults."""
        shown = [(f, getattr(self, f.name)) for f in fields(self)]  # type: ignore[arg-type]
        words = [f"{f.name}={word(v)}" for f, v in shown if v != f.default]
        return f"{type(self).__name__}({', '.join(words)})"


class Weighted(Step):
    """A step with weights of its own: init, gain and bias_std, each by default the chain's."""

    init: Any
    gain: float
    bias_std: float | None

    def roles(self) -> Roles:
        """One layer."""
        return Roles((self.word(),))

    def _check_draw(self, name: str) -> None:
        set_fields(
            self,
            init=None if self.init is None else inits.get(self.init),
            gain=checks.finite(f"{name} gain", self.gain),
        )
        if self.bias_std is not None:
            set_fields(self, bias_std=checks.not_negative(f"{name} bias_std", self.bias_std))


def word(value: Any) -> str:
    """A field as it is written in a call."""
    if isinstance(value, tuple) and np.size(value) > SHOWN:  # would spill over the screen
        return f"<{' x '.join(map(str, np.shape(value)))} numbers>"
    if isinstance(value, Init | Activation):
        return (inits if isinstance(value, Init) else activations).word(value)
    return repr(value)


def set_fields(part: object, **values: Any) -> None:
    """Fields of a frozen step, as it is made."""
    for key, value in values.items():
        object.__setattr__(part, key, value)
