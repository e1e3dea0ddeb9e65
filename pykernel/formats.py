# SPDX-License-Identifier: BSD-3-Clause
"""The table of number formats, what rounding to one does, and the words of a run in low precision.

Names, bits and codes are those of the package `ml_dtypes`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from pykernel import checks
from pykernel.dtypes import Floats, Words32

OVERFLOWS = ("inf", "saturate")
ROUNDINGS = ("nearest", "stochastic")
NONE = "float32"  # the format that rounds nothing: the arithmetic is at least as wide
WHICH_SCALE = "recommend says which one fits a chain"
MOST_SCALE = 2.0**100  # a loss scale beyond it, or below its inverse, is a slip of the pen


class Format(NamedTuple):
    """A binary floating-point format with subnormals, smaller than float32.

    Attributes:
        name: as in `ml_dtypes`.  bits: of a number.  fraction: bits behind the leading one.  bias: of the exponent.
        largest: finite magnitude.  infinite: whether there is an inf; without one, the largest is what lies beyond.
    """

    name: str
    bits: int
    fraction: int
    bias: int
    largest: float
    infinite: bool

    @property
    def lowest(self) -> int:
        """log2 of the smallest normal number."""
        return 1 - self.bias

    @property
    def smallest_normal(self) -> float:
        return 2.0**self.lowest

    @property
    def smallest_subnormal(self) -> float:
        return 2.0 ** (self.lowest - self.fraction)

    @property
    def noise(self) -> float:
        """Root mean square of rounding error over that of the numbers, .212 2^-fraction, where nothing is subnormal.

        Errors are even within half a unit in the last place, so of power 4^-fraction / (12 m^2) that of a number m 2^E;
        the mean of m^-2 over all scales is the integral of m^-3 / ln 2 over 1 .. 2, 3 / (8 ln 2).
        """
        return math.sqrt(3 / 8 / math.log(2) / 12) * 2.0**-self.fraction


FORMATS = {
    row.name: row
    for row in (
        Format("float16", 16, 10, 15, 65504.0, True),
        Format("bfloat16", 16, 7, 127, 2.0**128 - 2.0**120, True),
        Format("float8_e4m3fn", 8, 3, 7, 448.0, False),
        Format("float8_e5m2", 8, 2, 15, 57344.0, True),
        Format("float6_e3m2fn", 6, 2, 3, 28.0, False),
        Format("float6_e2m3fn", 6, 3, 1, 7.5, False),
        Format("float4_e2m1fn", 4, 1, 1, 6.0, False),
    )
}
NAMES = (NONE, *FORMATS)
# words of sweeps and of the command line, and the field of `Formats` that each sets
WORDS = {
    "weights_format": "weights",
    "signals_format": "signals",
    "gradients_format": "gradients",
    "loss_scale": "loss_scale",
    "overflow": "overflow",
    "rounding": "rounding",
}


@dataclass(frozen=True)
class Formats:
    """Number formats of a run: what weights, signals and gradients are rounded to.

    Rounded are true values: weights with scale and gain, where they are used; what every step hands on forward, the
    input included; and the gradient of each of those, times `loss_scale`, which is divided out of all rows. A step's
    inside and the sums of its products are in the dtype of the run.

    Args:
        weights, signals, gradients: a name as in `ml_dtypes` (see `pykernel.formats.FORMATS`), or "float32" for none.
        loss_scale: what the objective is multiplied with before gradients are rounded.
        overflow: beyond the largest finite number, "inf" where the format has one (those without have their largest),
            or "saturate" for the largest in all.
        rounding: "nearest" with ties to even, or "stochastic": up or down with the probabilities that make the mean
            exact, by random bits that have an address as weights have (docs/design.md, section 3).

    Raises:
        ValueError, TypeError: what was given and what is allowed.

    Examples:
        >>> import pykernel as pk
        >>> formats = pk.Formats(signals="bfloat16", gradients="float8_e5m2", loss_scale=2**10)
        >>> print(formats)
        signals bfloat16, gradients float8_e5m2, loss scale 1024
    """

    weights: str = NONE
    signals: str = NONE
    gradients: str = NONE
    loss_scale: float = 1.0
    overflow: str = "inf"
    rounding: str = "nearest"

    def __post_init__(self) -> None:
        for word in ("weights", "signals", "gradients"):
            checks.choice(f"{word} format", getattr(self, word), NAMES)
        checks.choice("overflow", self.overflow, OVERFLOWS)
        checks.choice("rounding", self.rounding, ROUNDINGS)
        if isinstance(self.loss_scale, str):
            raise TypeError(f"loss_scale must be a number, got {self.loss_scale!r}; {WHICH_SCALE}")
        scale = checks.within("loss_scale", self.loss_scale, 1 / MOST_SCALE, MOST_SCALE)
        object.__setattr__(self, "loss_scale", float(scale))

    @classmethod
    def with_words(cls, words: Mapping[str, Any], formats: Formats | None = None) -> Formats:
        """Formats by the words of sweeps and of the command line, see `WORDS`; the rest as in `formats`."""
        fields: dict[str, Any] = {WORDS[word]: NONE if value is None else value for word, value in words.items()}
        return replace(formats or cls(), **fields)

    def __str__(self) -> str:
        parts = [
            f"{word} {name}" for word in ("weights", "signals", "gradients") if (name := getattr(self, word)) != NONE
        ]
        parts += [f"loss scale {self.loss_scale:g}"] * (self.loss_scale != 1)
        parts += ["overflow saturates"] * (self.overflow == "saturate")
        parts += ["stochastic rounding"] * self.stochastic
        return ", ".join(parts) or NONE

    @property
    def stochastic(self) -> bool:
        """Whether anything is rounded by random bits."""
        return self.rounding == "stochastic" and any(self.row(word) for word in ("weights", "signals", "gradients"))

    def row(self, word: str) -> Format | None:
        """The format of "weights", "signals" or "gradients"; None where they are not rounded."""
        return FORMATS.get(getattr(self, word))

    def rounded(self, word: str, x: Any, words: Words32 | None = None) -> np.ndarray:
        """Weights, signals or gradients as stored, float64; gradients times the loss scale. `words`: the random bits of
        stochastic rounding, uint32 in the shape of x."""
        row = self.row(word)
        return np.asarray(x, np.float64) if row is None else rounded(x, row, self.overflow, words)


def formats_or_none(given: Any) -> Formats | None:
    """The one check of the word `formats`."""
    if not (given is None or isinstance(given, Formats)):
        raise TypeError(f"formats must be None or a pykernel.Formats, as in pykernel.Formats(**words), got {given!r}")
    return given


def rounded(x: Any, row: Format, overflow: str = "inf", words: Words32 | None = None) -> np.ndarray:
    """Numbers rounded to a format, to nearest, ties to even, or by random bits, as float64.

    Args:
        x: numbers.  row: the format.  overflow: see `Formats`.
        words: None, or uint32 in the shape of x: a magnitude of k + f units in the last place becomes k + 1 where
            floor(2^31 f) + floor(word / 2) reaches 2^31, else k.

    Returns:
        float64, of the shape of x. nan stays nan.

    Examples:
        >>> from pykernel.formats import FORMATS, rounded
        >>> rounded([0.1, 2.0**-10, 465.0, -1e9], FORMATS["float8_e4m3fn"]).tolist()
        [0.1015625, 0.0, 448.0, -448.0]
        >>> rounded([2.0**-25, 65519.0, 65520.0], FORMATS["float16"]).tolist()
        [0.0, 65504.0, inf]
        >>> rounded([1.25, 1.25], FORMATS["float4_e2m1fn"], words=np.array([2**31 - 1, 2**31], np.uint32)).tolist()
        [1.0, 1.5]
    """
    with np.errstate(over="ignore", invalid="ignore"):
        x = np.asarray(x, np.float64)
        unit = np.maximum(np.frexp(x)[1] - 1, row.lowest) - row.fraction
        units = np.ldexp(x, -unit)
        stored = np.ldexp(np.rint(units) if words is None else _by_chance(units, words), unit)
    beyond = math.inf if row.infinite and overflow == "inf" else row.largest
    return np.where(np.abs(stored) > row.largest, np.copysign(beyond, x), stored)


def _by_chance(units: Floats, words: Words32) -> np.ndarray:
    """Whole units, up with a probability of what is beyond them."""
    size = np.abs(units)
    whole = np.floor(size)
    share = np.floor(np.where(np.isfinite(size), size - whole, 0.0) * 2.0**31)
    up = share + (np.asarray(words, np.uint32) >> np.uint32(1)) >= 2.0**31
    return np.copysign(whole + up, units)
