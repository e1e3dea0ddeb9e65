# SPDX-License-Identifier: BSD-3-Clause
"""The table of distributions of unit draws: variance, parameter, and whether entries are independent.

`pykernel.stream` defines those that are drawn entry by entry; a new one is a row here and a draw there, in C++ and in
Numba.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from pykernel import checks

TRUNCATED_STD = 0.8796256610342398  # of a standard normal conditioned on [-2, 2]
BIASES = ("zero", "normal", "uniform")


class Distribution(NamedTuple):
    """Facts of a family of unit draws.

    Attributes:
        variance: of one draw, from the parameter; inf for heavy tails, nan where entries are not independent.
        parameter: the check of its number, what it is called, and its range.
        words: random words that an entry takes; 0 where the stream does not draw entry by entry.
        gaussian: whether the matrix-free engine has its law.
    """

    variance: Callable[[float], float]
    parameter: tuple = (checks.finite, "init parameter")
    words: int = 1
    gaussian: bool = False


WHOLE = Distribution(lambda _: math.nan, words=0)
# Those that the stream draws have their numbers in C++ and Numba by their order here: CMake reads the names.
TABLE = {
    "normal": Distribution(lambda _: 1.0, gaussian=True),
    "uniform": Distribution(lambda _: 1 / 3),
    "truncated": Distribution(lambda _: TRUNCATED_STD**2),
    "sparse": Distribution(lambda density: density, (checks.fraction, 'init parameter (the density of "sparse")')),
    "student": Distribution(
        lambda degrees: degrees / (degrees - 2) if degrees > 2 else math.inf,
        (checks.within, 'init parameter (degrees of freedom of "student")', 1.0, 1e6),
        words=2,
    ),
    "stable": Distribution(
        lambda alpha: 2.0 if alpha == 2 else math.inf,
        (checks.within, 'init parameter (alpha of "stable")', 0.5, 2.0),
        words=2,
    ),
    "identity": WHOLE,
    "constant": WHOLE,
    "haar": WHOLE._replace(gaussian=True),
}
SCALED = ("normal", "uniform", "truncated")  # those that schemes of a given variance take
INDEPENDENT = tuple(name for name, row in TABLE.items() if row.words)
GAUSSIAN = tuple(name for name, row in TABLE.items() if row.gaussian)


def unit_variance(distribution: str, parameter: float = 0.0) -> float:
    """Variance of one unit draw, inf for heavy tails, nan where entries are not independent."""
    return TABLE[distribution].variance(parameter) if distribution in TABLE else math.nan


def unit_std(distribution: str) -> float:
    """Standard deviation of one unit draw of a distribution without a parameter."""
    return math.sqrt(unit_variance(distribution))
