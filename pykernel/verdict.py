# SPDX-License-Identifier: BSD-3-Clause
"""The one decision between vanishing, exploding, stable and dead, shared by single chains and sweeps."""

from __future__ import annotations

import math

import numpy as np

from pykernel import checks

VANISHING, EXPLODING = -3.0, 3.0


def require_bounds(vanishing: float, exploding: float) -> None:
    """Refuse bounds that are no numbers or leave nothing between them."""
    low, high = checks.finite("vanishing", vanishing), checks.finite("exploding", exploding)
    if not low < high:
        raise ValueError(f"vanishing must be below exploding, got vanishing={low:g} and exploding={high:g}")


def classify(end_to_end, signal_end_to_end, *, vanishing: float = VANISHING, exploding: float = EXPLODING) -> str:
    """The verdict on an ensemble of chains.

    Args:
        end_to_end: first over last weight gradient in decades, (R,).
        signal_end_to_end: input's over output's gradient in decades, (R,).
        vanishing, exploding: bounds in decades on the median.

    Returns:
        "dead" where the median input gradient is exactly zero; else from whichever ratio has the larger median magnitude: in a chain of
        homogeneous functions the weight gradients are equal at all layers however fast the signal's gradient shrinks. "undefined" where
        that ratio is not a number.

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
