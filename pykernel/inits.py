# SPDX-License-Identifier: BSD-3-Clause
"""The table of initialisation schemes: which distribution a weight has, and its scale for a layer's fans.

W[l] = gain * scale(fan_in, fan_out) * unit draw. A new scheme is one line in SCHEMES.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from pykernel import checks
from pykernel.distributions import SCALED, unit_std
from pykernel.init import Fan, Init, Same, StableFan, complete

MODES = ("fan_in", "fan_out", "fan_avg")


@dataclass(frozen=True, repr=False)
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
        checks.choice("init distribution", distribution, SCALED)
        label = name or f"variance_scaling({variance:g}, {mode}, {distribution})"
        complete(self, distribution=distribution, scale=Fan(variance, mode, 1 / unit_std(distribution)), name=label)

    def std(self, fan_in: int, fan_out: int) -> float:
        """Standard deviation of the weights of a layer."""
        return self.scale(fan_in, fan_out) * unit_std(self.distribution)


@dataclass(frozen=True, repr=False)
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
        complete(self, distribution="normal", scale=Same(checks.finite("std", std)), name=f"normal({std:g})")


@dataclass(frozen=True, repr=False)
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
        complete(self, distribution="uniform", scale=Same(checks.finite("limit", limit)), name=f"uniform({limit:g})")


@dataclass(frozen=True, repr=False)
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
        complete(
            self, distribution="truncated", scale=Same(checks.finite("std", std)), name=f"truncated_normal({std:g})"
        )


@dataclass(frozen=True, repr=False)
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
        complete(self, distribution="constant", scale=Same(checks.finite("c", c)), name=f"constant({c:g})")


@dataclass(frozen=True, repr=False)
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
        complete(self, distribution="identity", scale=Same(checks.finite("c", c)), name=f"identity({c:g})")


@dataclass(frozen=True, repr=False)
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
        complete(self, distribution="haar", scale=Same(1.0), name="orthogonal")


@dataclass(frozen=True, repr=False)
class DeltaOrthogonal(Init):
    """Of a convolution an orthogonal matrix at the middle tap, zeros at all others: it keeps every norm, as
    `Orthogonal` does in other layers.

    Notes:
        Xiao, Bahri, Sohl-Dickstein, Schoenholz, Pennington 2018, arXiv 1806.05393. Kernels have an odd number of taps
        along each axis.

    Examples:
        >>> print(DeltaOrthogonal())
        delta_orthogonal
    """

    def __init__(self) -> None:
        complete(self, distribution="haar", parameter=1.0, scale=Same(1.0), name="delta_orthogonal")


@dataclass(frozen=True, repr=False)
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
        checks.choice("init distribution", distribution, SCALED)
        complete(
            self,
            distribution=distribution,
            scale=Fan(2.0, "fan_in", 1 / unit_std(distribution)),
            name="fixup",
            fixup=True,
        )


@dataclass(frozen=True, repr=False)
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
        scale = Fan(1 / density, "fan_in") if std is None else Same(checks.finite("std", std))
        label = f"sparse({density:g})" if std is None else f"sparse({density:g}, {std:g})"
        complete(self, distribution="sparse", parameter=density, scale=scale, name=label)


@dataclass(frozen=True, repr=False)
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
        factor = Fan(1 / spread, "fan_in") if scale is None else Same(checks.finite("scale", scale))
        complete(self, distribution="student", parameter=degrees, scale=factor, name=label)


@dataclass(frozen=True, repr=False)
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
        factor = StableFan(alpha) if scale is None else Same(checks.finite("scale", scale))
        complete(self, distribution="stable", parameter=alpha, scale=factor, name=label)


def _scheme(name: str, variance: float, mode: str, distribution: str = "normal") -> Init:
    return VarianceScaling(variance, mode, distribution, name=name)


def _torch_default(name: str) -> Init:
    """torch.nn.Linear and Conv: weight and bias uniform on +-1/sqrt(fan_in) (kaiming_uniform_ with a = sqrt 5)."""
    fan = Fan(1.0, "fan_in")
    return Init("uniform", fan, name=name, bias_distribution="uniform", bias_scale=fan)


FAMILIES = {"he": (2.0, "fan_in"), "glorot": (1.0, "fan_avg"), "lecun": (1.0, "fan_in")}
SCHEMES: dict[str, Init] = {
    f"{family}_{suffix}": _scheme(f"{family}_{suffix}", variance, mode, distribution)
    for family, (variance, mode) in FAMILIES.items()
    for suffix, distribution in (("normal", "normal"), ("uniform", "uniform"), ("truncated_normal", "truncated"))
}
SCHEMES |= {
    "torch_linear_default": _torch_default("torch_linear_default"),
    "torch_conv_default": _torch_default("torch_conv_default"),
    "keras_he_normal": _scheme("keras_he_normal", 2.0, "fan_in", "truncated"),
    "keras_glorot_uniform": _scheme("keras_glorot_uniform", 1.0, "fan_avg", "uniform"),
    "orthogonal": Orthogonal(),
    "delta_orthogonal": DeltaOrthogonal(),
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


def get(init: Any) -> Init:
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


def word(init: Init) -> str:
    """An init as Python says it: its name where that makes it, else the call."""
    try:
        named = get(init.name) == init
    except ValueError:  # a name of the user's own
        named = False
    return repr(init.name if named else init)
