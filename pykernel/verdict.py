# SPDX-License-Identifier: BSD-3-Clause
"""How a gradient scales with depth: slope, ratios end to end, and the one decision between vanishing, exploding, stable
and dead.

Shared by measurements, theory and sweeps.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pykernel import checks

VANISHING, EXPLODING = -3.0, 3.0
LOG10_2 = math.log10(2)


def slopes(log10_grad_activation: Any) -> np.ndarray:
    """Least-squares slope of each row on the distance from the output; -inf, inf or nan where the row is not finite,
    (R,)."""
    g = np.asarray(log10_grad_activation)
    distance = np.arange(g.shape[1])[::-1] - (g.shape[1] - 1) / 2
    finite = np.where(np.isfinite(g), g, 0.0)
    # A sum by rows, not a matrix product: BLAS adds in an order that depends on how many rows there are.
    fit = ((finite - finite.mean(axis=1, keepdims=True)) * distance).sum(axis=1) / (distance @ distance)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(g).all(axis=1), fit, np.where(np.isfinite(g), 0.0, g).sum(axis=1))


def first_over_last(decades: Any, alike: tuple[slice, slice] = (slice(0, 1), slice(-1, None))) -> np.ndarray:
    """The first over the last of each row of logs, in decades, (R,): of weight gradients, or the signal's input over
    its output. `alike`: the places that are compared, by the root of their sum of squares where they are several."""
    table = np.asarray(decades)
    first, last = (_together(table[:, places]) for places in alike)
    with np.errstate(invalid="ignore"):
        return first - last


def _together(decades: Any) -> np.ndarray:
    """log10 of the root of the sum of squares of each row."""
    if decades.shape[1] == 1:
        return decades[:, 0]
    return np.logaddexp2.reduce(decades * 2 / LOG10_2, axis=1) * LOG10_2 / 2


def require_bounds(vanishing: float, exploding: float) -> None:
    """Refuse bounds that are no numbers or leave nothing between them."""
    low, high = checks.finite("vanishing", vanishing), checks.finite("exploding", exploding)
    if not low < high:
        raise ValueError(f"vanishing must be below exploding, got vanishing={low:g} and exploding={high:g}")


def classify(
    end_to_end: Any, signal_end_to_end: Any, *, vanishing: float = VANISHING, exploding: float = EXPLODING
) -> str:
    """The verdict on an ensemble of chains.

    Args:
        end_to_end: first over last weight gradient in decades, (R,).
        signal_end_to_end: input's over output's gradient in decades, (R,).
        vanishing, exploding: bounds in decades on the median.

    Returns:
        "dead" where the median input gradient is exactly zero; else from whichever ratio has the larger median
        magnitude: in a chain of homogeneous functions the weight gradients are equal at all layers however fast the
        signal's gradient shrinks. "undefined" where that ratio is not a number.

    Examples:
        >>> classify([0.0, 0.0], [-30.0, -31.0])
        'vanishing'
    """
    weight, signal = (float(np.median(v)) if np.size(v) else np.nan for v in (end_to_end, signal_end_to_end))
    return judge(weight, signal, vanishing, exploding)


def judge(weight: float, signal: float, vanishing: float = VANISHING, exploding: float = EXPLODING) -> str:
    """The verdict from the medians of `end_to_end` and `signal_end_to_end`."""
    if signal == -np.inf:
        return "dead"
    decades = signal if not math.isfinite(weight) or abs(signal) >= abs(weight) else weight
    if math.isnan(decades):
        return "undefined"
    return "vanishing" if decades < vanishing else "exploding" if decades > exploding else "stable"


def plain(value: Any) -> float | str | None:
    """A number as JSON can hold it: "-inf" (an exact zero in a log row) and "inf" as text, None for nan."""
    value = float(value)
    return value if np.isfinite(value) else None if np.isnan(value) else str(value)
