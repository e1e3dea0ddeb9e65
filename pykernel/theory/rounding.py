# SPDX-License-Identifier: BSD-3-Clause
"""What number formats cost at infinite width: noise of rounding, shares that flush and overflow, and how far signal and
gradient turn from what they are without formats.

A run in low precision and the same weights without formats are two columns with one input. Each rounding adds noise of
relative power eps^2 to one of them, so 1 - cosine grows by eps^2 / 2: for a layer whose weights and output are rounded
by eps^2, beside what the correlation map (Poole et al. 2016) makes of the distance. The gradient loses as much a
rounding, and at each activation function what slopes at different arguments have in common: a ReLU keeps
1 - sqrt(2 d) / pi of a distance d, a smooth function 1 - O(d).
"""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist

import numpy as np

from pykernel import observables
from pykernel.dtypes import Floats
from pykernel.formats import Format, Formats
from pykernel.program import Op, Program, Stretch
from pykernel.theory.columns import columns
from pykernel.theory.mean_field import Backward, Forward
from pykernel.theory.ops import OPS
from pykernel.theory.signals import Gradient, Signal, as_arrays
from pykernel.theory.structure import place

QUANTILES = 4096  # of a Gaussian preactivation: shares below 1/4096 are not told from zero
OCTAVES = 12  # of magnitudes below the deviation of a Gaussian that its noise is summed over
LOG2 = math.log(2)
MOST_NODES = 20_000  # blocks of a chain whose distances are followed, some 50 us each
ROWS = tuple(row.name for row in observables.ROWS if row.extent == "rounded")


def half_unit(row: Format) -> float:
    """Half of the last place of the largest number: what a magnitude may lack and still round to it."""
    return 2.0 ** (math.floor(math.log2(row.largest)) - row.fraction - 1)


def gaussian_below(x: Floats | float) -> Floats:
    """P(|Z| < x) for a standard normal Z."""
    return np.vectorize(math.erf, otypes=[float])(np.asarray(x, float) / math.sqrt(2))


def noise_power(row: Format | None, log_deviation: float, stochastic: bool = False) -> float:
    """Mean square of what rounding adds to a Gaussian number over its variance.

    In the binade from 2^E errors are even within 2^(E - p - 1), below the smallest normal number within that of the
    lowest binade; what lies below half the smallest number is lost, what lies beyond the largest is cut there (an inf
    is not counted). By chance a number f units above the one below it errs by f (1 - f) squared units, on average 1/6
    and not 1/12, and one of x below the smallest number u by x (u - x), which grows beyond x itself.

    Args:
        row: the format, or None.  log_deviation: natural log of the standard deviation.  stochastic: by chance.
    """
    if row is None:
        return 0.0
    log2 = log_deviation / LOG2
    if not math.isfinite(log2) or log2 < row.lowest - row.fraction - 4:
        far = math.sqrt(2 / math.pi) * 2.0 ** min(row.lowest - row.fraction - log2, 1000.0) - 1 if stochastic else 1.0
        return 0.0 if log2 == -math.inf else far
    each = 6 if stochastic else 12
    top = max(math.ceil(log2) + 4, row.lowest)
    edges = np.arange(max(math.floor(log2) - OCTAVES, row.lowest), top + 1)
    scaled = np.exp2(edges - log2)
    second = lambda x: gaussian_below(x) - x * np.sqrt(2 / math.pi) * np.exp(-np.square(x) / 2)  # E Z^2 below x
    power = float(np.sum(np.diff(gaussian_below(scaled)) * np.exp2(2 * (edges[:-1] - row.fraction - log2))) / each)
    if edges[0] == row.lowest:
        unit = 2.0 ** (row.lowest - row.fraction - log2)
        lost = unit if stochastic else unit / 2
        missed = unit * math.sqrt(2 / math.pi) * -math.expm1(-lost * lost / 2) if stochastic else 0.0
        power += abs(missed - float(second(lost)))
        power += float(gaussian_below(scaled[0]) - gaussian_below(lost)) * unit**2 / each
    cut = row.largest * 2.0**-log2
    if cut < 8:
        tail = 1 - float(gaussian_below(cut))
        beyond = 1 - float(second(cut)) + cut * cut * tail - 2 * cut * math.sqrt(2 / math.pi) * math.exp(-cut * cut / 2)
        power += max(beyond, 0.0)
    return power if stochastic else min(power, 1.0)


def rows(program: Program, signal: Signal, gradient: Gradient) -> dict:
    """The rows of formats, (N,) each, (0,) without formats; nan where theory does not follow: batch norm, pools, and
    chains of very many blocks.

    Args:
        program: what is walked.  signal, gradient: its infinite-width passes without them.
    """
    formats, nodes = program.formats, program.counts.node
    if formats is None:
        return {name: np.zeros(0) for name in ROWS}
    units = program.nodes[1:].astype(float) * columns(program).nodes[1:]
    size = 0.5 * (gradient.activation[1:] - np.log(units)) + math.log(formats.loss_scale)
    known = {name: np.full(nodes, math.nan) for name in ROWS}
    known["flushed_gradient"], known["overflowed_gradient"] = _gaussian_shares(formats, "gradients", size)
    known["flushed_signal"], known["overflowed_signal"] = _signal_shares(program, signal)
    pools = any(op.kind == "pool" for stretch in program.stretches for op in stretch.ops)
    if program.has_batch_norm or pools or nodes > MOST_NODES:
        return known
    walk = _Rounded(program, formats)
    apart = walk.run()
    cosine = _gradient_cosines(walk, formats, size)
    with np.errstate(divide="ignore"):
        known["log10_error_signal"] = 0.5 * np.log10(2 * apart)
        known["log10_error_gradient"] = 0.5 * np.log10(2 * np.maximum(1 - cosine, 0.0))
    known["gradient_cosine"] = cosine
    return known


class _Rounded(Forward):
    """Two columns of one input, the second rounded: 1 - cosine of every register, and of nodes before their
    rounding.

    Noise of power P that knows nothing of the number, as by chance, leaves it a cosine of (1 + P)^(-1/2); what is lost
    takes its own part, and leaves (1 - P)^(1/2).
    """

    def __init__(self, program: Program, formats: Formats) -> None:
        super().__init__(replace(program, batch=2, positions=(), correlation=1.0, x=None, cotangent=None, formats=None))
        self.formats, self.powers = formats, {}
        self.signal = self.rows

    def noise(self, word: str, log_square: float) -> float:
        """1 - cosine of numbers of a mean square with what rounding makes of them."""
        key = word, round(log_square, 3)
        if key not in self.powers:
            power = noise_power(self.formats.row(word), key[1] / 2, self.formats.stochastic)
            self.powers[key] = 1 - (1 + power) ** -0.5 if self.formats.stochastic else 0.5 * power
        return self.powers[key]

    def exact(self, op: Op, number: int) -> bool:
        """Whether an op makes numbers of the format from such."""
        return op.kind == "node" or (op.kind == "phi" and bool(self.program.passes_formats[number]))

    def stores(self, stretch: Stretch, op: Op, i: int) -> bool:
        """Whether what an op makes is rounded before the next one reads it."""
        at = stretch.ops.index(op) + 1
        following = stretch.ops[at] if at < len(stretch.ops) else None
        if following is None or following.kind != "phi" or following.ins[0] != op.out:
            return True
        first, each = place(stretch, following)
        return not self.exact(following, first + i * each)

    def run(self) -> np.ndarray:  # type: ignore[override]  # what its name says, of another walk
        """1 - cosine of nodes 1 .. N before they are rounded."""
        far, before, stored = self.distance, {}, {0}
        at_nodes = np.empty(self.program.counts.node)
        far[0] = self.noise("signals", 0.0)
        fan_in = np.log(self.program.layers.columns.astype(float))
        for stretch in self.program.stretches:
            both = zip(self.compiled(stretch, "moments"), self.compiled(stretch, "distance"), strict=True)
            steps = [(op, *place(stretch, op), *maps) for op, maps in zip(stretch.ops, both, strict=True)]
            for i in range(stretch.count):
                for op, first, each, moments, distance in steps:
                    number = first + i * each
                    moments(i)
                    distance(i)
                    if op.kind == "linear":
                        far[op.out] += self.noise("weights", self.weight[number] - float(fan_in[number]))
                    if op.kind == "node":
                        at_nodes[number] = before[op.ins[0]]
                    elif not (self.exact(op, number) and op.ins[0] in stored):
                        before[op.out] = far[op.out]
                        stored.discard(op.out)
                        if self.stores(stretch, op, i):
                            far[op.out] = min(far[op.out] + self.noise("signals", self.square[op.out]), 1.0)
                            stored.add(op.out)
                        continue
                    before[op.out] = far[op.out]
                    stored.add(op.out)
        self.signal = as_arrays(self.rows)
        return at_nodes


def _gradient_cosines(walk: _Rounded, formats: Formats, size: np.ndarray) -> np.ndarray:
    """Cosines of the gradients at nodes 1 .. N before they are rounded; size: logs of their deviations."""
    program = walk.program
    back = Backward(program, walk.signal, 1.0)
    fan_in = np.log(program.layers.columns.astype(float))
    noise = np.vectorize(walk.noise, otypes=[float])
    weights = noise("weights", np.asarray(walk.weight) - fan_in)
    stored = noise("gradients", 2 * size)  # of each node
    cosine, above = np.empty(program.counts.node), 1.0
    for stretch in program.stretches[::-1]:
        count, seen, node = stretch.count, [], None
        back.give(0, np.zeros(count), np.ones(count))
        for j in range(len(stretch.ops) - 1, -1, -1):
            op = stretch.ops[j]
            first, each = place(stretch, op)
            numbers = slice(first, first + each * count, each)
            g, o = back.held(op.out)
            if op.kind == "node":
                seen.append((numbers, np.broadcast_to(o, count)))
                node = numbers
            else:
                reader = next((later for later in stretch.ops[j + 1 :] if op.out in later.ins), None)
                silent = reader is not None and reader.kind == "phi" and walk.exact(reader, place(stretch, reader)[0])
                if not silent:
                    o = o * (1 - stored[node])
                if op.kind == "linear":
                    o = o * (1 - weights[numbers])
                back.hold(op.out, g, o)
            first, each = place(stretch, op, offset=op.kind == "node")
            OPS[op.kind].backward(back, op, slice(first, first + each * count, each))
        _, alike = back.take(0)
        shares = above * np.concatenate([[1.0], np.cumprod(np.broadcast_to(alike, count)[::-1])])
        for numbers, o in seen:
            cosine[numbers] = o * shares[-2::-1]
        above = float(shares[-1])
    return cosine


def _gaussian_shares(formats: Formats, word: str, log_deviation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of Gaussian numbers of these deviations that flush, and that overflow."""
    row = formats.row(word)
    if row is None:
        return np.zeros(len(log_deviation)), np.zeros(len(log_deviation))
    scale = np.exp(np.clip(log_deviation, -300, 300))
    alive = (log_deviation > -math.inf).astype(float)
    half = half_unit(row)
    if formats.stochastic:  # means of what `_lost` says
        first = lambda t: np.sqrt(2 / np.pi) * np.exp(-np.square(t) / 2) - t * (1 - gaussian_below(t))  # E (|Z| - t)+
        low, high, unit = (x / scale for x in (row.smallest_subnormal, row.largest - 2 * half, 2 * half))
        flushed = gaussian_below(low) + math.sqrt(2 / math.pi) * np.expm1(-low * low / 2) / low
        return flushed * alive, (first(high) - first(high + unit)) / unit
    low, high = row.smallest_subnormal / 2, row.largest - half
    return gaussian_below(low / scale) * alive, 1 - gaussian_below(high / scale)


def _lost(formats: Formats, row: Format, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of magnitudes the probabilities that they flush, and that they overflow."""
    half = half_unit(row)
    if formats.stochastic:
        above = (size - (row.largest - 2 * half)) / (2 * half)
        return np.maximum(1 - size / row.smallest_subnormal, 0.0), np.clip(above, 0.0, 1.0)
    return (size <= row.smallest_subnormal / 2) * 1.0, (size >= row.largest - half) * 1.0


def _signal_shares(program: Program, signal: Signal) -> tuple[np.ndarray, np.ndarray]:
    """The same of nodes' signals: what an activation function makes of a Gaussian preimage, else Gaussian."""
    assert program.formats is not None
    row = program.formats.row("signals")
    flushed, overflowed = _gaussian_shares(program.formats, "signals", signal.activation[1:] / 2)
    if row is None:
        return flushed, overflowed
    z = np.array([NormalDist().inv_cdf((i + 0.5) / QUANTILES) for i in range(QUANTILES)])
    known: dict = {}
    for stretch in program.stretches:
        for before, op in zip(stretch.ops, stretch.ops[1:], strict=False):
            if op.kind != "node" or before.kind != "phi" or before.out != op.ins[0]:
                continue
            (step, each), (node, apart) = place(stretch, before), place(stretch, op)
            for i in range(stretch.count):
                function = program.activations[program.steps.row[step + i * each]]
                key = str(function), round(float(signal.preimage[step + i * each]), 2)
                if key not in known:
                    preimage = z * math.exp(min(max(key[1], -300), 300))
                    size = np.abs(function.evaluate("value", preimage))
                    alive = ((size > 0) & np.isfinite(size)) * 1.0
                    if not program.passes_formats[step + i * each]:  # else lost before it comes to the function
                        alive *= 1 - np.maximum(*_lost(program.formats, row, np.abs(preimage)))
                    gone, beyond = _lost(program.formats, row, size)
                    known[key] = float((alive * gone).mean()), float((alive * beyond).mean())
                flushed[node + i * apart], overflowed[node + i * apart] = known[key]
    return flushed, overflowed
