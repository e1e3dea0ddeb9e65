# SPDX-License-Identifier: BSD-3-Clause
"""`predict`: the mean-field counterpart of `propagate`, with the finite-width law of its gradient beside it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pykernel import checks, observables
from pykernel.chain import Chain
from pykernel.formats import Formats
from pykernel.lower import lower
from pykernel.program import Program
from pykernel.tables import Shown, Strong, tidy
from pykernel.theory import attention, density, finite, finite_blocks, head, population, population_gradient, tangent
from pykernel.theory.columns import fewest_normed
from pykernel.theory.edges import edged
from pykernel.theory.laws import dead_probability
from pykernel.theory.mean_field import backward, forward
from pykernel.theory.plain import plain as plain_facts
from pykernel.theory.quadrature import ELASTICITY, LOG_SLOPE2, LOG_VALUE2
from pykernel.theory.refusals import ONE_NORMED_INPUT, few_normed, means, overused, structure
from pykernel.theory.rows import predicted
from pykernel.theory.signals import Gradient, Signal
from pykernel.verdict import EXPLODING, VANISHING, classify, first_over_last, plain, slopes
from pykernel.wording import compared

if TYPE_CHECKING:  # they take long to import
    from pandas import DataFrame

LOG10 = math.log(10)
WIDE_HEAD = 0.01  # outputs a unit from which a head counts as wide
CLOSE = 0.5  # decades below the rest from which the gradient's part along the signal counts
NO_LAW = (
    "infinite width only; no finite-width law for this kind of chain, or none so deep or so saturated at this "
    "width: measure it"
)


class Prediction(Shown, observables.Rows):
    """What infinite-width theory says that `propagate` would measure, and the finite-width law of the gradient.

    Rows have the names of `pykernel.observables.ROWS` and no replica axis: (depth,), (depth + 1,) for
    `log10_grad_activation`, a float for `loss`. They hold the log of the mean over weights at infinite width; a finite
    chain's log fluctuates around a lower value, `log10_grad_activation_mean`.

    Attributes:
        chain, batch, correlation: what was asked.
        log10_grad_weight, ...: the rows.
        log10_grad_activation_mean, log10_grad_activation_std: (depth + 1,), mean and standard deviation over draws at
            this width of the log10 gradient norm relative to the output's, shifted to the row's value there; None where
            no law is known.
        dead_chance: probability that a whole layer is dead (ReLU without bias).
        overtaken: whether functions act on sums and the gradient's part along the signal, of order 1/width, has grown
            so that it counts: then the rows say too little.
        law: where mean and std come from.  law_batch: of how many inputs they are, `batch` or 1.  validity: what the
            numbers assume.  wide_head: the part of it that is about a head of many outputs, or empty.

    Examples:
        >>> p = predict(Chain(depth=30, width=100))
        >>> p.verdict, round(p.signal_end_to_end_mean, 3), round(p.signal_end_to_end_std, 3)
        ('stable', -0.166, 0.271)
    """

    loss: float  # type: ignore[assignment]  # rows without an axis of replicas: this one is a number

    def __init__(self, chain: Chain, program: Program, signal: Signal, gradient: Gradient, loss: float) -> None:
        self.chain, self.batch, self.correlation = chain, program.batch, program.correlation
        self.program, self.signal, self.gradient = program, signal, gradient
        self.rows = predicted(program, signal, gradient, loss)
        shared = program.counts.weight
        known = None if shared else finite.law(program, signal, gradient) or finite_blocks.law(program)
        self.law, self.law_batch = (known.law, known.batch) if known else (_no_law(program), 1)
        self.log10_grad_activation_mean = self.log10_grad_activation_std = None
        self.dead_chance = known.dead if known else dead_probability(program)
        if known:
            self.log10_grad_activation_mean = known.mean / (2 * LOG10) + self.log10_grad_activation[-1]
            self.log10_grad_activation_std = np.sqrt(known.variance) / (2 * LOG10)
        on_sums = signal.fractions is not None
        self.overtaken = on_sums and density.along(program, signal) > self.signal_end_to_end - CLOSE
        self.wide_head = _wide_head(program)
        self.validity = _validity(program, self)

    @property
    def slope(self) -> float:
        """Decades per layer travelled backwards, of a chain of blocks per repetition of the pattern, as
        `Propagation.slope`."""
        return float(slopes(self.log10_grad_activation[None, self.chain.ends])[0])

    @property
    def slope_mean(self) -> float:
        """The slope's mean over draws at this width (of one input unless `law_batch` says more) where a law is known,
        else the slope."""
        mean = self.log10_grad_activation_mean
        return self.slope if mean is None else float(slopes(mean[None, self.chain.ends])[0])

    @property
    def slope_std(self) -> float:
        """The slope's standard deviation over draws at this width (see `law_batch`); nan where no law is known.

        Layers contribute independently: a layer's share of the variance counts by the square of the weights of all
        layers below it.
        """
        std = self.log10_grad_activation_std
        if std is None:
            return math.nan
        share = np.zeros(len(std))  # of each node in the slope
        count = len(share[self.chain.ends])
        distance = (count - 1) / 2 - np.arange(count)
        share[self.chain.ends] = distance / (distance @ distance)
        reach = np.cumsum(share)[:-1]
        return math.sqrt(max(float(reach**2 @ np.maximum(-np.diff(std**2), 0)), 0.0))

    @property
    def end_to_end(self) -> float:
        """First over last weight gradient, in decades; of blocks as `Propagation.end_to_end` says."""
        return float(first_over_last(self.log10_grad_weight[None], self.chain.alike)[0])

    @property
    def signal_end_to_end(self) -> float:
        """Norm of dJ/da[0] over that of dJ/da[L], in decades, at infinite width."""
        return float(first_over_last(self.log10_grad_activation[None])[0])

    @property
    def signal_end_to_end_mean(self) -> float:
        """Mean over draws of the same at this width (see `law_batch`); nan where no law is known."""
        mean = self.log10_grad_activation_mean
        return math.nan if mean is None else float(mean[0] - mean[-1])

    @property
    def signal_end_to_end_std(self) -> float:
        """Standard deviation over draws of the same at this width (see `law_batch`); nan where no law is known."""
        return math.nan if self.log10_grad_activation_std is None else float(self.log10_grad_activation_std[0])

    @property
    def verdict(self) -> str:
        """ "vanishing", "exploding", "stable" or "dead", as for a measurement."""
        return self.judge()

    def judge(self, vanishing: float = VANISHING, exploding: float = EXPLODING) -> str:
        """The verdict under other bounds, in decades over the whole chain."""
        if self.dead_chance > 0.5:  # the median network's gradient is exactly zero
            return "dead"
        typical = self.signal_end_to_end_mean
        return classify(
            [self.end_to_end],
            [typical if math.isfinite(typical) else self.signal_end_to_end],
            vanishing=vanishing,
            exploding=exploding,
        )

    @property
    def tangent_kernel(self) -> np.ndarray:
        """What `propagate(..., cotangent="common").tangent_kernel` is at infinite width, (B, B) float64: one number for
        an input with itself, one for any two (Jacot, Gabriel, Hongler 2018, arXiv 1806.07572).

        Raises:
            ValueError: a chain whose pairs of inputs the theory does not follow, said in one sentence.

        Examples:
            >>> predict(Chain(depth=10, width=64, activation="linear", init="lecun_normal"), 2).tangent_kernel.round(6)
            array([[640.,   0.],
                   [  0., 640.]])
        """
        return tangent.kernel(self.program)

    @property
    def tangent_second_moment(self) -> float:
        """E K^2 / (E K)^2 over networks of this width, of the kernel K of one input; nan where it is not known (known
        is it of Gaussian linear and ReLU chains without biases).

        Examples:
            >>> round(predict(Chain(depth=10, width=50)).tangent_second_moment, 2)
            2.14
        """
        found = tangent.second_moment(self.chain, self.program)
        return math.nan if found is None else found

    def to_dict(self, layers: bool = True) -> dict:
        """Plain numbers for JSON, as `Propagation.to_dict`, and the finite-width law; "-inf" is an exact zero, None not
        known.

        Args:
            layers: whether to give the rows, a list over layers each, beside the derived numbers.

        Examples:
            >>> predict(Chain(depth=3, width=8)).to_dict(layers=False)["verdict"]
            'stable'
        """
        names = (
            "slope",
            "slope_mean",
            "slope_std",
            "end_to_end",
            "signal_end_to_end",
            "signal_end_to_end_mean",
            "signal_end_to_end_std",
        )
        out: dict[str, Any] = {
            "chain": str(self.chain),
            "batch": self.batch,
            "verdict": self.verdict,
            "law": self.law,
        }
        out |= {name: plain(getattr(self, name)) for name in (*names, "dead_chance")} | {"validity": self.validity}
        if layers:
            rows = {name: values for name, values in self.rows.items() if name != "loss"}
            for name in ("log10_grad_activation_mean", "log10_grad_activation_std"):
                rows[name] = getattr(self, name)
            out["layers"] = {
                name: None if values is None else [plain(v) for v in values] for name, values in rows.items()
            }
        return out

    def __repr__(self) -> str:
        return f"<Prediction for {self.chain}: {self.verdict}>"

    def _of_formats(self) -> str:
        """What rounding makes of the gradient, in a sentence; the verdict is that of the chain without it."""
        where = "layer" if self.chain.blocks is None else "block"
        cosine = self.gradient_cosine[0]
        said = [f"rounded, the gradient at {where} 1 has a cosine of {cosine:.4g} with what it is without formats"]
        if np.isnan(cosine):
            said = [f"how far the gradient at {where} 1 turns theory does not say"]
        for verb, what in itertools.product(("flushed", "overflowed"), ("signal", "gradient")):
            share = getattr(self, f"{verb}_{what}")
            worst = int(np.argmax(share))
            if share[worst] > 0:
                said.append(f"of the {what} {100 * share[worst]:.2g}% is {verb} at {where} {worst + 1}")
        return "; ".join(said) + " (the verdict is that without formats)"

    def shown(self) -> Iterator[Strong | str]:
        """The verdict, decades end to end and by layer, and what the numbers assume."""
        yield from (Strong(str(self.chain)), f"theory, batch {self.batch}")
        if self.program.formats is not None:
            yield f"rounded to: {self.program.formats}"
        yield ""
        yield Strong(f"verdict: {self.verdict}, predicted")
        if _one_normed_input(self.program):
            yield f"  {ONE_NORMED_INPUT}"
            return
        yield f"  signal's gradient, input over output: {self.signal_end_to_end:+.4g} decades at infinite width"
        if self.chain.has_slope:
            yield f"{'':40}{self.slope:+.4g} a {self.chain.unit}"
        if self.log10_grad_activation_std is not None:
            words = ["one input"] if self.batch > self.law_batch else []
            words += ["networks without a dead layer"] if self.dead_chance > 1e-3 else []
            whose = f" ({'; '.join(words)})" if words else ""
            yield f"  at this width{whose}:"
            mean, std = self.signal_end_to_end_mean, self.signal_end_to_end_std
            yield f"    {mean:+.4g} decades on average, standard deviation {std:.3g}"
        yield f"  {f'weight gradient, {compared(self.chain)}:':<37} {self.end_to_end:+.4g} decades"
        if self.dead_chance > 1e-12:
            yield f"  chance that a layer is dead: {self.dead_chance:.3g}; the gradient is then exactly zero"
        if self.program.formats is not None:
            yield self._of_formats()
        yield from ("", f"finite width: {self.law}", *self.validity)

    def to_dataframe(self, of: str = "layer") -> DataFrame:
        """A pandas.DataFrame, one line for each layer, as `Propagation.to_dataframe` without replicas; where a law is
        known with mean and standard deviation of log10_grad_activation over draws at this width.

        Args:
            of: what a line is for in a chain of blocks: "layer", "activation", "attention" or "block".

        Raises:
            ValueError: another word.

        Examples:
            >>> list(predict(Chain(depth=3, width=8)).to_dataframe().layer)
            [1, 2, 3]
        """
        rows = {name: np.asarray(values)[None] for name, values in self.rows.items() if values is not None}
        frame = tidy(self.chain, rows, of).drop(columns="replica")
        if self.log10_grad_activation_std is not None and len(frame) == self.chain.extents.node:
            for name in ("log10_grad_activation_mean", "log10_grad_activation_std"):
                frame[name] = getattr(self, name)[1:]
        return frame


def predict(
    chain: Chain,
    batch: int = 1,
    *,
    positions: int | Sequence[int] = (),
    correlation: float = 0.0,
    formats: Formats | None = None,
) -> Prediction:
    """What mean-field theory says about a chain, deterministic, in the log domain, at any depth.

    Args:
        chain: as for `propagate`. Weights must have a variance (Gaussian, uniform, truncated, sparse, Student t above
            2) or be Haar.
        batch: inputs propagated together; matters for batch norm, heads, `similarity` and `dead`.
        positions: of one input, an int or one int an axis; they count as columns, like inputs.
        correlation: pairwise correlation of the drawn inputs (and of their positions).
        formats: `Formats`, for the rows of what rounding does; all others are those without.

    Returns:
        Prediction.

    Raises:
        ValueError: weights without a mean field (heavy tails, constant), said in one sentence.

    Notes:
        Forward q' = sigma_w^2 E phi(sqrt(q) Z)^2 + sigma_b^2 and backward chi = sigma_w^2 E phi'(sqrt(q) Z)^2 (Poole et
        al. 2016, arXiv 1606.05340; Schoenholz et al. 2017, 1611.01232), q of each layer from the recursion, not its
        fixed point. Mean squares of z, a and the gradients are means over weights; the cotangent is iid N(0, 1/(n[L]
        B)), as in `propagate`. Over a batch the squared norm of dJ/dW is sum <delta_b, delta_b'> <u_b, u_b'>: pairs
        count where a head or batch norm makes the delta alike.

    Examples:
        >>> p = predict(Chain(depth=100_000, width=512, activation="tanh", init="lecun_normal"))
        >>> round(float(p.signal_end_to_end), 2)  # the squared gradient falls as 1/L at the edge of chaos
        -2.58
    """
    if not isinstance(chain, Chain):
        raise TypeError(f"chain must be a pykernel.Chain, got {type(chain).__name__}")
    within = checks.within("correlation", correlation, 0.0, 1.0)
    return predict_program(chain, lower(chain, batch=batch, positions=positions, correlation=within, formats=formats))


def predict_program(chain: Chain, program: Program) -> Prediction:
    """The same for a lowered chain."""
    return Prediction(chain, program, *passes(program))


def passes(program: Program) -> tuple[Signal, Gradient, float]:
    """The forward and the backward pass of a program, and the mean loss.

    Raises:
        NoTheory (a ValueError): a program that infinite-width theory does not follow.
    """
    follows = structure(program).follows
    with np.errstate(all="ignore"):  # logs of exact zeros are meant
        if follows == "density":
            walk, signal = density.forward(program)
            first = head.start(program, float(signal.activation[-1]), math.nan)
            gradient = density.backward(walk, signal, first.square)
            return population.pairs(program, signal) if program.columns > 1 else signal, gradient, first.loss
        if follows:
            units, signal = population.forward(program, follows == "every column")
            first = head.start(program, float(signal.activation[-1]), float(signal.distance[-1]))
            gradient = population_gradient.backward(units, signal, first.square, first.coherence)
            return signal, gradient, first.loss
        signal = forward(program)
        between = None if signal.between is None else float(signal.between.distance[-1])
        first = head.start(program, float(signal.activation[-1]), float(signal.distance[-1]), between)
        gradient = backward(program, signal, first.square, first.coherence, first.between)
        return signal, gradient, first.loss


def _no_law(program: Program) -> str:
    """Why there is no finite-width law."""
    found = "uses of one weight" if program.counts.weight else finite_blocks.reason(program)
    return f"infinite width only; no finite-width law is known of {found}: measure it" if found else NO_LAW


def _windows(program: Program) -> list[str]:
    """Plain sentences on how convolutions are followed, and what is left out."""
    if not program.counts.window:
        return []
    alike = edged(program) is None
    out = [
        f"convolutions and pools: positions {'are alike' if alike else 'differ by their taps beyond an edge only'}, "
        "means over them are taken; what a given input has in common between neighbours is not looked at"
    ]
    if not alike:
        out.append(
            "zeros beyond the edge: each position has the mean square and the gradient that its taps inside give it, "
            "exactly; what pairs of positions have in common nearly: similarity is right to about .1, gradients "
            "behind batch norm to .1 decades where twenty layers of it lead to fields of a few positions"
        )
    if any(window.largest for window in program.windows):
        out.append(
            "max pools: neighbours of drawn inputs have no more in common than other positions; those of images have, "
            "so that their largest entries are smaller"
        )
    return out


def _one_normed_input(program: Program) -> bool:
    """Whether batch norm sees a single column."""
    return program.columns == 1 and program.has_batch_norm


def _wide_head(program: Program) -> str:
    """What theory leaves out of the gradient of a head with many outputs for its width; empty where that is little."""
    width, outputs = int(program.nodes[-1]), program.head.outputs
    if program.head.loss in (None, "linear") or outputs <= WIDE_HEAD * width:
        return ""
    return (
        f"head of {outputs} outputs on {width} units: the gradient's part along the signal is left out of theory, of "
        "order outputs / width of the squared gradient at the top and more below in chains that pass it on (linear, "
        "ReLU, softplus); measured lies above"
    )


def _validity(program: Program, prediction: Prediction) -> list[str]:
    """Plain sentences on what the numbers assume, only those that matter for this chain."""
    out = ["rows: infinite width; layers are Gaussian given the one before, gradients independent of the forward pass"]
    facts = plain_facts(program)
    if fewest_normed(program) <= 3:
        out.append(
            "batch norm over 3 inputs or fewer: the mean is carried by rare units whose inputs agree; typical chains "
            "lie far below it"
        )
    if program.counts.weight:
        reason = overused(program.layers)
        out.append(
            f"not to be compared with a measurement: {reason}"
            if reason
            else "every use of a tied weight counts as a weight of its own: uses are few beside the root of the width"
        )
    reason = means(program)
    if prediction.overtaken:
        out.append(
            "not to be compared with a measurement: the gradient's part along the signal, 1/width of it at the top, "
            f"grows to about {density.along(program, prediction.signal):+.3g} decades"
        )
    few = few_normed(program)
    out += [] if few is None else [few]
    out += _windows(program)
    out += population.notes(program, structure(program).follows)
    if reason is not None:
        out.append(
            f"not to be compared with a measurement: {reason}; the gradient's part along it grows by more at finite "
            "width"
        )
    elif facts is not None and facts.every and facts.norm is None:
        t = prediction.signal.preimage
        c = finite.columns(program, np.where(np.isfinite(t), t, 0.0))
        if np.max(c[LOG_VALUE2] - 2 * t - c[LOG_SLOPE2] + np.log(np.maximum(c[ELASTICITY], 1e-300))) > 0.02:
            out.append(
                "skip connections, and a gradient along the signal that grows by more than one across it (chi_par > "
                "chi_perp): "
                "at finite width the gradient grows by more than these rows say"
            )
    if program.columns > prediction.law_batch and prediction.log10_grad_activation_std is not None:
        out.append("mean and spread at finite width are those of one input")
    out += attention.notes(program, prediction.signal)
    if program.x is not None or program.cotangent is not None:
        out.append("the caller's arrays are not looked at")
    if program.clip_value:
        out.append("clipping by value is not in the theory")
    if prediction.wide_head:
        out.append(prediction.wide_head)
    std = prediction.log10_grad_activation_std
    if std is not None and "first order" in prediction.law:
        left = float(np.sum(1.0 / program.nodes[1:].astype(float) ** 2))
        if left > finite.LEFT_OUT:
            out.append(
                f"orders of 1/width that are left out move the mean by about {left:.1g} decades (measured: the sum "
                "of 1/width^2)"
            )
        if std[0] > 0.5:
            out.append("the spread is not small: first order in 1/width understates it")
    return out
