# SPDX-License-Identifier: BSD-3-Clause
"""The table of changes that `recommend` tries: what each makes of a chain, what it costs, and the paper it comes
from."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from pykernel.chain import ORDERS, Chain
from pykernel.parts import Residual
from pykernel.theory.critical import CriticalPoint, critical_gain
from pykernel.theory.diagnosis import theory
from pykernel.theory.roots import root

# Roberts, Yaida, Hanin 2022, The Principles of Deep Learning Theory, ch. 5: where chi_perp = chi_par = 1 for GELU.
GELU_POINT = (1.98305826, 0.17292239)
DRAW, FRAME = "no cost: other draws of the same weights", "a QR decomposition a layer, once"
NUMBER, INIT, PART, FUNCTION = 1, 2, 3, 4  # efforts: a number, another init, a new part, another function or shape
WIDEST = 4096  # units up to which a wider chain is tried
CLOSE = 0.01  # decades end to end that count as none
LOST = 1.0  # decades that rounding a factor to four digits may cost
NOISE = 0.05  # standard deviation of the biases that keep an odd function from its linear piece


class Situation:
    """A chain, and what proposals ask of it."""

    def __init__(self, chain: Chain, batch: int, positions: Any = ()) -> None:
        self.chain, self.batch, self.positions = chain, batch, positions
        self.layers = chain.blocks is None  # equal layers by keywords, whose words may be changed
        self.plain = self.layers and chain.norm is None and chain.residual is None
        self.equal = self.layers and chain.widths is None
        self.function = getattr(chain.activation, "name", "")  # nothing where there are several
        self.base = chain.replace(gain=1.0)
        self.usual = self.base.replace(
            init="lecun_normal" if self.function in ("tanh", "selu", "linear") else "he_normal"
        )

    @cached_property
    def gain(self) -> float | None:
        return tuned_gain(self.chain, self.batch, self.positions)

    @cached_property
    def decades(self) -> float:
        """What theory says of the chain as it is; nan where it says nothing."""
        return predicted_decades(self.chain, self.batch, positions=self.positions)

    def critical(self, bias_std: float = 0.0) -> CriticalPoint | None:
        """The critical point of a chain without norm and skips, where there is one."""
        if not (self.plain and self.function):
            return None
        point = critical_gain(self.chain.activation, bias_std)
        return point if point.exists else None


# In words, and the changed chain; None where a proposal does not apply, of blocks a phrase where that is worth saying.
Change = tuple[str, Chain] | str | None


class Proposal(NamedTuple):
    """What it makes of a chain, the effort (see above), the cost in words, the paper or ""."""

    change: Callable[[Situation], Change]
    effort: int
    cost: str
    source: str = ""


def _tune(s: Situation) -> Change:
    return None if s.gain is None else (f"gain {s.gain:.4g} on {s.chain.init}", s.chain.replace(gain=s.gain))


def _tune_all(s: Situation) -> Change:
    if not isinstance(s.chain.gain, tuple):
        return None
    scaled = lambda factor: s.chain.replace(gain=[gain * factor for gain in s.chain.gain])
    factor = tuned(scaled, s.batch, s.positions)
    return None if factor is None else (f"all gains times {rounded(factor):.4g}", scaled(rounded(factor)))


def _init(init: str, *functions: str) -> Callable[[Situation], Change]:
    return lambda s: (f"init {init}", s.base.replace(init=init)) if s.function in functions else None


def _critical(words: str, init: str) -> Callable[[Situation], Change]:
    def change(s: Situation) -> Change:
        point = s.critical()
        if point is None:
            return None
        return f"{words}, gain {point.gain:.4g}", s.base.replace(init=init, gain=point.gain)

    return change


def _gelu_point(s: Situation) -> Change:
    if not (s.plain and s.function in ("gelu", "gelu_tanh")):
        return None
    w, b = (v**0.5 for v in GELU_POINT)
    return f"init lecun_normal, gain {w:.4g}, bias std {b:.4g}", s.base.replace(init="lecun_normal", gain=w, bias_std=b)


def _noisy_orthogonal(s: Situation) -> Change:
    point = s.critical(NOISE) if s.function in ("tanh", "erf", "arctan", "softsign", "hardtanh", "sin") else None
    if point is None:
        return None
    words = f"orthogonal weights, gain {point.gain:.4g}, bias std {NOISE:g}"
    return words, s.base.replace(init="orthogonal", gain=point.gain, bias_std=NOISE)


def _rms_norm(s: Situation) -> Change:
    if not s.layers or (s.chain.norm == "rms" and s.chain.order == ORDERS[1]):
        return None
    return "rms norm before the activation, then the weights", s.usual.replace(
        norm="rms", order=ORDERS[1], residual=None
    )


def _skips(words: str, norm: str | None, scale: float | str) -> Callable[[Situation], Change]:
    def change(s: Situation) -> Change:
        return (words, s.usual.replace(norm=norm, order=ORDERS[1], residual=Residual(1, scale))) if s.equal else None

    return change


def _scale_branches(s: Situation) -> Change:
    if not s.equal or s.chain.residual is None:
        return None
    scaled = s.chain.replace(residual=Residual(s.chain.residual.every, "inverse_sqrt_depth"))
    return "branches times 1/sqrt(number of branches)", scaled


def _instead(words: str, activation: str, init: str) -> Callable[[Situation], Change]:
    """Another function for those whose slope or mean no gain mends."""

    def change(s: Situation) -> Change:
        return (
            (words, s.base.replace(activation=activation, init=init)) if s.function in ("sigmoid", "softplus") else None
        )

    return change


def _selu(s: Situation) -> Change:
    if not s.layers or s.chain.norm is not None or s.function in ("sigmoid", "softplus", "selu", "linear"):
        return None
    return "selu, init lecun_normal", s.base.replace(activation="selu", init="lecun_normal")


def _wider(s: Situation) -> Change:
    if not (s.equal and s.plain) or s.gain is None:
        return None
    width = 4 * max(int(n) for n in s.chain.layer_widths)
    if width > WIDEST:
        return None
    wider = s.chain.replace(width=width, gain=s.gain if s.chain.init.distribution != "haar" else s.chain.gain)
    again = tuned_gain(wider, s.batch, s.positions)
    wider = wider.replace(gain=s.gain if again is None else again)
    return f"{width} units wide, gain {wider.gain:.4g}", wider


PROPOSALS = (
    Proposal(_tune, NUMBER, "one number, tuned by theory to this depth"),
    Proposal(_tune_all, NUMBER, "one number, tuned by theory to this depth"),
    Proposal(_init("he_normal", "relu", "leaky_relu"), INIT, DRAW, "He et al. 2015"),
    Proposal(_init("glorot_normal", "tanh"), INIT, DRAW, "Glorot, Bengio 2010"),
    Proposal(_init("lecun_normal", "selu"), INIT, DRAW, "Klambauer et al. 2017"),
    Proposal(
        _critical("orthogonal weights", "orthogonal"), INIT, FRAME + "; least spread over draws", "Saxe et al. 2014"
    ),
    Proposal(_critical("init lecun_normal", "lecun_normal"), INIT, DRAW, "edge of chaos, Schoenholz et al. 2017"),
    Proposal(_gelu_point, INIT, "random biases", "Roberts, Yaida, Hanin 2022, ch. 5"),
    Proposal(_noisy_orthogonal, INIT, FRAME + ", and random biases", "Pennington et al. 2017"),
    Proposal(_rms_norm, PART, "one pass over each layer", "Zhang, Sennrich 2019"),
    Proposal(
        _skips("skip connections with rms norm inside the branch", "rms", 1.0),
        PART,
        "one pass and one sum a layer",
        "pre-norm, Xiong et al. 2020",
    ),
    Proposal(
        _skips("skip connections, branches times 1/sqrt(depth)", None, "inverse_sqrt_depth"),
        PART,
        "one sum a layer",
        "Hayou et al. 2021; Hanin, Rolnick 2018",
    ),
    Proposal(
        _skips("skip connections, branches start at 0", None, 0.0),
        PART,
        "one sum and one learned scale a layer; before training no layer does anything",
        "De, Smith 2020 (SkipInit); ReZero",
    ),
    Proposal(_scale_branches, NUMBER, "one number", "Hayou et al. 2021"),
    Proposal(
        _instead("tanh with orthogonal weights", "tanh", "orthogonal"), FUNCTION, "another function", "Saxe et al. 2014"
    ),
    Proposal(_instead("relu, init he_normal", "relu", "he_normal"), FUNCTION, "another function", "He et al. 2015"),
    Proposal(_selu, FUNCTION, "another function", "Klambauer et al. 2017"),
    Proposal(
        _wider,
        FUNCTION,
        "16 times the weights; the spread over draws halves where depth over width sets it",
        "Hanin, Nica 2018",
    ),
)


def predicted_decades(chain: Chain, batch: int, measure: str = "signal_end_to_end", positions: Any = ()) -> float:
    """Theory's typical change of a ratio (see `governing`), at this width where a law is known; nan without a
    theory."""
    prediction = theory(chain, batch, positions=positions)
    if prediction is None:
        return math.nan
    mean = prediction.signal_end_to_end_mean
    if measure == "end_to_end":
        return prediction.end_to_end
    return mean if math.isfinite(mean) else prediction.signal_end_to_end


def tuned_gain(chain: Chain, batch: int = 1, positions: Any = ()) -> float | None:
    """The gain nearest to the present one at which theory's typical gradient change is zero over the chain's depth
    (None where there is none).
    """
    if isinstance(chain.gain, tuple) or chain.gain == 0:  # one a layer, or nothing to tune
        return None
    if any(init.distribution in ("identity", "constant", "given") for init in chain.inits):
        return None
    here = abs(chain.gain)
    factor = tuned(lambda factor: chain.replace(gain=here * factor), batch, positions)
    return None if factor is None else rounded(here * factor)


def rounded(number: float) -> float:
    """To the four digits that advice is given in."""
    return float(f"{number:.4g}")


def tuned(scaled: Callable[[float], Chain], batch: int = 1, positions: Any = ()) -> float | None:
    """The factor nearest to 1 at which theory's typical gradient change of `scaled(factor)` is zero; None where there
    is none from e^-4 to e^4, none that four digits tell (a gate's), or no theory."""
    change = lambda log: predicted_decades(scaled(math.exp(log)), batch, positions=positions)
    values: dict[float, float] = {}
    for x in (0.0, 0.2, -0.2, 0.5, -0.5, 0.9, -0.9, 1.4, -1.4, 2.0, -2.0, 2.8, -2.8, 4.0, -4.0):
        values[x] = change(x)
        if math.isnan(values[x]):
            return None
        known = sorted(values)
        for low, high in itertools.pairwise(known):
            if (values[low] > 0) != (values[high] > 0) and np.all(np.isfinite([values[low], values[high]])):
                factor = math.exp(root(change, low, high, values[low], values[high], CLOSE))
                return factor if abs(change(math.log(rounded(factor)))) < LOST else None
    return None
