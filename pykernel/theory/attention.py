# SPDX-License-Identifier: BSD-3-Clause
"""What is read of attention beside its signals: the entropy of its weights, the deviation of its scores, and what both
assume."""

from __future__ import annotations

import numpy as np

from pykernel.program import Program
from pykernel.theory.signals import Signal
from pykernel.theory.softmax import softmax
from pykernel.theory.structure import positions_apart
from pykernel.theory.weights import scores

ONE_POSITION = "attention with one position looks at itself: give positions"


def entropies(program: Program, signal: Signal) -> np.ndarray:
    """Mean entropy of the weights of each attention, nats, (M,)."""
    positions, out = program.columns // program.batch, np.zeros(program.counts.mix)
    if positions > 1:
        with np.errstate(divide="ignore"):  # keys that are one: weights of no variance
            apart = np.log(np.maximum(signal.key_distance, 0.0))
        spread = scores(program).score + signal.query + signal.key + apart
        for m, log_variance in enumerate(spread.tolist()):
            out[m] = softmax(positions, bool(program.mixes.causal[m])).at(log_variance).entropy
    return out


def score_deviations(program: Program, signal: Signal) -> np.ndarray:
    """Standard deviation of all scores of each attention that are looked at, (M,).

    That of one network: scores share weights, so two of them have a product, and their mean is not zero. Of two scores
    of one head it is the product of the cosines of their queries and of their keys.
    """
    B, T = program.batch, program.columns // program.batch
    r_q, r_k = 1 - signal.query_distance, 1 - signal.key_distance
    common = np.ones(program.counts.mix)
    if T > 1:
        for m, causal in enumerate(program.mixes.causal.tolist()):
            common[m] = _shared(T, causal, float(r_q[m]), float(r_k[m]))
    if B > 1:
        far = signal if signal.between is None else signal.between
        common = (common + (B - 1) * (1 - far.query_distance) * (1 - far.key_distance)) / B
    with np.errstate(over="ignore"):
        variance = np.exp(scores(program).score + signal.query + signal.key)
        return np.sqrt(variance * np.maximum(1 - common / program.mixes.heads, 0.0))


def _shared(T: int, causal: bool, r_q: float, r_k: float) -> float:
    """Mean product of the cosines over all pairs of scores that one input's queries look at."""
    seen = T * (T + 1) / 2 if causal else float(T * T)
    same = T * (T + 1) * (2 * T + 1) / 6 if causal else float(T**3)  # ordered pairs of one query, and so of one key
    return (seen + (same - seen) * (r_q + r_k) + (seen * seen - 2 * same + seen) * r_q * r_k) / seen**2


def notes(program: Program, signal: Signal) -> list[str]:
    """Plain sentences on what the numbers of attention assume."""
    if not program.counts.mix:
        return []
    if positions_apart(program) == 1:
        return [ONE_POSITION]
    out = ["attention: scores are normal, and heads many; what few heads add to the spread over networks is left out"]
    if program.mixes.causal.any():
        out.append(
            "causal attention: mean squares and products are averaged over positions; sampled, that is right to 0.07 "
            "decades, for gradients of query and key to 0.2"
        )
    d = signal.distance
    if np.any((d[1:] < 0.1 * d[:-1]) & (d[1:] < 0.03)):
        out.append(
            "positions fall together so fast that networks differ widely in how close they are: of gradients of query "
            "and key behind that only the order is right"
        )
    return out
