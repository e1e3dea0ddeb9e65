# SPDX-License-Identifier: BSD-3-Clause
"""How slowly a chain with a healthy gradient trains, by its measured tangent kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pykernel.chain import Chain
from pykernel.engines import run

INPUTS = 8  # drawn, whose errors are to be told apart
NETWORKS = 8  # at most, for a median
SECONDS = 10.0  # nominal, beyond which it is not worth a sentence
SLOW = 1000.0  # condition number from which the slowest errors take 500 steps to lose a factor e


@dataclass(frozen=True)
class Trainability:
    """Gradient descent before weights have moved far, of one chain under a random read-out.

    Attributes:
        rate_bound: 2 / lambda, lambda the largest eigenvalue of the tangent kernel of the inputs: the largest stable
            rate on half the sum of squared errors.
        condition: largest over smallest eigenvalue, inf where a combination of inputs is not learned at all.
        inputs: of the kernel.  networks: fresh ones, whose medians these are.
    """

    rate_bound: float
    condition: float
    inputs: int
    networks: int

    @property
    def slow(self) -> bool:
        return self.condition >= SLOW

    @property
    def steps(self) -> float:
        """In which the slowest errors lose a factor e at the largest stable rate: they keep 1 - 2 / condition a
        step."""
        return self.condition / 2

    def __str__(self) -> str:
        rate = f"the largest stable rate, {self.rate_bound:.3g} on half the sum of squared errors"
        pace = (
            f"the slowest errors need {self.steps:.2g} steps to lose a factor e"
            if math.isfinite(self.steps)
            else "some errors are not learned at all"
        )
        return (
            f"a healthy gradient {'still trains slowly' if self.slow else 'trains'} here: at {rate}, {pace} (tangent "
            f"kernel of {self.inputs} inputs, condition number {self.condition:.2g}, median of {self.networks} fresh "
            "networks)"
        )


def trainability(chain: Chain, positions: Any = (), seed: int = 0) -> Trainability | None:
    """What the tangent kernel of fresh networks says, measured; None where no compiled backend measures it, or not
    within seconds.

    Examples:
        >>> found = trainability(Chain(depth=30, width=64, activation="gelu", bias_std=0.1))
        >>> found.slow, found.condition > 1000
        (True, True)
        >>> trainability(Chain(depth=3, width=64, norm="batch")) is None
        True
    """
    words = dict(batch=INPUTS, positions=positions, seed=seed, cotangent="common")
    alone = chain.replace(head=None)
    try:
        job = run.prepare(alone, backend="cpp", **words)
    except ValueError:  # batch norm, shared weights, windows, groups
        return None
    if job.choice.seconds * NETWORKS > SECONDS:
        return None
    p = run.measure(alone, backend="cpp", replicas=NETWORKS, **words)
    rate_bound, condition = (float(np.median(values)) for values in (p.tangent_rate_bound, p.tangent_condition))
    return None if math.isnan(rate_bound) else Trainability(rate_bound, condition, INPUTS, NETWORKS)
