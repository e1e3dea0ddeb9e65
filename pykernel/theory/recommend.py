# SPDX-License-Identifier: BSD-3-Clause
"""What to change so that a chain keeps its gradient: candidates predicted by theory, then measured."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, fields

import numpy as np

from pykernel import checks
from pykernel.chain import ORDERS, Chain, Residual
from pykernel.engines import run
from pykernel.theory.critical import critical_gain
from pykernel.theory.diagnosis import governing, theory
from pykernel.verdict import EXPLODING, classify

# Roberts, Yaida, Hanin 2022, The Principles of Deep Learning Theory, ch. 5: where chi_perp = chi_par = 1 for GELU.
GELU_POINT = (1.98305826, 0.17292239)
DRAW, FRAME = "no cost: other draws of the same weights", "a QR decomposition a layer, once"
UNSURE = 0.2  # share of draws beyond the bounds from which a healthy median may be luck
FORWARD_BOUND = 4.0  # decades of mean square: a factor 100 in amplitude


@dataclass(frozen=True)
class Candidate:
    """One change, predicted and measured.

    Attributes:
        change: in words.  chain: the changed chain.  effort: 0 none, 1 a number, 2 another init, 3 a new part, 4 another function or shape.
        cost: what it costs.  source: the paper it comes from, or "".
        predicted: decades that theory gives for the measured ratio, at this width where a law is known (nan without).
        measured: median over replicas of the ratio that the verdict is taken from, in decades.  spread: its standard deviation over
        replicas.
        outside: share of replicas beyond the bounds.  forward: change of log10 mean square from a[1] to a[L].
        verdict: measured.  healthy: verdict "stable".
    """

    change: str
    chain: Chain
    effort: int
    cost: str
    source: str = ""
    predicted: float = math.nan
    measured: float = math.nan
    spread: float = math.nan
    outside: float = math.nan
    forward: float = math.nan
    verdict: str = ""

    @property
    def healthy(self) -> bool:
        return self.verdict == "stable"

    @property
    def preserves(self) -> str:
        """ "both", "backward", "forward" or "neither"."""
        ahead = abs(self.forward) <= FORWARD_BOUND
        return {(True, True): "both", (True, False): "backward", (False, True): "forward", (False, False): "neither"}[self.healthy, ahead]


@dataclass(frozen=True)
class Recommendation:
    """Candidates for a chain, the best first; index, iterate or print it.

    Attributes:
        original: the chain as it is, measured.
        candidates: list of `Candidate`.
        replicas, batch: of each measurement.
        bound: decades over the whole chain that count as healthy.
    """

    original: Candidate
    candidates: list = field(default_factory=list)
    replicas: int = 0
    batch: int = 1
    bound: float = EXPLODING

    @property
    def best(self) -> Candidate | None:
        """The first healthy candidate (the chain itself if it is healthy), or None."""
        return next((c for c in [self.original, *self.candidates] if c.healthy), None)

    def __iter__(self):
        return iter(self.candidates)

    def __len__(self):
        return len(self.candidates)

    def __getitem__(self, i):
        return self.candidates[i]

    def __str__(self):
        o = self.original
        lines = [*_wrapped(f"{o.chain}: measured {o.verdict}, {o.measured:+.3g} decades end to end{self._theory()}"), ""]
        lines.append(f"{'change':<37}{'theory':>8}{'measured':>9}{'spread':>7}{'bad':>5}  {'preserves':<9}")
        for c in self.candidates:
            words = _wrapped(c.change, 36)
            lines.append(
                f"{words[0]:<37}{_number(c.predicted):>8}{_number(c.measured):>9}{c.spread:>7.2f}{c.outside:>5.0%}  {c.preserves:<9}"
            )
            lines += [f"  {w}" for w in words[1:]]
            lines += [f"  {w}" for w in _wrapped(c.cost + (f"; {c.source}" if c.source else ""), 76)]
        lines += ["", *_wrapped(self.summary)]
        lines += _wrapped(
            f"decades of the gradient from output to input, {self.replicas} replicas, batch {self.batch}; "
            f"bad: share of replicas beyond {self.bound:g} decades; preserves: the gradient within these bounds (backward), "
            f"the signal's mean square within {FORWARD_BOUND:g} decades (forward), or both. Order: healthy medians first, "
            f"at most {UNSURE:.0%} bad draws before more, then the smaller change (a number, an init, a part, another function or shape), "
            "then what preserves both; the best is the first healthy one"
        )
        return "\n".join(lines)

    def _theory(self) -> str:
        """What theory says of the original, with its verdict where that is not the measured one."""
        decades = self.original.predicted
        if math.isnan(decades):
            return ""
        verdict = classify([math.nan], [decades], vanishing=-self.bound, exploding=self.bound)
        return f" (theory {_number(decades)}" + ("" if verdict == self.original.verdict else f", {verdict}") + ")"

    @property
    def summary(self) -> str:
        """One sentence."""
        if self.original.healthy:
            text = f"the chain is healthy as it is, measured{self._theory()}"
            if self.original.outside <= UNSURE:
                return f"{text}: nothing has to change"
            surer = next((c for c in self.candidates if c.healthy and c.outside <= UNSURE), None)
            text += f", but only in the median: {self.original.outside:.0%} of the draws end beyond the bounds"
            return text + (f"; surer: {surer.change}" if surer else "")
        best = self.best
        if best is None:
            return "none of the candidates in this list keeps the gradient within bounds: a shallower or wider chain is needed"
        unsure = ", and another seed's median may, too" if best.outside > 2 * UNSURE else ""
        tail = f"; still {best.outside:.0%} of the draws end beyond the bounds{unsure}" if best.outside > 0.05 else ""
        return f"best: {best.change}{tail}"


def _number(x: float) -> str:
    return f"{x if abs(x) > 1e-9 else 0.0:+.3g}" if math.isfinite(x) else "-" if math.isnan(x) else f"{x:+}"


def _wrapped(text: str, width: int = 80) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width) or [""]


def recommend(chain: Chain, target: float | None = None, *, batch: int | None = None, replicas: int = 24, seed: int = 0) -> Recommendation:
    """The smallest changes that keep this chain's gradient within bounds over its depth, each predicted and measured.

    Args:
        chain: what is wrong, or might be.
        target: bound in decades, either way, on the gradient's change end to end; 3 by default.
        batch: inputs of each measurement; by default 16 with batch norm, else 1.
        replicas: of each measurement (fewer for chains that take long).
        seed: of the measurements.

    Returns:
        Recommendation: candidates, healthy ones first, smaller changes before larger ones (a number, another init, a new part, another
        function or shape), then those that keep the signal as well as the gradient, then by how many words change and by the share of
        bad draws. Where none is healthy it says so.

    Raises:
        ValueError, TypeError: target or replicas are not positive.

    Examples:
        >>> r = recommend(Chain(depth=30, width=32, activation="tanh", init="lecun_normal", gain=0.5), replicas=8)
        >>> r.best.healthy
        True
    """
    if not isinstance(chain, Chain):
        raise TypeError(f"chain must be a pykernel.Chain, got {type(chain).__name__}")
    bound = EXPLODING if target is None else checks.positive("target", target)
    replicas = checks.integer("replicas", replicas, 1, 10**6)
    batch = (16 if chain.norm == "batch" else 1) if batch is None else checks.integer("batch", batch, 1, 4096)
    bench = _Bench(batch, replicas, seed, bound)
    original = bench.measure(Candidate("as it is", chain, 0, "nothing"))
    proposals = []
    known = {_law(chain)}
    for candidate in proposals_for(chain, batch):
        if _law(candidate.chain) not in known:
            known.add(_law(candidate.chain))
            proposals.append(candidate)
    promising = [c for c in (bench.predict(c) for c in proposals) if not abs(c.predicted) > 1.5 * bound]
    measured = [bench.measure(c) for c in promising]
    order = sorted(
        measured,
        key=lambda c: (not c.healthy, c.outside > UNSURE, c.effort, c.preserves != "both", _changes(chain, c.chain), round(c.outside, 1)),
    )
    return Recommendation(original, order, replicas, batch, bound)


def _changes(before: Chain, after: Chain) -> int:
    """How many words of a chain another one changes."""
    return sum(getattr(before, word.name) != getattr(after, word.name) for word in fields(Chain))


def _law(chain: Chain) -> tuple:
    """What makes two chains the same in law: two schemes may differ in name only."""
    program = run.lowered(chain)
    layers, steps, joins = program.layers, program.steps, program.joins
    arrays = (program.nodes, layers.units, layers.draw, layers.bias_draw, steps.row, steps.norm, program.norm_steps, program.masks)
    numbers = (layers.scale, layers.bias_scale, joins.skip, joins.branch, program.factors)
    tables = (program.stretches, program.draws, program.activations, program.norms)
    return (*tables, *(a.tobytes() for a in arrays), *(np.round(a, 12).tobytes() for a in numbers))


class _Bench:
    """Predicts and measures candidates under the same conditions."""

    def __init__(self, batch: int, replicas: int, seed: int, bound: float):
        self.batch, self.replicas, self.seed, self.bound = batch, replicas, seed, bound

    def predict(self, candidate: Candidate) -> Candidate:
        return _with(candidate, predicted=predicted_decades(candidate.chain, self.batch))

    def measure(self, candidate: Candidate) -> Candidate:
        chain, replicas = candidate.chain, self.replicas
        if chain.init.distribution not in ("normal", "haar"):  # every entry is drawn: about 2 ns each, a few seconds at most
            replicas = max(min(replicas, int(2e9 / chain.weight_count)), min(replicas, 4))
        p = run.measure(chain, batch=self.batch, replicas=replicas, seed=self.seed)
        measure = governing(p.end_to_end, p.signal_end_to_end)
        values = np.asarray(getattr(p, measure))
        finite = values[np.isfinite(values)]
        ahead = p.log10_mean_square_activation
        with np.errstate(invalid="ignore"):
            outside = float(np.mean(~(np.abs(values) <= self.bound)))
            forward = float(np.median(ahead[:, -1] - ahead[:, 0]))
        return _with(
            candidate,
            predicted=predicted_decades(chain, self.batch, measure),
            measured=float(np.median(values)),
            spread=float(finite.std(ddof=1)) if len(finite) > 1 else math.nan,
            outside=outside,
            forward=forward,
            verdict=p.judge(-self.bound, self.bound),
        )


def _with(candidate: Candidate, **changes) -> Candidate:
    from dataclasses import replace

    return replace(candidate, **changes)


def predicted_decades(chain: Chain, batch: int, measure: str = "signal_end_to_end") -> float:
    """Theory's typical change of a ratio (see `governing`), at this width where a law is known; nan without a theory."""
    prediction = theory(chain, batch)
    if prediction is None:
        return math.nan
    mean = prediction.signal_end_to_end_mean
    if measure == "end_to_end":
        return prediction.end_to_end
    return mean if math.isfinite(mean) else prediction.signal_end_to_end


def proposals_for(chain: Chain, batch: int = 1) -> list[Candidate]:
    """Changes worth trying, unmeasured."""
    plain = chain.norm is None and chain.residual is None
    equal = chain.widths is None
    out = []
    gain = tuned_gain(chain, batch)
    if gain is not None:
        out.append(Candidate(f"gain {gain:.4g} on {chain.init}", chain.replace(gain=gain), 1, "one number, tuned by theory to this depth"))
    base = chain.replace(gain=1.0)
    name = chain.activation.name
    schemes = {
        "relu": ("he_normal", "He et al. 2015"),
        "leaky_relu": ("he_normal", "He et al. 2015"),
        "tanh": ("glorot_normal", "Glorot, Bengio 2010"),
        "selu": ("lecun_normal", "Klambauer et al. 2017"),
    }
    if name in schemes:
        init, source = schemes[name]
        out.append(Candidate(f"init {init}", base.replace(init=init), 2, DRAW, source))
    point = critical_gain(chain.activation) if chain.norm is None else None
    if point is not None and point.exists and plain:
        changed = base.replace(init="orthogonal", gain=point.gain)
        out.append(
            Candidate(
                f"orthogonal weights, gain {point.gain:.4g}",
                changed,
                2,
                FRAME + "; least spread over draws",
                "Saxe et al. 2014",
            )
        )
        changed = base.replace(init="lecun_normal", gain=point.gain)
        out.append(
            Candidate(
                f"init lecun_normal, gain {point.gain:.4g}",
                changed,
                2,
                DRAW,
                "edge of chaos, Schoenholz et al. 2017",
            )
        )
    if plain and name in ("gelu", "gelu_tanh"):
        w, b = (v**0.5 for v in GELU_POINT)
        changed = base.replace(init="lecun_normal", gain=w, bias_std=b)
        words = f"init lecun_normal, gain {w:.4g}, bias std {b:.4g}"
        out.append(Candidate(words, changed, 2, "random biases", "Roberts, Yaida, Hanin 2022, ch. 5"))
    if (plain and name == "tanh") or name in ("erf", "arctan", "softsign", "hardtanh", "sin"):
        point = critical_gain(chain.activation, 0.05)
        if plain and point.exists:
            changed = base.replace(init="orthogonal", gain=point.gain, bias_std=0.05)
            words = f"orthogonal weights, gain {point.gain:.4g}, bias std 0.05"
            out.append(Candidate(words, changed, 2, FRAME + ", and random biases", "Pennington et al. 2017"))
    pre = ORDERS[1]
    he = base.replace(init="he_normal") if name not in ("tanh", "selu", "linear") else base.replace(init="lecun_normal")
    if chain.norm != "rms" or chain.order != pre:
        changed = he.replace(norm="rms", order=pre, residual=None)
        out.append(
            Candidate("rms norm before the activation, then the weights", changed, 3, "one pass over each layer", "Zhang, Sennrich 2019")
        )
    if equal:
        changed = he.replace(norm="rms", order=pre, residual=Residual(1, 1.0))
        out.append(
            Candidate(
                "skip connections with rms norm inside the branch",
                changed,
                3,
                "one pass and one sum a layer",
                "pre-norm, Xiong et al. 2020",
            )
        )
        changed = he.replace(norm=None, order=pre, residual=Residual(1, "inverse_sqrt_depth"))
        words = "skip connections, branches times 1/sqrt(depth)"
        out.append(Candidate(words, changed, 3, "one sum a layer", "Hayou et al. 2021; Hanin, Rolnick 2018"))
        changed = he.replace(norm=None, order=pre, residual=Residual(1, 0.0))
        words = "skip connections, branches start at 0"
        out.append(
            Candidate(
                words,
                changed,
                3,
                "one sum and one learned scale a layer; before training no layer does anything",
                "De, Smith 2020 (SkipInit); ReZero",
            )
        )
        if chain.residual is not None:
            scaled = chain.replace(residual=Residual(chain.residual.every, "inverse_sqrt_depth"))
            words = "branches times 1/sqrt(number of branches)"
            out.append(Candidate(words, scaled, 1, "one number", "Hayou et al. 2021"))
    if name in ("sigmoid", "softplus"):
        changed = base.replace(activation="tanh", init="orthogonal", gain=1.0)
        out.append(Candidate("tanh with orthogonal weights", changed, 4, "another function", "Saxe et al. 2014"))
        out.append(
            Candidate("relu, init he_normal", base.replace(activation="relu", init="he_normal"), 4, "another function", "He et al. 2015")
        )
    elif name not in ("selu", "linear") and chain.norm is None:
        changed = base.replace(activation="selu", init="lecun_normal")
        out.append(Candidate("selu, init lecun_normal", changed, 4, "another function", "Klambauer et al. 2017"))
    widest = 4 * max(int(n) for n in chain.layer_widths)
    if equal and plain and gain is not None and widest <= 4096:
        changed = chain.replace(width=widest, gain=gain if chain.init.distribution != "haar" else chain.gain)
        retuned = tuned_gain(changed, batch)
        changed = changed.replace(gain=retuned if retuned is not None else gain)
        words = f"{widest} units wide, gain {changed.gain:.4g}"
        out.append(
            Candidate(
                words, changed, 4, "16 times the weights; the spread over draws halves where depth over width sets it", "Hanin, Nica 2018"
            )
        )
    return out


def tuned_gain(chain: Chain, batch: int = 1) -> float | None:
    """The gain nearest to the present one at which theory's typical gradient change is zero over the chain's depth (None where there is
    none).
    """
    if chain.gain == 0 or chain.init.distribution in ("identity", "constant", "given"):
        return None
    here = abs(chain.gain)
    change = lambda log_gain: predicted_decades(chain.replace(gain=here * math.exp(log_gain)), batch)
    grid = np.array([0.0, 0.2, -0.2, 0.5, -0.5, 0.9, -0.9, 1.4, -1.4, 2.0, -2.0, 2.8, -2.8, 4.0, -4.0])
    values: dict[float, float] = {}
    for x in grid:
        values[x] = change(x)
        if math.isnan(values[x]):
            return None
        known = sorted(values)
        for low, high in itertools.pairwise(known):
            if (values[low] > 0) != (values[high] > 0) and np.all(np.isfinite([values[low], values[high]])):
                gain = here * math.exp(_root(change, low, high, values[low], values[high]))
                return float(f"{gain:.4g}")
    return None


def _root(function, low: float, high: float, at_low: float, at_high: float) -> float:
    """Illinois rule to 0.01 decades."""
    x = (low + high) / 2
    for _ in range(25):
        x = low + (high - low) * at_low / (at_low - at_high)
        value = function(x)
        if abs(value) < 0.01 or not math.isfinite(value):
            break
        if (value > 0) == (at_low > 0):
            low, at_low, at_high = x, value, at_high / 2
        else:
            high, at_high, at_low = x, value, at_low / 2
    return x
