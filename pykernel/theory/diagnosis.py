# SPDX-License-Identifier: BSD-3-Clause
"""The verdict with its certainty: slope and error, end-to-end interval, theory beside it, one plain sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pykernel.chain import Chain
from pykernel.dtypes import Floats
from pykernel.formats import Formats
from pykernel.measured import Measured
from pykernel.tables import Shown, Strong, Table
from pykernel.theory.predict import Prediction, predict
from pykernel.theory.reasons import reasons
from pykernel.theory.refusals import ONE_NORMED_INPUT, refusal
from pykernel.verdict import EXPLODING, VANISHING

if TYPE_CHECKING:  # takes time and memory to load
    from numpy.typing import ArrayLike

ROUNDING = 2.0**-24  # of float32, in decades a layer: a spread within it is none
FLOAT32_TINY, FLOAT32_HUGE = math.log10(2.0**-149), math.log10(2.0**128)
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Diagnosis(Shown):
    """What an ensemble of chains says, how sure it is, and what theory says.

    Attributes:
        verdict: as `Propagation.verdict`.
        slope, slope_error: mean over replicas of the decades per layer (of blocks: per repetition) travelled backwards,
            and its standard error (nan for one replica).
        slope_theory: the prediction (finite width where known), nan without.
        measure: which ratio the verdict is taken from, "signal_end_to_end" or "end_to_end".
        decades: its median over replicas.
        interval: for the median, from order statistics (distribution-free).  coverage: its confidence, at least 0.95
            from 6 replicas on.
        decades_theory, decades_theory_std: mean and standard deviation over draws that theory gives, nan without.
        z: (mean over replicas - theory) in standard errors, nan without theory or spread, and for batches (laws are one
            input's, or rough).
        derivative, weight: decades per layer that phi (with its norm) and the weights contribute.
        layers_float32: layers after which a gradient of size one leaves the range of float32, inf where it never does.
        sentence: all of it in words.
        why: of a chain of blocks, a sentence each: what a block, a gate or a mask does to signal and gradient.
    """

    verdict: str
    slope: float
    slope_error: float
    slope_theory: float
    measure: str
    decades: float
    interval: tuple[float, float]
    coverage: float
    decades_theory: float
    decades_theory_std: float
    z: float
    derivative: float
    weight: float
    layers_float32: float
    sentence: str
    why: tuple[str, ...] = ()

    def shown(self) -> list[str | Table]:
        """The sentence, and of blocks why."""
        return [Strong(self.sentence), *self.why]


class Unhealthy(AssertionError):
    """A chain whose gradient vanishes, explodes or dies, said by `assert_healthy`."""


def median_interval(values: ArrayLike) -> tuple[float, float, float]:
    """Confidence interval of the median from order statistics: (low, high, coverage).

    The number of values below the median is Binomial(R, 1/2), whatever the distribution: the interval from the k-th
    smallest to the k-th largest value covers it with probability 1 - 2 P(Bin < k). The largest such k that reaches
    CONFIDENCE is taken; with fewer than 6 values it is the whole range.

    Notes:
        Conover 1999, Practical Nonparametric Statistics, section 3.2.

    Examples:
        >>> low, high, coverage = median_interval(range(1, 21))
        >>> low, high, round(coverage, 4)
        (6.0, 15.0, 0.9586)
    """
    x = np.sort(np.asarray(values, float))
    R = len(x)
    if R == 0:
        return math.nan, math.nan, 0.0
    below, k, coverage = 0.0, 1, 1 - 2 * 0.5**R
    for j in range(R // 2):
        # P(Bin <= j)
        below += math.exp(math.lgamma(R + 1) - math.lgamma(j + 1) - math.lgamma(R - j + 1) - R * math.log(2))
        if 1 - 2 * below < CONFIDENCE and j > 0:
            break
        if 1 - 2 * below >= CONFIDENCE:
            k, coverage = j + 1, 1 - 2 * below
    return float(x[k - 1]), float(x[R - k]), max(coverage, 0.0)


def governing(end_to_end: Floats, signal_end_to_end: Floats) -> str:
    """Which of the two ratios the verdict is taken from (see `pykernel.verdict.classify`)."""
    weight, signal = abs(float(np.median(end_to_end))), abs(float(np.median(signal_end_to_end)))
    return "end_to_end" if math.isfinite(weight) and weight > signal else "signal_end_to_end"


def theory(
    chain: Chain,
    batch: int = 1,
    correlation: float = 0.0,
    positions: int | Sequence[int] = (),
    formats: Formats | None = None,
) -> Prediction | None:
    """The prediction for a chain, or None where there is none."""
    if refusal(chain, positions) is not None:
        return None
    try:
        found = predict(chain, batch, positions=positions, correlation=correlation, formats=formats)
    except ValueError:
        return None
    return None if found.overtaken else found


def beside(propagation: Measured) -> Prediction | None:
    """The prediction to print beside a measurement, or None: theory knows drawn weights only."""
    p = propagation
    if {"weights", "biases"} & set(p.given):
        return None
    return theory(p.chain, p.batch, p.correlation, p.positions, p.formats)


def diagnose(propagation: Measured, *, vanishing: float = VANISHING, exploding: float = EXPLODING) -> Diagnosis:
    """The verdict on a measured ensemble with its certainty.

    Args:
        propagation: a `Propagation`.
        vanishing, exploding: bounds in decades over the whole chain.

    Returns:
        Diagnosis.
    """
    p, prediction = propagation, beside(propagation)
    verdict = p.judge(vanishing, exploding)
    slopes, R = np.asarray(p.slope), p.replicas
    slope, slope_error = _mean(slopes)
    measure = governing(p.end_to_end, p.signal_end_to_end)
    values = np.asarray(getattr(p, measure))
    low, high, coverage = median_interval(values)
    expected, spread, slope_theory = _expected(prediction, measure)
    law_batch = p.batch if p.chain.has_batch_norm or prediction is None else prediction.law_batch
    mean, error = _mean(values)
    if R == 1 or not error > 0:
        error = spread / math.sqrt(R)
    comparable = prediction is not None and p.columns == 1  # no law of a batch's spread is known
    z = (
        (mean - expected) / error
        if comparable and error > ROUNDING * p.chain.depth and math.isfinite(mean - expected)
        else math.nan
    )
    with np.errstate(all="ignore"):
        derivative, weight = (_typical(p.rows[f"log10_{name}_factor"]) for name in ("derivative", "weight"))
    layers = FLOAT32_TINY / slope if slope < 0 else FLOAT32_HUGE / slope if slope > 0 else math.inf
    layers = math.ceil(layers) if math.isfinite(layers) else math.inf
    known: dict[str, Any] = dict(
        verdict=verdict,
        slope=slope,
        slope_error=slope_error,
        slope_theory=slope_theory,
        measure=measure,
        decades=float(np.median(values)),
        interval=(low, high),
        coverage=coverage,
        decades_theory=expected,
        decades_theory_std=spread,
        z=z,
        derivative=derivative,
        weight=weight,
        layers_float32=layers,
    )
    of_one = prediction is not None and prediction.log10_grad_activation_mean is not None and law_batch != p.batch
    sentence = _sentence(p, known | {"of_one": of_one}, (vanishing, exploding))
    return Diagnosis(**known, sentence=sentence, why=reasons(p, prediction))


def _expected(prediction: Prediction | None, measure: str) -> tuple[float, float, float]:
    """Mean, standard deviation and slope that theory gives for a ratio."""
    if prediction is None:
        return math.nan, math.nan, math.nan
    mean, spread = prediction.signal_end_to_end_mean, prediction.signal_end_to_end_std
    infinite = prediction.signal_end_to_end
    slope = prediction.slope
    if math.isfinite(mean):
        slope += (mean - infinite) / prediction.chain.depth
    if measure == "end_to_end":
        return prediction.end_to_end, math.nan, slope
    return (mean, spread, slope) if math.isfinite(mean) else (infinite, math.nan, slope)


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean over replicas and its standard error; replicas whose gradient is exactly zero are left out of both."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return float(np.median(values)) if len(values) else math.nan, math.nan
    return float(finite.mean()), float(finite.std(ddof=1) / math.sqrt(len(finite))) if len(finite) > 1 else math.nan


def _typical(rows: np.ndarray) -> float:
    """Mean over layers of the median over replicas."""
    rows = rows[:, np.isfinite(rows).any(axis=0)]
    return float(np.mean(np.nanmedian(np.where(np.isfinite(rows), rows, np.nan), axis=0))) if rows.size else math.nan


def _sentence(p: Measured, d: dict, bounds: tuple[float, float]) -> str:
    if d["verdict"] == "dead":
        zero = int(np.sum(np.isneginf(p.log10_grad_activation[:, 0])))
        return f"dead: the gradient at the input is exactly zero in {zero} of {p.replicas} replicas"
    if p.chain.has_batch_norm and p.columns == 1:
        return f"{d['verdict']}: {ONE_NORMED_INPUT}"
    verb = {"vanishing": "vanishes", "exploding": "explodes"}.get(d["verdict"], d["verdict"])
    rate = f"{d['slope']:+.3g} decades a {p.chain.unit}"
    if d["slope_error"] > 0:
        rate = f"{d['slope']:+.3g} +- {d['slope_error']:.1g} decades a {p.chain.unit}"
    # A law of finite width may be one input's; what theory says at infinite width is the batch's.
    which = "theory for one input" if d["of_one"] else "theory"
    beside = f" ({which} {d['slope_theory']:+.3g})" if math.isfinite(d["slope_theory"]) else ""
    parts = [f"{rate}{beside}"] if p.chain.has_slope else []
    parts.append(_end_to_end(p.replicas, d, which if d["measure"] == "signal_end_to_end" else "theory", bounds))
    if p.chain.has_slope and d["verdict"] != "stable" and math.isfinite(d["layers_float32"]):
        side = "below" if d["slope"] < 0 else "above"
        parts.append(f"{side} float32 after {d['layers_float32']} {p.chain.unit}s")
    # a skip passes both by
    if p.chain.blocks is None and math.isfinite(d["derivative"]) and math.isfinite(d["weight"]):
        parts.append(f"the derivative contributes {d['derivative']:+.2g}, the weights {d['weight']:+.2g}")
    return f"{verb}: {'; '.join(parts)}"


def _end_to_end(replicas: int, d: dict, which: str, bounds: tuple[float, float]) -> str:
    """The ratio that the verdict is taken from: median, interval and its method, theory and z, and where it lies beside
    the bounds."""
    what = "the signal's gradient" if d["measure"] == "signal_end_to_end" else "the weight gradient"
    text = f"{what} changes by {d['decades']:+.3g} decades end to end"
    notes = []
    if replicas > 1:
        low, high = d["interval"]
        notes.append(
            f"{d['coverage']:.0%} interval of the median {low:+.3g} to {high:+.3g}, by order statistics of "
            f"{replicas} replicas"
        )
    if math.isfinite(d["decades_theory"]):
        notes.append(
            f"{which} {d['decades_theory']:+.3g}"
            + (f", z = {d['z']:+z.1f} standard errors from theory to the mean" if math.isfinite(d["z"]) else "")
        )
    if notes:
        text += f" ({'; '.join(notes)})"
    low, high = bounds
    within = f"+-{high:g} decades" if low == -high else f"{low:+g} .. {high:+g} decades"
    return text + (
        f", within {within}" if d["verdict"] == "stable" else f", beyond {low if d['decades'] < 0 else high:+g}"
    )


def assert_healthy(propagation: Measured, *, vanishing: float = VANISHING, exploding: float = EXPLODING) -> None:
    """Raise `Unhealthy` (an AssertionError) unless the verdict is "stable", with the sentence that says why. For
    continuous integration.

    Args:
        vanishing, exploding: bounds in decades over the whole chain.

    Raises:
        Unhealthy: the diagnosis, in one sentence.
    """
    if propagation.judge(vanishing, exploding) != "stable":
        raise Unhealthy(
            f"{propagation.chain}: {diagnose(propagation, vanishing=vanishing, exploding=exploding).sentence}"
        )
