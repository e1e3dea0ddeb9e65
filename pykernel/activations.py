# SPDX-License-Identifier: BSD-3-Clause
"""The table of activation functions: a value and a slope each, exact to float64 far into the tails.

A row also says where the function has kinks and how it goes to infinity and through zero, so that engines can carry
magnitudes beyond float range and theory can integrate across the kinks. A new function is one class at the end of this
file.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from pykernel.activation import FUNCTIONS, Activation

LOG2_E = math.log2(math.e)
LARGEST_PARAMETER = 1e15  # times the 2^60 up to which functions are evaluated it stays in float32
SELU_ALPHA, SELU_LAMBDA = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, arXiv 1706.02515
GELU_CUBIC = 0.044715  # Hendrycks, Gimpel 2016, arXiv 1606.08415
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)

_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


class BuiltIn(Activation):
    """A row of the table: its facts are known, not measured, and its name stands for it in every backend and
    process."""

    builtin = True
    is_superlinear = False

    def __post_init__(self) -> None:
        """Nothing is to be checked: the table gives every fact."""

    @property
    def key(self) -> tuple[str, tuple[float, ...]]:
        return (self.name, self.parameters)

    def evaluate(self, key: str, z: np.ndarray) -> Any:
        return getattr(self, key)(z)

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(map(repr, self.parameters))})" if self.parameters else super().__repr__()

    def __reduce__(self) -> tuple[Callable[..., Activation], tuple]:
        return get, (self.name, self.parameters)


ROWS: dict[str, Callable[..., BuiltIn]] = {}


def _row(defaults: tuple[float, ...] = (), **facts: Any) -> Callable[[type], type]:
    """Enter a class of plain functions in the table under its lower-case name; `facts` may be functions of the
    parameters."""

    def enter(cls: type) -> type:
        name = cls.__name__.lower()

        def make(*values: float) -> BuiltIn:
            if len(values) > len(defaults):
                raise ValueError(f"activation {name!r} takes {len(defaults)} parameters, got {len(values)}")
            p = tuple(float(v) for v in values) + tuple(defaults[len(values) :])
            if not all(abs(v) <= LARGEST_PARAMETER for v in p):
                raise ValueError(
                    f"activation {name!r}: parameters must be finite and at most {LARGEST_PARAMETER:g} in magnitude, "
                    f"got {p}"
                )
            bound = {
                key: partial(getattr(cls, key), *p) if p else getattr(cls, key)
                for key in FUNCTIONS
                if hasattr(cls, key)
            }
            bound = {"plain_value": bound["value"], "plain_slope": bound["slope"], **bound}
            known = {key: fact(*p) if callable(fact) else fact for key, fact in facts.items()}
            base = {
                "left": 1.0,
                "right": 1.0,
                "before_zero": 1.0,
                "after_zero": 1.0,
                "at_zero": 0.0,
                "max_slope": 1.0,
                "flat": False,
            }
            return BuiltIn(name=name, parameters=p, **{**base, **known, **bound})

        ROWS[name] = make
        return cls

    return enter


def get(activation: Any, parameters: tuple[float, ...] = ()) -> Activation:
    """The row of a name, of "name(parameter)", or of a row itself.

    Raises:
        ValueError: an unknown name, answered with the nearest known one.
        TypeError: neither a name nor an Activation.

    Examples:
        >>> str(get("leaky_relu(0.2)"))
        'leaky_relu(0.2)'
    """
    if isinstance(activation, Activation):
        return activation
    if not isinstance(activation, str):
        raise TypeError(f"activation must be a name or a pykernel.Activation, got {activation!r}")
    return _called(activation, parameters) if parameters else _named(activation)


@lru_cache(maxsize=256)
def _named(activation: str) -> Activation:
    return _called(activation, ())


def _called(activation: str, parameters: tuple[float, ...]) -> Activation:
    name, opened, rest = activation.strip().partition("(")
    if opened and not rest.endswith(")"):
        raise ValueError(f"activation {activation!r} must close its parenthesis, as in 'leaky_relu(0.2)'")
    name = ALIASES.get(name.strip().lower(), name.strip().lower())
    if rest:
        try:
            parameters = tuple(float(v) for v in rest.rstrip(") ").split(","))
        except ValueError:
            raise ValueError(
                f"activation {activation!r}: parameters must be numbers, as in 'leaky_relu(0.2)'"
            ) from None
    if name not in ROWS:
        near = difflib.get_close_matches(name, ROWS, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown activation {activation!r}; {hint}known: {', '.join(ROWS)}")
    return ROWS[name](*parameters)


def leaky_relu(slope: float = 0.01) -> Activation:
    """max(z, 0) + slope min(z, 0).

    Args:
        slope: on the negative side, a number.

    Returns:
        The row that `Chain(activation="leaky_relu(0.2)")` uses.

    Raises:
        ValueError, TypeError: not a finite number.

    Notes:
        He, Zhang, Ren, Sun 2015: critical weights have variance 2 / ((1 + slope^2) fan_in).

    Examples:
        >>> leaky_relu(0.2).value(np.array([-1.0, 2.0])).tolist()
        [-0.2, 2.0]
    """
    return get("leaky_relu", (slope,))


def elu(alpha: float = 1.0) -> Activation:
    """z for z > 0, alpha (e^z - 1) below.

    Args:
        alpha: minus the value at minus infinity, a number.

    Returns:
        The row that `Chain(activation="elu(0.5)")` uses.

    Raises:
        ValueError, TypeError: not a finite number.

    Notes:
        Clevert, Unterthiner, Hochreiter 2016, arXiv 1511.07289.

    Examples:
        >>> elu(0.5).value(np.array([-100.0, 2.0])).tolist()
        [-0.5, 2.0]
    """
    return get("elu", (alpha,))


ALIASES = {
    "identity": "linear",
    "id": "linear",
    "swish": "silu",
    "logistic": "sigmoid",
    "leakyrelu": "leaky_relu",
    "atan": "arctan",
}


def _half(z: np.ndarray) -> np.ndarray:
    return np.exp(-np.abs(z))


def _log2(x: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log2(np.abs(x))


def _sigmoid(z: np.ndarray) -> np.ndarray:
    e = _half(z)
    return np.where(z >= 0, 1, e) / (1 + e)


def log2_sigmoid(z: np.ndarray) -> np.ndarray:
    return np.minimum(z, 0) * LOG2_E - np.log2(1 + _half(z))


@_row()
class Linear:
    def value(z):
        return z * 1.0

    def slope(z):
        return np.ones_like(z)


@_row(left=0.0, right=0.0, before_zero=0.25, after_zero=0.25, at_zero=0.5, max_slope=0.25)
class Sigmoid:
    value = _sigmoid

    def slope(z):
        e = _half(z)
        return e / (1 + e) ** 2

    def plain_value(z):
        return 1 / (1 + np.exp(-z))

    def plain_slope(z):
        s = 1 / (1 + np.exp(-z))
        return s * (1 - s)

    def log2_value(z):
        return 1.0, log2_sigmoid(z)

    def log2_slope(z):
        return 1.0, log2_sigmoid(z) + log2_sigmoid(-z)


@_row(left=0.0, right=0.0)
class Tanh:
    value = np.tanh

    def slope(z):
        e = _half(2 * z)
        return 4 * e / (1 + e) ** 2

    def plain_slope(z):
        return 1 - np.tanh(z) ** 2

    def log2_slope(z):
        return 1.0, 2 + log2_sigmoid(2 * z) + log2_sigmoid(-2 * z)


@_row(kinks=(0.0,), left=0.0, before_zero=0.0, flat=True)
class Relu:
    def value(z):
        return np.maximum(z, 0)

    def slope(z):
        return (z > 0) * 1.0


@_row(
    defaults=(0.01,),
    kinks=(0.0,),
    left=lambda s: s,
    before_zero=lambda s: s,
    max_slope=lambda s: max(1.0, abs(s)),
    flat=lambda s: s == 0,
)
class Leaky_Relu:
    def value(s, z):
        return np.where(z > 0, z, s * z)

    def slope(s, z):
        return np.where(z > 0, 1.0, s)


@_row(
    defaults=(1.0,),
    kinks=(0.0,),
    left=0.0,
    before_zero=lambda a: a,
    max_slope=lambda a: max(1.0, abs(a)),
    flat=lambda a: a == 0,
)
class Elu:
    def value(a, z):
        return np.where(z > 0, z, a * np.expm1(np.minimum(z, 0)))

    def slope(a, z):
        return np.where(z > 0, 1.0, a * np.exp(np.minimum(z, 0)))

    def log2_slope(a, z):
        return np.where(z > 0, 1.0, np.sign(a)), np.where(z > 0, 0.0, _log2(a) + np.minimum(z, 0) * LOG2_E)


@_row(
    kinks=(0.0,),
    left=0.0,
    right=SELU_LAMBDA,
    before_zero=SELU_LAMBDA * SELU_ALPHA,
    after_zero=SELU_LAMBDA,
    max_slope=SELU_LAMBDA * SELU_ALPHA,
)
class Selu:
    def value(z):
        return SELU_LAMBDA * Elu.value(SELU_ALPHA, z)

    def slope(z):
        return SELU_LAMBDA * Elu.slope(SELU_ALPHA, z)

    def log2_slope(z):
        sign, log2 = Elu.log2_slope(SELU_ALPHA, z)
        return sign, log2 + math.log2(SELU_LAMBDA)


def _density(z: np.ndarray) -> np.ndarray:
    return np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _log2_normal_tail(z: np.ndarray) -> np.ndarray:
    """log2 of Phi(z): erfc down to -30, below it the asymptotic series (relative error 2e-12 there)."""
    far = np.minimum(z, -30.0)
    x = 1 / (far * far)
    series = 1 - x * (1 - 3 * x * (1 - 5 * x * (1 - 7 * x)))
    tail = -far * far / 2 * LOG2_E - np.log2(-far * math.sqrt(2 * math.pi)) + np.log2(series)
    return np.where(z < -30, tail, _log2(_erfc(-np.maximum(z, -30.0) / math.sqrt(2)) / 2))


@_row(left=0.0, before_zero=0.5, after_zero=0.5, max_slope=1.1289042)
class Gelu:
    def value(z):
        return z * _erfc(-z / math.sqrt(2)) / 2

    def slope(z):
        return _erfc(-z / math.sqrt(2)) / 2 + z * _density(z)

    def plain_value(z):
        return z * (1 + _erf(z / math.sqrt(2))) / 2

    def log2_value(z):
        return np.sign(z), _log2(z) + _log2_normal_tail(z)

    def log2_slope(z):
        far = np.minimum(z, -30.0)
        x = 1 / (far * far)
        series = 1 - x * (1 - x * (1 - 3 * x * (1 - 5 * x * (1 - 7 * x))))
        tail = -far * far / 2 * LOG2_E + np.log2(-far / math.sqrt(2 * math.pi)) + np.log2(series)
        near = Gelu.slope(np.maximum(z, -30.0))
        return np.where(z < -30, -1.0, np.sign(near)), np.where(z < -30, tail, _log2(near))


@_row(left=0.0, before_zero=0.5, after_zero=0.5, max_slope=1.1289)
class Gelu_Tanh:
    def _argument(z):
        return 2 * SQRT_2_OVER_PI * (z + GELU_CUBIC * z**3), 2 * SQRT_2_OVER_PI * (1 + 3 * GELU_CUBIC * z**2)

    def value(z):
        return z * _sigmoid(Gelu_Tanh._argument(z)[0])

    def slope(z):
        y, dy = Gelu_Tanh._argument(z)
        return _sigmoid(y) * (1 + np.where(np.abs(z) < 1e3, z * dy, 0.0) * _sigmoid(-y))

    def plain_value(z):
        return z * (1 + np.tanh(SQRT_2_OVER_PI * (z + GELU_CUBIC * z**3))) / 2

    def log2_value(z):
        return np.sign(z), _log2(z) + log2_sigmoid(Gelu_Tanh._argument(np.maximum(z, -1e90))[0])

    def log2_slope(z):
        z = np.maximum(z, -1e90)  # the cube of anything below overflows; either is beyond 2^-2^62
        y, dy = Gelu_Tanh._argument(z)
        factor = np.where(z < 1e3, 1 + np.minimum(z, 1e3) * dy * _sigmoid(-y), 1.0)
        return np.sign(factor), log2_sigmoid(y) + _log2(factor)


@_row(left=0.0, before_zero=0.5, after_zero=0.5, max_slope=1.0998394)
class Silu:
    def value(z):
        return z * _sigmoid(z)

    def slope(z):
        return _sigmoid(z) * (1 + z * _sigmoid(-z))

    def plain_value(z):
        return z / (1 + np.exp(-z))

    def plain_slope(z):
        s = 1 / (1 + np.exp(-z))
        return s * (1 + z * (1 - s))

    def log2_value(z):
        return np.sign(z), _log2(z) + log2_sigmoid(z)

    def log2_slope(z):
        factor = 1 + z * _sigmoid(-z)
        return np.sign(factor), log2_sigmoid(z) + _log2(factor)


@_row(left=0.0, before_zero=0.5, after_zero=0.5, at_zero=math.log(2))
class Softplus:
    def value(z):
        return np.maximum(z, 0) + np.log1p(_half(z))

    slope = _sigmoid

    def plain_value(z):
        return np.log(1 + np.exp(z))

    def plain_slope(z):
        return 1 / (1 + np.exp(-z))

    def log2_value(z):
        return 1.0, np.where(z < -30, z * LOG2_E, _log2(Softplus.value(np.maximum(z, -30.0))))

    def log2_slope(z):
        return 1.0, log2_sigmoid(z)


@_row(left=0.0, before_zero=0.6, after_zero=0.6, max_slope=1.0884990)
class Mish:
    def _gate(z):
        """tanh(softplus(z)) and 1 minus its square, without cancellation: both over the common denominator d."""
        e = _half(z)
        n = np.where(z >= 0, 1 + 2 * e, e * (e + 2))
        d = n + np.where(z >= 0, 2 * e * e, 2.0)
        return n / d, (d - n) * (d + n) / (d * d), e

    def value(z):
        return z * Mish._gate(z)[0]

    def slope(z):
        gate, rest, _ = Mish._gate(z)
        return gate + z * rest * _sigmoid(z)

    def plain_value(z):
        return z * np.tanh(np.log(1 + np.exp(z)))

    def log2_value(z):
        return np.sign(z), np.where(
            z < -40, _log2(z) + np.minimum(z, 0) * LOG2_E, _log2(Mish.value(np.maximum(z, -40.0)))
        )

    def log2_slope(z):
        near = Mish.slope(np.maximum(z, -40.0))
        far = np.minimum(z, -40.0)
        return np.where(z < -40, -1.0, np.sign(near)), np.where(z < -40, far * LOG2_E + np.log2(-1 - far), _log2(near))


@_row(kinks=(-1.0, 1.0), left=0.0, right=0.0, flat=True)
class Hardtanh:
    def value(z):
        return np.clip(z, -1, 1)

    def slope(z):
        return (np.abs(z) < 1) * 1.0


@_row(kinks=(0.0,), left=0.0, right=0.0)
class Softsign:
    def value(z):
        return z / (1 + np.abs(z))

    def slope(z):
        return (1 / (1 + np.abs(z))) ** 2

    def log2_slope(z):
        return 1.0, -2 * np.log2(1 + np.abs(z))


@_row(
    left=0.0,
    right=0.0,
    before_zero=2 / math.sqrt(math.pi),
    after_zero=2 / math.sqrt(math.pi),
    max_slope=2 / math.sqrt(math.pi),
)
class Erf:
    value = _erf

    def slope(z):
        return 2 / math.sqrt(math.pi) * np.exp(-z * z)

    def log2_slope(z):
        return 1.0, math.log2(2 / math.sqrt(math.pi)) - z * z * LOG2_E


@_row(left=0.0, right=0.0)
class Arctan:
    value = np.arctan

    def slope(z):
        return 1 / (1 + z * z)

    def log2_slope(z):
        return 1.0, np.where(np.abs(z) < 1e100, -np.log2(1 + np.minimum(np.abs(z), 1e100) ** 2), -2 * _log2(z))


@_row(left=0.0, right=0.0)
class Sin:
    value = np.sin
    slope = np.cos


def word(activation: Activation) -> str:
    """An activation as Python says it: its name where that makes it, else the call or what it is."""
    try:
        named = get(str(activation)) == activation
    except ValueError:  # a name of the user's own
        named = False
    return repr(str(activation)) if named else repr(activation)
