# SPDX-License-Identifier: BSD-3-Clause
"""Sums of numbers that are given by their natural logs, as plain floats: the inner steps of long recursions."""

import math


def log_add(x: float, y: float) -> float:
    """log(e^x + e^y)."""
    if x < y:
        x, y = y, x
    return x if y == -math.inf else x + math.log1p(math.exp(y - x))


def log_square(s: float) -> float:
    """log s^2, -inf at 0."""
    return 2 * math.log(abs(s)) if s else -math.inf
