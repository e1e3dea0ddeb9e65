# SPDX-License-Identifier: BSD-3-Clause
"""The table of activation functions: a value and a slope each, exact to float64 far into the tails.

A row also says where the function has kinks and how it goes to infinity and through zero, so that engines can carry magnitudes beyond
float range and theory can integrate across the kinks. A new function is one class at the end of this file.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from pykernel import cfunctions, checks

LOG2_E = math.log2(math.e)
LARGEST_PARAMETER = 1e15  # times the 2^60 up to which functions are evaluated it stays in float32
SELU_ALPHA, SELU_LAMBDA = 1.6732632423543772, 1.0507009873554805  # Klambauer et al. 2017, arXiv 1706.02515
GELU_CUBIC = 0.044715  # Hendrycks, Gimpel 2016, arXiv 1606.08415
SQRT_2_OVER_PI = math.sqrt(2 / math.pi)

_erf = np.vectorize(math.erf, otypes=[np.float64])
_erfc = np.vectorize(math.erfc, otypes=[np.float64])


@dataclass(frozen=True, eq=False)
class Activation:
    """An elementwise activation function with its derivative.

    Args:
        value: function of a float64 array of any shape, elementwise: plain Python, `@njit`, or a C function (a `numba.cfunc` or a ctypes
            function) `double (double)` or `void (const double *z, double *out, int64_t n, void *user)`. One that takes single numbers only
            is applied to each entry.
        slope: its derivative, likewise. At a kink it gives one of the two sides.
        name: how tables and labels call it; by default the name of `value`.
        parameters: the numbers that tell this function from others of its name.
        kinks: points where the function or its derivative jumps.
        left, right: derivative at minus and plus infinity.
        before_zero, after_zero: derivative at 0 from below and from above.
        at_zero: value at 0.
        max_slope: largest magnitude of the derivative.
        flat: whether the derivative is exactly zero on some interval (then units can be dead).
        plain_value, plain_slope: the textbook formulas, as plain arithmetic evaluates them (by default `value` and `slope`).
        log2_value, log2_slope: functions that return (sign, log2 of the magnitude), finite where the plain result underflows.

    Numbers that are not given are measured from the functions.

    Notes:
        Beyond 2^60 a function is continued by its slopes at infinity, so that magnitudes can leave float range. A function that grows
        faster than linearly has none: `propagate` warns when its arguments come near, and precision="native" shows plain arithmetic.

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
    left: float | None = None
    right: float | None = None
    before_zero: float | None = None
    after_zero: float | None = None
    at_zero: float | None = None
    max_slope: float | None = None
    flat: bool = True
    plain_value: Callable | None = field(default=None, repr=False)
    plain_slope: Callable | None = field(default=None, repr=False)
    log2_value: Callable | None = field(default=None, repr=False)
    log2_slope: Callable | None = field(default=None, repr=False)
    builtin: bool = field(default=False, repr=False)

    def __post_init__(self):
        for key in ("value", "slope"):
            self._complete(key, cfunctions.wrap(getattr(self, key), key))
            if not callable(getattr(self, key)):
                raise TypeError(f"activation {key} must be a function of an array, got {getattr(self, key)!r}")
        if not self.builtin:
            for key in ("value", "slope"):
                self._complete(key, _of_arrays(key, getattr(self, key)))
        self._check_facts()
        self._complete("name", self.name or getattr(self.value, "__name__", "custom"))
        self._complete("parameters", tuple(float(p) for p in self.parameters))
        self._complete("kinks", tuple(sorted(float(k) for k in self.kinks)))
        self._complete("plain_value", self.plain_value or self.value)
        self._complete("plain_slope", self.plain_slope or self.slope)
        if not self.builtin:
            _check_slope(self)
            self._measure()

    def _complete(self, key, value):
        object.__setattr__(self, key, value)

    def _check_facts(self):
        if not isinstance(self.name, str):
            raise TypeError(f"activation name must be a text, got {self.name!r}")
        for key in ("left", "right", "before_zero", "after_zero", "at_zero", "max_slope"):
            if getattr(self, key) is not None:
                check = checks.not_negative if key == "max_slope" else checks.finite
                self._complete(key, check(f"activation {key}", getattr(self, key)))
        for key in FUNCTIONS[2:]:
            if getattr(self, key) is not None and not callable(getattr(self, key)):
                raise TypeError(f"activation {key} must be a function of an array or None, got {getattr(self, key)!r}")

    def evaluate(self, key, z):
        """One of its functions at an array; what a user's own does wrong is told under its name.

        Raises:
            RuntimeError: the function raised, with its error as the cause.
            ValueError: its answer has another shape than the array.
        """
        function = getattr(self, key)
        if self.builtin:
            return function(z)
        try:
            answer = function(z)
        except Exception as error:
            raise RuntimeError(f"activation {self.name!r}: {key} raised {type(error).__name__}: {error}") from error
        if not key.startswith("log2") and np.shape(answer) != np.shape(z):
            raise ValueError(f"activation {self.name!r}: {key} must return the shape it is given, {np.shape(z)}, got {np.shape(answer)}")
        return answer

    @property
    def is_superlinear(self):
        """Whether the function still bends far away, so that its slopes at infinity do not continue it."""
        if self.builtin:
            return False
        with np.errstate(all="ignore"):
            near, far = (np.abs(np.asarray(self.slope(np.array([-z, z])), dtype=np.float64)) for z in (1e6, 1e9))
        return bool((far > 1.05 * near + 1e-9).any())

    def _measure(self):
        slope = lambda *z: np.asarray(self.slope(np.array(z)), dtype=np.float64)
        with np.errstate(all="ignore"):
            left, right = slope(-1e6, 1e6)
            before, after = slope(-1e-30, 1e-30)
            top = np.abs(slope(*np.linspace(-40, 40, 16001))).max()
            zero = np.asarray(self.value(np.zeros(1)), dtype=np.float64)[0]
        measured = {"left": left, "right": right, "before_zero": before, "after_zero": after, "max_slope": top, "at_zero": zero}
        for key, number in measured.items():
            if getattr(self, key) is None:
                if not np.isfinite(number):
                    raise ValueError(f"activation {self.name!r}: {key} came out as {number}; give it as an argument")
                self._complete(key, float(number))

    @property
    def key(self):
        """What makes two activation functions the same."""
        return (self.name, self.parameters) if self.builtin else (self.name, self.parameters, self.value, self.slope)

    def __eq__(self, other):
        return isinstance(other, Activation) and self.key == other.key

    def __hash__(self):
        return hash(self.key)

    def __repr__(self):
        return f"<Activation {self}>"

    def __str__(self):
        return self.name + (f"({', '.join(f'{p:g}' for p in self.parameters)})" if self.parameters else "")

    def __reduce__(self):
        if self.builtin:
            return get, (self.name, self.parameters)
        return super().__reduce__()


def _of_arrays(key, function):
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
                f"activation {key} fails for a float64 array: {type(error).__name__}: {reason[0] if reason else 'no message'}"
            ) from error
        del single
        return cfunctions.Elementwise(function)
    if not np.array_equal(z, before):
        raise ValueError(f"activation {key} changes the array it is given; let it work on a copy")
    return function


def _check_slope(row):
    """Refuse a derivative that central differences contradict, with the point where it differs most."""
    z = np.concatenate([np.linspace(-6, 6, 241) + 0.0123, [-30.0, 30.0]])
    h = 1e-5 * np.maximum(1, np.abs(z))
    for kink in row.kinks:
        z, h = z[np.abs(z - kink) > 1e-3], h[np.abs(z - kink) > 1e-3]
    with np.errstate(all="ignore"):
        value, slope = (np.asarray(f(z)) for f in (row.value, row.slope))
        if np.iscomplexobj(value) or np.iscomplexobj(slope):
            raise TypeError(f"activation {row.name!r}: value and slope must return real numbers, got complex ones")
        value, slope = value.astype(np.float64), slope.astype(np.float64)
        if value.shape != z.shape or slope.shape != z.shape:
            raise ValueError(
                f"activation {row.name!r}: value and slope must return arrays of the shape they are given, {z.shape}, "
                f"got {value.shape} and {slope.shape}"
            )
        if not np.isfinite(value).all():
            at = z[~np.isfinite(value)][0]
            raise ValueError(f"activation {row.name!r}: value({at:g}) is not finite")
        difference = (np.asarray(row.value(z + h), dtype=np.float64) - np.asarray(row.value(z - h), dtype=np.float64)) / (2 * h)
        # Central differences err by h^2 phi''' / 6 + eps |phi| / h: 1e-4 leaves room for both in any smooth function of scale one.
        wrong = np.abs(difference - slope) > 1e-4 * (1 + np.abs(slope) + np.abs(value))
    if wrong.any() or not np.isfinite(slope).all():
        i = np.argmax(np.where(np.isfinite(slope), np.abs(difference - slope), np.inf))
        raise ValueError(
            f"activation {row.name!r}: slope is not the derivative of value: at z = {z[i]:.4g} slope gives {slope[i]:.6g}, "
            f"differences give {difference[i]:.6g} (points where the derivative jumps belong in kinks=)"
        )


ROWS: dict[str, Callable[..., Activation]] = {}


def _row(defaults=(), parameters=None, **facts):
    """Enter a class of plain functions in the table under its lower-case name; `facts` may be functions of the parameters."""

    def enter(cls):
        name = cls.__name__.lower()

        def make(*values):
            if len(values) > len(defaults):
                raise ValueError(f"activation {name!r} takes {len(defaults)} parameters, got {len(values)}")
            p = tuple(float(v) for v in values) + tuple(defaults[len(values) :])
            if not all(abs(v) <= LARGEST_PARAMETER for v in p):
                raise ValueError(f"activation {name!r}: parameters must be finite and at most {LARGEST_PARAMETER:g} in magnitude, got {p}")
            bound = {key: partial(getattr(cls, key), *p) if p else getattr(cls, key) for key in FUNCTIONS if hasattr(cls, key)}
            known = {key: fact(*p) if callable(fact) else fact for key, fact in facts.items()}
            base = {"left": 1.0, "right": 1.0, "before_zero": 1.0, "after_zero": 1.0, "at_zero": 0.0, "max_slope": 1.0, "flat": False}
            return Activation(name=name, parameters=p, builtin=True, **{**base, **known, **bound})

        ROWS[name] = make
        return cls

    return enter


FUNCTIONS = ("value", "slope", "plain_value", "plain_slope", "log2_value", "log2_slope")


def get(activation, parameters=()):
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
    name, opened, rest = activation.strip().partition("(")
    if opened and not rest.endswith(")"):
        raise ValueError(f"activation {activation!r} must close its parenthesis, as in 'leaky_relu(0.2)'")
    name = ALIASES.get(name.strip().lower(), name.strip().lower())
    if rest:
        try:
            parameters = tuple(float(v) for v in rest.rstrip(") ").split(","))
        except ValueError:
            raise ValueError(f"activation {activation!r}: parameters must be numbers, as in 'leaky_relu(0.2)'") from None
    if name not in ROWS:
        near = difflib.get_close_matches(name, ROWS, 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(f"unknown activation {activation!r}; {hint}known: {', '.join(ROWS)}")
    return ROWS[name](*parameters)


def leaky_relu(slope=0.01):
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


def elu(alpha=1.0):
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


ALIASES = {"identity": "linear", "id": "linear", "swish": "silu", "logistic": "sigmoid", "leakyrelu": "leaky_relu", "atan": "arctan"}


def _half(z):
    return np.exp(-np.abs(z))


def _log2(x):
    with np.errstate(divide="ignore"):
        return np.log2(np.abs(x))


def _sigmoid(z):
    e = _half(z)
    return np.where(z >= 0, 1, e) / (1 + e)


def _log2_sigmoid(z):
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
        return 1.0, _log2_sigmoid(z)

    def log2_slope(z):
        return 1.0, _log2_sigmoid(z) + _log2_sigmoid(-z)


@_row(left=0.0, right=0.0)
class Tanh:
    value = np.tanh

    def slope(z):
        e = _half(2 * z)
        return 4 * e / (1 + e) ** 2

    def plain_slope(z):
        return 1 - np.tanh(z) ** 2

    def log2_slope(z):
        return 1.0, 2 + _log2_sigmoid(2 * z) + _log2_sigmoid(-2 * z)


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


@_row(defaults=(1.0,), kinks=(0.0,), left=0.0, before_zero=lambda a: a, max_slope=lambda a: max(1.0, abs(a)), flat=lambda a: a == 0)
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


def _density(z):
    return np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _log2_normal_tail(z):
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
        return np.sign(z), _log2(z) + _log2_sigmoid(Gelu_Tanh._argument(z)[0])

    def log2_slope(z):
        y, dy = Gelu_Tanh._argument(z)
        factor = np.where(z < 1e3, 1 + np.minimum(z, 1e3) * dy * _sigmoid(-y), 1.0)
        return np.sign(factor), _log2_sigmoid(y) + _log2(factor)


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
        return np.sign(z), _log2(z) + _log2_sigmoid(z)

    def log2_slope(z):
        factor = 1 + z * _sigmoid(-z)
        return np.sign(factor), _log2_sigmoid(z) + _log2(factor)


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
        return 1.0, _log2_sigmoid(z)


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
        return np.sign(z), np.where(z < -40, _log2(z) + np.minimum(z, 0) * LOG2_E, _log2(Mish.value(np.maximum(z, -40.0))))

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


@_row(left=0.0, right=0.0, before_zero=2 / math.sqrt(math.pi), after_zero=2 / math.sqrt(math.pi), max_slope=2 / math.sqrt(math.pi))
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
