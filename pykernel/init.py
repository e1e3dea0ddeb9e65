# SPDX-License-Identifier: BSD-3-Clause
"""The type of an initialisation scheme, checked: a distribution of unit draws and a factor on them, or weights of your
own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pykernel import checks, distributions
from pykernel.dtypes import Floats


@dataclass(frozen=True, repr=False)
class Init:
    """A scheme: a distribution of unit draws, and the factor on them for each layer.

    Args:
        distribution: "normal", "uniform" (on (-1, 1)), "truncated" (at two standard deviations, not rescaled),
            "sparse", "student", "stable", "identity", "constant", "haar".
        scale: function (fan_in, fan_out) -> factor on the unit draw; by default 1.
        sampler: instead of a distribution, a function (rows, columns, seed) -> array (rows, columns), the seed a 64-bit
            int that differs for every layer and replica. All weights of a replica are then kept in memory.
        parameter: density of "sparse", degrees of freedom of "student", alpha of "stable".
        name: how tables call it.
        bias_distribution: "zero", or "uniform" or "normal" with `bias_scale` (fan_in, fan_out) -> half-width or
            standard deviation.
        fixup: whether residual branches are scaled and their last layers zeroed, as `Fixup` does.

    Raises:
        ValueError, TypeError: an unknown distribution, a parameter outside its family's range, a scale or sampler that
            is no function.

    Examples:
        >>> wide = Init(distribution="normal", scale=lambda fan_in, fan_out: 3 / fan_in**0.5, name="wide")
        >>> wide.scale(9, 4)
        1.0
    """

    distribution: str = "given"
    scale: Callable[[int, int], float] = None  # type: ignore[assignment]
    parameter: float = 0.0
    name: str = "custom"
    bias_distribution: str = "zero"
    bias_scale: Callable[[int, int], float] | None = None
    fixup: bool = False
    sampler: Callable | None = None

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        init = super().__new__(cls)
        object.__setattr__(init, "call", (args, kwargs))
        return init

    def __post_init__(self) -> None:
        if self.scale is None:
            object.__setattr__(self, "scale", Same(1.0))
        if not callable(self.scale):
            raise TypeError(f"init scale must be a function of (fan_in, fan_out), got {self.scale!r}")
        if self.sampler is None:
            checks.choice("init distribution", self.distribution, tuple(distributions.TABLE))
        elif not callable(self.sampler):
            raise TypeError(f"init sampler must be a function of (rows, columns, seed), got {self.sampler!r}")
        elif self.distribution != "given":
            raise ValueError(
                f"an init has a distribution or a sampler, not both, got {self.distribution!r} and {self.sampler!r}"
            )
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"init name must be a text, got {self.name!r}")
        known = distributions.TABLE.get(self.distribution)
        check, label, *allowed = known.parameter if known else (checks.finite, "init parameter")
        object.__setattr__(self, "parameter", check(label, self.parameter, *allowed))
        checks.choice("init bias_distribution", self.bias_distribution, distributions.BIASES)
        if self.bias_distribution != "zero" and not callable(self.bias_scale):
            raise TypeError(f"init bias_scale must be a function of (fan_in, fan_out), got {self.bias_scale!r}")
        if not isinstance(self.fixup, bool):
            raise TypeError(f"init fixup must be True or False, got {self.fixup!r}")

    def __repr__(self) -> str:
        """The call that made it."""
        args, kwargs = vars(self)["call"]
        words = [*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())]
        return f"{type(self).__name__}({', '.join(words)})"

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Fan:
    """(fan_in, fan_out) -> factor * sqrt(variance / fan); a class so that schemes compare, hash and pickle."""

    variance: float
    mode: str
    factor: float = 1.0

    def __call__(self, fan_in: int, fan_out: int) -> float:
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        return self.factor * math.sqrt(self.variance / fan)


@dataclass(frozen=True)
class Same:
    """The same factor for every layer."""

    factor: float

    def __call__(self, fan_in: int, fan_out: int) -> float:
        return self.factor


def complete(init: Init, **fields: Any) -> None:
    base = {"parameter": 0.0, "bias_distribution": "zero", "bias_scale": None, "fixup": False, "sampler": None}
    for key, value in {**base, **fields}.items():
        object.__setattr__(init, key, value)


@dataclass(frozen=True)
class StableFan:
    alpha: float

    def __call__(self, fan_in: int, fan_out: int) -> float:
        return (1 / (2 * fan_in)) ** (1 / self.alpha)


@dataclass(frozen=True, eq=False, repr=False)
class Given(Init):
    """Weights of your own inside a chain: what `from_torch(module, weights=True)` reads. Every replica has the same.

    Args:
        weights: one array a layer, (units out, units in), of a convolution (channels, channels in / groups, ...kernel),
            in the order of `Chain.layers`; a chain's `gain` multiplies them.
        biases: one array a layer, (units out,), None for a layer without; or None.
        name: how tables call them.

    Raises:
        TypeError, ValueError: not matrices and vectors of finite numbers, or a bias that does not fit its weight.

    Notes:
        `propagate(chain, weights=...)` takes other arrays for one call. Theory needs a scheme and refuses these.

    Examples:
        >>> import numpy as np
        >>> Given([np.eye(3), np.ones((2, 3))]).weights[1].shape
        (2, 3)
    """

    weights: tuple = ()
    biases: tuple | None = None

    def __init__(self, weights: Sequence, biases: Sequence | None = None, name: str = "given") -> None:
        if isinstance(weights, (str, bytes)) or not hasattr(weights, "__len__") or len(weights) == 0:
            raise TypeError(f"weights must be a sequence of arrays, one a layer, got {type(weights).__name__}")
        weights = tuple(_frozen(f"weights[{i}]", w, (2, 3, 4)) for i, w in enumerate(weights))
        if biases is not None:
            if isinstance(biases, (str, bytes)) or not hasattr(biases, "__len__"):
                raise TypeError(f"biases must be a sequence of arrays, one a layer, got {type(biases).__name__}")
            if len(biases) != len(weights):
                raise ValueError(f"biases must hold one array a layer, {len(weights)}, got {len(biases)}")
            biases = tuple(None if b is None else _frozen(f"biases[{i}]", b, (1,)) for i, b in enumerate(biases))
            for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
                if b is not None and len(b) != len(w):
                    raise ValueError(
                        f"biases[{i}] must have shape ({len(w)},), the rows of weights[{i}], got {b.shape}"
                    )
            biases = None if all(b is None for b in biases) else biases
        complete(self, distribution="given", scale=Same(1.0), name=name)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "biases", biases)

    def _arrays(self) -> tuple[Floats, ...]:
        return (*self.weights, *(np.zeros(0) if b is None else b for b in self.biases or ()))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Given) or len(self._arrays()) != len(other._arrays()):
            return False
        return all(np.array_equal(a, b) for a, b in zip(self._arrays(), other._arrays(), strict=True))

    def __hash__(self) -> int:
        return hash((self.name, *(a.shape for a in self._arrays()), *(float(a.flat[0]) for a in self.weights)))

    def __repr__(self) -> str:
        return f"<Given {len(self.weights)} weights{' and biases' if self.biases else ''}>"


def _frozen(name: str, value: Any, dimensions: tuple[int, ...]) -> Floats:
    if np.iscomplexobj(value):
        raise TypeError(f"{name} must be real, got a complex array")
    array = np.array(value, dtype=np.float64)
    if array.ndim not in dimensions or array.size == 0:
        raise ValueError(f"{name} must be a {'matrix' if 2 in dimensions else 'vector'}, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite")
    array.flags.writeable = False
    return array
