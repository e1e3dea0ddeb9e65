# SPDX-License-Identifier: BSD-3-Clause
"""What all steps of a block share: how they are written, and what those with weights take."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import fields
from typing import Any, ClassVar, NamedTuple, Protocol

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


class Words(Protocol):
    """What a step sees of the chain that it stands in."""

    @property
    def norm_eps(self) -> float:
        """What norms without an eps of their own add to the variance."""


class Affine(Protocol):
    """A step that says a scale and a shift of each unit."""

    def rows(self, units: int, repetitions: int) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
        """(weight, bias) of `units` floats, one pair for all repetitions or one for each."""


class Writer(Protocol):
    """What a step writes its ops into: the `pykernel.pattern.Pattern` of its chain, as far as steps see it.

    Attributes:
        width: units of the signal, where the walk is.  field: positions of one input there; field_in: of the chain's.
        fixup: Fixup's factor on the step's last layer.
    """

    width: int
    field: tuple[int, ...]
    field_in: tuple[int, ...]
    fixup: float

    @property
    def chain(self) -> Words:
        """The chain that is lowered."""

    def number(self, table: str, row: Hashable) -> int:
        """The place of a row in a table, to which it is added where it is new."""

    def field_of(self, step: Step) -> tuple[int, ...]:
        """Positions of one input, where a step needs their axes."""

    def words(self, step: Weighted) -> tuple[Init, float, float]:
        """The init, gain and bias_std of a step's layers."""

    def linear(
        self,
        cur: int,
        held: bool,
        units: int,
        init: Init,
        gain: float,
        bias_std: float,
        fixup: float,
        busy: tuple[int, ...] = (),
        taps: tuple[int, ...] = (),
        groups: int = 1,
        centred: int = 0,
    ) -> int:
        """A layer of weights; the register of its output, as of all below."""

    def affine(self, step: Affine, cur: int, held: bool, busy: tuple[int, ...]) -> int:
        """What a step says of each unit."""

    def elementwise(
        self, kind: str, cur: int, held: bool, busy: tuple[int, ...], over_batch: bool = False, **numbers: Any
    ) -> int:
        """An op with one input."""

    def emit(
        self,
        kind: str,
        ins: tuple[int, ...],
        held: bool,
        busy: tuple[int, ...],
        out: int | None = None,
        **numbers: Any,
    ) -> int:
        """An op and its numbers."""


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

    def lower(self, pattern: Writer, cur: int, held: bool, busy: tuple[int, ...]) -> int:
        """Its ops, and the register of their result."""
        raise NotImplementedError(f"{type(self).__name__} says no ops")

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
