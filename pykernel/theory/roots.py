# SPDX-License-Identifier: BSD-3-Clause
"""Where a function of one number is zero, for functions that cost a run of the theory each."""

from __future__ import annotations

import math
from collections.abc import Callable


def root(
    function: Callable[[float], float], low: float, high: float, at_low: float, at_high: float, close: float
) -> float:
    """Where the function is within `close` of zero, between two arguments at which its sign differs.

    Notes:
        The Illinois rule (Dowell, Jarratt 1971), and bisection where it stalls; 60 calls at most.
    """
    x = (low + high) / 2
    for turn in range(60):
        wide = high - low
        x = (low + high) / 2 if turn % 4 == 3 else low + wide * at_low / (at_low - at_high)
        value = function(x)
        if abs(value) < close or not math.isfinite(value) or wide < 1e-14:
            break
        if (value > 0) == (at_low > 0):
            low, at_low, at_high = x, value, at_high / 2
        else:
            high, at_high, at_low = x, value, at_low / 2
    return x
