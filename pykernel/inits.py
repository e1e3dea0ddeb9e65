# SPDX-License-Identifier: BSD-3-Clause
"""The table of initialisation schemes: which distribution a weight has, and its scale for a layer's fans.

W[l] = gain * scale(fan_in, fan_out) * unit draw. A new scheme is one line in SCHEMES.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pykernel import checks

# Standard deviation of a standard normal conditioned on [-2, 2].
TRUNCATED_STD = 0.8796256610342398
MODES = ("fan_in", "fan_out", "fan_avg")
DISTRIBUTIONS = ("normal", "uniform", "truncated")
GAUSSIAN = ("normal", "haar")
BIASES = ("zero", "normal", "uniform")
# Of each family the check of its number, what it is called, and its range.
PARAMETERS = {
    "sparse": (checks.fraction, 'init parameter (the density of "sparse")'),
    "student": (checks.within, 'init parameter (degrees of freedom of "student")', 1.0, 1e6),
    "stable": (checks.within, 'init parameter (alpha of "stable")', 0.5, 2.0),
}


@dataclass(frozen=True)
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

    def __post_init__(self):
        if self.scale is None:
            object.__setattr__(self, "scale", _Same(1.0))
        if not callable(self.scale):
            raise TypeError(f"init scale must be a function of (fan_in, fan_out), got {self.scale!r}")
        if self.sampler is None:
            checks.choice("init distribution", self.distribution, tuple(UNIT_VARIANCE))
        elif not callable(self.sampler):
            raise TypeError(f"init sampler must be a function of (rows, columns, seed), got {self.sampler!r}")
        elif self.distribution != "given":
            raise ValueError(
                f"an init has a distribution or a sampler, not both, got {self.distribution!r} and {self.sampler!r}"
            )
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"init name must be a text, got {self.name!r}")
        check, *allowed = PARAMETERS.get(self.distribution, (checks.finite, "init parameter"))
        object.__setattr__(self, "parameter", check(*allowed[:1], self.parameter, *allowed[1:]))
        checks.choice("init bias_distribution", self.bias_distribution, BIASES)
        if self.bias_distribution != "zero" and not callable(self.bias_scale):
            raise TypeError(f"init bias_scale must be a function of (fan_in, fan_out), got {self.bias_scale!r}")
        if not isinstance(self.fixup, bool):
            raise TypeError(f"init fixup must be True or False, got {self.fixup!r}")

    def __str__(self):
        return self.name


@dataclass(frozen=True)
class VarianceScaling(Init):
    """Weights of variance scale / fan.

    Args:
        scale: variance times fan (1 LeCun and Glorot, 2 He).
        mode: "fan_in", "fan_out" or "fan_avg" (their mean).
        distribution: "normal", "uniform", or "truncated" at two standard deviations with the variance restored.

    Raises:
        ValueError: an unknown mode or distribution, a scale that is not a positive number.

    Notes:
        LeCun, Bottou, Orr, Muller 1998; Glorot, Bengio 2010, eq. 16; He, Zhang, Ren, Sun 2015, eqs. 10 and 14.

    Examples:
        >>> round(VarianceScaling(2.0, "fan_in", "normal").std(50, 70), 6)
        0.2
    """

    def __init__(
        self, scale: float = 1.0, mode: str = "fan_in", distribution: str = "normal", *, name: str | None = None
    ) -> None:
        variance = checks.positive("init scale", scale)
        checks.choice("init mode", mode, MODES)
        checks.choice("init distribution", distribution, DISTRIBUTIONS)
        label = name or f"variance_scaling({variance:g}, {mode}, {distribution})"
        _complete(self, distribution=distribution, scale=_Fan(variance, mode, 1 / unit_std(distribution)), name=label)

    def std(self, fan_in, fan_out):
        """Standard deviation of the weights of a layer."""
        return self.scale(fan_in, fan_out) * unit_std(self.distribution)


@dataclass(frozen=True)
class _Fan:
    """(fan_in, fan_out) -> factor * sqrt(variance / fan); a class so that schemes compare, hash and pickle."""

    variance: float
    mode: str
    factor: float = 1.0

    def __call__(self, fan_in, fan_out):
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        return self.factor * math.sqrt(self.variance / fan)


@dataclass(frozen=True)
class _Same:
    """The same factor for every layer."""

    factor: float

    def __call__(self, fan_in, fan_out):
        return self.factor


def _complete(init, **fields):
    base = {"parameter": 0.0, "bias_distribution": "zero", "bias_scale": None, "fixup": False, "sampler": None}
    for key, value in {**base, **fields}.items():
        object.__setattr__(init, key, value)


@dataclass(frozen=True)
class Normal(Init):
    """Weights iid N(0, std^2), whatever the width.

    Args:
        std: standard deviation, in the units of a weight.

    Raises:
        ValueError, TypeError: std is not a finite number.

    Notes:
        Krizhevsky, Sutskever, Hinton 2012 took 0.01.

    Examples:
        >>> Normal(0.01).scale(576, 576)  # standard deviation, for any fan_in and fan_out
        0.01
    """

    def __init__(self, std: float) -> None:
        _complete(self, distribution="normal", scale=_Same(checks.finite("std", std)), name=f"normal({std:g})")


@dataclass(frozen=True)
class Uniform(Init):
    """Weights iid uniform on (-limit, limit).

    Args:
        limit: half-width; the standard deviation is limit / sqrt(3).

    Raises:
        ValueError, TypeError: limit is not a finite number.

    Examples:
        >>> print(Uniform(0.05))
        uniform(0.05)
    """

    def __init__(self, limit: float) -> None:
        _complete(self, distribution="uniform", scale=_Same(checks.finite("limit", limit)), name=f"uniform({limit:g})")


@dataclass(frozen=True)
class TruncatedNormal(Init):
    """Weights N(0, std^2) conditioned on [-2 std, 2 std]: their standard deviation is .8796 std (not corrected).

    Args:
        std: standard deviation before the tails are cut.

    Raises:
        ValueError, TypeError: std is not a finite number.

    Examples:
        >>> print(TruncatedNormal(0.02))
        truncated_normal(0.02)
    """

    def __init__(self, std: float) -> None:
        _complete(
            self, distribution="truncated", scale=_Same(checks.finite("std", std)), name=f"truncated_normal({std:g})"
        )


@dataclass(frozen=True)
class Constant(Init):
    """Every weight equal to c: a matrix of rank one.

    Args:
        c: the number.

    Raises:
        ValueError, TypeError: c is not a finite number.

    Examples:
        >>> print(Constant(0.1))
        constant(0.1)
    """

    def __init__(self, c: float) -> None:
        _complete(self, distribution="constant", scale=_Same(checks.finite("c", c)), name=f"constant({c:g})")


@dataclass(frozen=True)
class Identity(Init):
    """c times the identity; for non-square layers ones on the main diagonal, zeros elsewhere.

    Args:
        c: the factor.

    Raises:
        ValueError, TypeError: c is not a finite number.

    Examples:
        >>> print(Identity(1.5))
        identity(1.5)
    """

    def __init__(self, c: float = 1.0) -> None:
        _complete(self, distribution="identity", scale=_Same(checks.finite("c", c)), name=f"identity({c:g})")


@dataclass(frozen=True)
class Orthogonal(Init):
    """Haar-distributed orthogonal matrix; for non-square layers with orthonormal rows or columns, whichever are fewer.

    Notes:
        Saxe, McClelland, Ganguli 2014, arXiv 1312.6120; uniform by QR with positive diagonal, Mezzadri 2007, arXiv
        math-ph/0609050.

    Examples:
        >>> print(Orthogonal())  # scaled by a chain's gain
        orthogonal
    """

    def __init__(self) -> None:
        _complete(self, distribution="haar", scale=_Same(1.0), name="orthogonal")


@dataclass(frozen=True)
class Fixup(Init):
    """He initialisation for residual branches of m layers: each branch's last layer 0, the others times (number of
    branches)^(-1/(2m-2)).

    Args:
        distribution: "normal", "uniform" or "truncated".

    Raises:
        ValueError: an unknown distribution.

    Notes:
        Zhang, Dauphin, Ma 2019, arXiv 1901.09321; without its learned biases and multipliers, which start at 0 and 1.

    Examples:
        >>> Fixup("uniform").distribution
        'uniform'
    """

    def __init__(self, distribution: str = "normal") -> None:
        checks.choice("init distribution", distribution, DISTRIBUTIONS)
        _complete(
            self,
            distribution=distribution,
            scale=_Fan(2.0, "fan_in", 1 / unit_std(distribution)),
            name="fixup",
            fixup=True,
        )


@dataclass(frozen=True)
class Sparse(Init):
    """Each weight is N(0, std^2) with probability `density`, else 0 (independently).

    Args:
        density: in (0, 1].
        std: standard deviation of the weights that live; by default sqrt(1 / (density fan_in)), which keeps variance
            1/fan_in.

    Raises:
        ValueError, TypeError: a density outside (0, 1], a std that is not a finite number.

    Notes:
        Martens 2010 (sparse initialisation), with a random number of connections a unit.

    Examples:
        >>> Sparse(0.25).scale(100, 100)  # of the weights that live
        0.2
    """

    def __init__(self, density: float, std: float | None = None) -> None:
        density = checks.fraction("density", density)
        scale = _Fan(1 / density, "fan_in") if std is None else _Same(checks.finite("std", std))
        label = f"sparse({density:g})" if std is None else f"sparse({density:g}, {std:g})"
        _complete(self, distribution="sparse", parameter=density, scale=scale, name=label)


@dataclass(frozen=True)
class StudentT(Init):
    """Student t weights with `degrees` >= 1 degrees of freedom.

    Args:
        degrees: degrees of freedom; the variance is infinite up to 2.
        scale: factor on the t variate; by default the one that gives variance 1/fan_in (degrees above 2), or
            1/sqrt(fan_in).

    Raises:
        ValueError, TypeError: degrees outside 1 .. 1e6, a scale that is not a finite number.

    Examples:
        >>> round(StudentT(4).scale(50, 50), 6)  # a t variate of 4 degrees has variance 2
        0.1
    """

    def __init__(self, degrees: float, scale: float | None = None) -> None:
        degrees = checks.within("degrees", degrees, 1.0, 1e6)
        spread = degrees / (degrees - 2) if degrees > 2 else 1.0
        label = f"student_t({degrees:g})" if scale is None else f"student_t({degrees:g}, {scale:g})"
        factor = _Fan(1 / spread, "fan_in") if scale is None else _Same(checks.finite("scale", scale))
        _complete(self, distribution="student", parameter=degrees, scale=factor, name=label)


@dataclass(frozen=True)
class Stable(Init):
    """Symmetric alpha-stable (Levy) weights, 0.5 <= alpha <= 2.

    Args:
        alpha: index of stability; 2 is the normal with variance 2, 1 the Cauchy distribution.
        scale: scale parameter; by default (1 / (2 fan_in))^(1/alpha), for which alpha = 2 gives variance 1/fan_in.

    Notes:
        Chambers, Mallows, Stuck 1976; heavy-tailed networks: Qu, Wardak, Gong 2022.

    Raises:
        ValueError, TypeError: alpha outside 0.5 .. 2, a scale that is not a finite number.

    Examples:
        >>> Stable(1.0).scale(50, 50)
        0.01
    """

    def __init__(self, alpha: float, scale: float | None = None) -> None:
        alpha = checks.within("alpha", alpha, 0.5, 2.0)
        label = f"stable({alpha:g})" if scale is None else f"stable({alpha:g}, {scale:g})"
        factor = _StableFan(alpha) if scale is None else _Same(checks.finite("scale", scale))
        _complete(self, distribution="stable", parameter=alpha, scale=factor, name=label)


@dataclass(frozen=True)
class _StableFan:
    alpha: float

    def __call__(self, fan_in, fan_out):
        return (1 / (2 * fan_in)) ** (1 / self.alpha)


@dataclass(frozen=True, eq=False)
class Given(Init):
    """Weights of your own inside a chain: what `from_torch(module, weights=True)` reads. Every replica has the same.

    Args:
        weights: one array a layer, (units out, units in), in the order of `Chain.layers`; a chain's `gain` multiplies
            them.
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
        weights = tuple(_frozen(f"weights[{i}]", w, 2) for i, w in enumerate(weights))
        if biases is not None:
            if isinstance(biases, (str, bytes)) or not hasattr(biases, "__len__"):
                raise TypeError(f"biases must be a sequence of arrays, one a layer, got {type(biases).__name__}")
            if len(biases) != len(weights):
                raise ValueError(f"biases must hold one array a layer, {len(weights)}, got {len(biases)}")
            biases = tuple(None if b is None else _frozen(f"biases[{i}]", b, 1) for i, b in enumerate(biases))
            for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
                if b is not None and len(b) != len(w):
                    raise ValueError(
                        f"biases[{i}] must have shape ({len(w)},), the rows of weights[{i}], got {b.shape}"
                    )
            biases = None if all(b is None for b in biases) else biases
        _complete(self, distribution="given", scale=_Same(1.0), name=name)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "biases", biases)

    def _arrays(self):
        return (*self.weights, *(np.zeros(0) if b is None else b for b in self.biases or ()))

    def __eq__(self, other):
        if not isinstance(other, Given) or len(self._arrays()) != len(other._arrays()):
            return False
        return all(np.array_equal(a, b) for a, b in zip(self._arrays(), other._arrays(), strict=True))

    def __hash__(self):
        return hash((self.name, *(a.shape for a in self._arrays()), *(float(a.flat[0]) for a in self.weights)))

    def __repr__(self):
        return f"<Given {len(self.weights)} weights{' and biases' if self.biases else ''}>"


def _frozen(name, value, dimensions):
    if np.iscomplexobj(value):
        raise TypeError(f"{name} must be real, got a complex array")
    array = np.array(value, dtype=np.float64)
    if array.ndim != dimensions or array.size == 0:
        raise ValueError(f"{name} must be a {'matrix' if dimensions == 2 else 'vector'}, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite")
    array.flags.writeable = False
    return array


# Variance of one unit draw; None where it is infinite or the entries are not iid.
UNIT_VARIANCE = {
    "normal": 1.0,
    "uniform": 1 / 3,
    "truncated": TRUNCATED_STD**2,
    "sparse": None,
    "student": None,
    "stable": None,
    "identity": None,
    "constant": None,
    "haar": None,
}


def unit_std(distribution):
    """Standard deviation of one unit draw of the three plain distributions."""
    return math.sqrt(UNIT_VARIANCE[distribution])


def unit_variance(distribution, parameter=0.0):
    """Variance of one unit draw, inf for heavy tails, nan where entries are not iid (identity, constant, haar)."""
    if distribution == "sparse":
        return parameter
    if distribution == "student":
        return parameter / (parameter - 2) if parameter > 2 else math.inf
    if distribution == "stable":
        return 2.0 if parameter == 2 else math.inf
    return UNIT_VARIANCE.get(distribution) or math.nan


def _scheme(name, variance, mode, distribution="normal"):
    return VarianceScaling(variance, mode, distribution, name=name)


def _torch_linear_default():
    """torch.nn.Linear: weight and bias uniform on +-1/sqrt(fan_in) (kaiming_uniform_ with a = sqrt 5)."""
    fan = _Fan(1.0, "fan_in")
    return Init("uniform", fan, name="torch_linear_default", bias_distribution="uniform", bias_scale=fan)


FAMILIES = {"he": (2.0, "fan_in"), "glorot": (1.0, "fan_avg"), "lecun": (1.0, "fan_in")}
SCHEMES: dict[str, Init] = {
    f"{family}_{suffix}": _scheme(f"{family}_{suffix}", variance, mode, distribution)
    for family, (variance, mode) in FAMILIES.items()
    for suffix, distribution in (("normal", "normal"), ("uniform", "uniform"), ("truncated_normal", "truncated"))
}
SCHEMES |= {
    "torch_linear_default": _torch_linear_default(),
    "keras_he_normal": _scheme("keras_he_normal", 2.0, "fan_in", "truncated"),
    "keras_glorot_uniform": _scheme("keras_glorot_uniform", 1.0, "fan_avg", "uniform"),
    "orthogonal": Orthogonal(),
    "identity": Identity(1.0),
    "fixup": Fixup(),
}
ALIASES = {"xavier": "glorot", "kaiming": "he"}
CALLS = {
    "normal": Normal,
    "uniform": Uniform,
    "truncated_normal": TruncatedNormal,
    "constant": Constant,
    "identity": Identity,
    "sparse": Sparse,
    "student_t": StudentT,
    "stable": Stable,
}


def get(init):
    """The scheme of a name, of "name(numbers)", or of an Init itself.

    Raises:
        ValueError: an unknown name, answered with the nearest known one.
        TypeError: neither a name nor an Init.

    Examples:
        >>> get("xavier_normal").name
        'glorot_normal'
        >>> get("identity(1.5)") == Identity(1.5)
        True
    """
    if isinstance(init, Init):
        return init
    if not isinstance(init, str):
        raise TypeError(f"init must be a name or a pykernel.Init, got {init!r}")
    name, opened, rest = init.strip().lower().partition("(")
    if opened and not rest.endswith(")"):
        raise ValueError(f"init {init!r} must close its parenthesis, as in 'normal(0.01)'")
    for alias, family in ALIASES.items():
        name = name.replace(alias, family)
    name = f"{name}_normal" if name in FAMILIES else name
    if rest and name in CALLS:
        try:
            numbers = [float(v) for v in rest.rstrip(") ").split(",")]
        except ValueError:
            raise ValueError(f"init {init!r}: parameters must be numbers, as in 'normal(0.01)'") from None
        return CALLS[name](*numbers)
    if name not in SCHEMES or rest:
        if name in CALLS:
            raise ValueError(f"init {init!r} needs its numbers, as in '{name}(0.1)'")
        near = difflib.get_close_matches(name, [*SCHEMES, *CALLS], 1, 0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"unknown init {init!r}; {hint}known: {', '.join(SCHEMES)}; with numbers: "
            f"{', '.join(f'{c}(..)' for c in CALLS)}"
        )
    return SCHEMES[name]
