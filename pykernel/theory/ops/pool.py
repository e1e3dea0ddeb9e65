# SPDX-License-Identifier: BSD-3-Clause
"""Pools at infinite width: means over windows side by side, and the largest entry of windows wherever they lie.

Mean of k positions: q' = q (1 + (k - 1) c) / k, products of two columns stay. Backward every position gets 1/k of its
window's gradient: 1/k of the squared norm, and the sum of all products of two columns, each with itself among them,
stays.

The largest is taken of normal entries, or of a function of such (`pykernel.theory.largest`); all pairs of positions are
as correlated as they are on average. Backward one position gets all of its window's gradient, at the slope that the
function has there: the sum of all products stays, and windows that overlap send a share of theirs to one position.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pykernel.program import Op, Stretch
from pykernel.theory.batch import inverse_variance
from pykernel.theory.largest import Overlap, Peaks, Windows, peaks
from pykernel.theory.neighbours import Near, Offset, lookup, offsets
from pykernel.theory.structure import Law, NoTheory, Structure, place
from pykernel.window import Window

ROWS = FAR_ROWS = ()
MADE = "a max pool"


class Peak(NamedTuple):
    """Of a max pool: which activation step it is behind, None behind weights; its moments; how many windows there are;
    log deviation and distance of the normal entries, and how many a unit has; the number of the pool, and its
    windows."""

    step: int | None
    peaks: Peaks
    windows: int
    log_std: float
    distance: float
    entries: int
    number: int
    plan: Plan


class Plan(NamedTuple):
    """Windows of a pool by what neighbours have in common.

    Attributes:
        correlation: of two entries of one window, on average.
        windows: which there are.
        places: how far two windows are apart -> their place in `windows.pairs`, of those that are closer than others.
        same: (how far, mean number of partners so far away that have the same largest entry).
    """

    correlation: float
    windows: Windows
    places: tuple[tuple[Offset, int], ...]
    same: tuple[tuple[Offset, float], ...]


def law(walk: Structure, stretch: Stretch, op: Op) -> Law:
    first, each = place(stretch, op)
    steps = walk.program.window_steps[first : first + each * stretch.count : each]
    windows = [walk.program.windows[i] for i in {*steps.tolist()}]
    kinds = {window.largest for window in windows}
    source = walk.laws[op.ins[0]]
    if kinds == {True}:
        if not (source.gaussian or op.ins[0] in walk.functions):
            raise NoTheory(
                "mean field follows max pools behind weights, or behind a function on what weights give, with its "
                f"norm in one Block; here one acts on the output of {source.made}; use propagate"
            )
        return walk.same(op.ins[0], gaussian=False, followed=False, made=MADE, mean=MADE, summed=False)
    if any(window.taps != window.stride or max(window.padding) for window in windows):
        raise NoTheory("mean field follows mean pools whose windows lie side by side without padding; use propagate")
    return walk.same(op.ins[0], alike=source.gaussian)


def moments(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    first, each = number
    square, mean, far, source, out = walk.square, walk.mean, walk.distance, op.ins[0], op.out

    def step(i: int) -> None:
        w = first + i * each
        window = walk.window(w)
        if window.largest:
            largest(walk, w, source, out)
            return
        k, c = math.prod(window.taps), 1 - far[source]
        inner = c if walk.near.get(source) is None else _within(walk, w, source)
        left = (1 + (k - 1) * inner) / k
        if not left > 0:
            square[out], mean[out], far[out] = -math.inf, 0.0, 0.0
            return
        (seen, made), q, m = walk.spread.windows[w].tolist(), square[source], mean[source]
        square[out], mean[out] = q + math.log(left), m / math.sqrt(left)
        # products of two columns, each with itself among them, have the same sum
        c = c if inner == c or made == 1 else ((1 + (seen - 1) * c) / k - left) / (made - 1)
        far[out] = max(1 - c / left, 0.0)

    return step


def largest(walk: Any, w: int, source: int, out: int) -> None:
    """Moments of a max pool from those of the normal entries that it is a function of."""
    s, function, log, d = walk.behind.get(source), walk.line, walk.square[source] / 2, walk.distance[source]
    near = walk.near.get(source)
    if s is not None:
        function, (log, d), near = walk.at[s][0], preimage(walk, s), walk.rows.near.get(("step", s))
    if log == -math.inf or walk.columns == 1:
        walk.square[out], walk.mean[out] = walk.square[source], walk.mean[source]
        walk.distance[out] = walk.distance[source]
        return
    entries, count = walk.spread.windows[w].tolist()
    window, far = walk.window(w), 1.0 - float(d if near is None else near.others(d, entries))
    chosen = plan(window, walk.program.batch, far, () if near is None else tuple(near.apart.items()))
    found = peaks(function.row, float(log), chosen.correlation, chosen.windows)
    walk.rows.peaks[w] = Peak(s, found, count, float(log), float(d), entries, w, chosen)
    walk.square[out], walk.mean[out], walk.distance[out] = found.log_square, found.mean, found.distance
    note_near(walk, ("window", w), window, chosen, found)


def _within(walk: Any, w: int, source: int) -> float:
    """The mean correlation of two entries of one window, where neighbours have more in common."""
    near, entries = walk.near[source], int(walk.spread.windows[w, 0])
    far = 1.0 - near.others(walk.distance[source], entries)
    return plan(walk.window(w), walk.program.batch, far, tuple(near.apart.items())).correlation


def note_near(walk: Any, key: tuple[str, int], window: Window, chosen: Plan, found: Peaks) -> None:
    """Neighbours among the windows of a max pool."""
    if chosen.places:
        walk.rows.near[key] = Near(window.out, {offset: found.apart[place] for offset, place in chosen.places})


@lru_cache(maxsize=256)
def plan(window: Window, batch: int, far: float, near: tuple[tuple[Offset, float], ...]) -> Plan:
    """The windows of a pool, over entries whose correlation is `far`, but of those (so far apart, their distance)."""
    windows, known = occurrences(window, batch), {offset: 1 - d for offset, d in near}
    m, total = math.prod(window.taps), max(batch * math.prod(window.out) * (batch * math.prod(window.out) - 1), 1)
    steps = [np.arange(-k + 1, k) for k in window.taps]
    often = np.multiply.outer(*(k - np.abs(step) for k, step in zip(window.taps, steps, strict=True)))
    at = lambda i, j: far if (i, j) == (0, 0) else known.get((i, j), known.get((-i, -j), far))

    def between(offset: Offset) -> float:
        """The mean correlation of two entries, not one and the same, of windows so far apart."""
        i, j = (step * s for step, s in zip(offset, window.stride, strict=True))
        corr = np.array([[at(int(a) + i, int(b) + j) for b in steps[1]] for a in steps[0]])
        same = np.array([[(a + i, b + j) == (0, 0) for b in steps[1]] for a in steps[0]])
        weight = often * ~same
        return float((weight * corr).sum() / weight.sum()) if weight.sum() else far

    inner = between((0, 0)) if known else far
    reach = [max([abs(offset[axis]) for offset in known], default=0) + window.taps[axis] - 1 for axis in (0, 1)]
    reach = [min(r // s, n - 1) for r, s, n in zip(reach, window.stride, window.out, strict=True)]
    pairs, alike = list(windows.pairs), [far] * len(windows.pairs)
    places, same, overlapping = [], [], {}
    for offset in offsets((reach[0], reach[1])):
        shared = math.prod(max(k - s * abs(d), 0) for k, s, d in zip(window.taps, window.stride, offset, strict=True))
        number = Near(window.out, {}).partners(offset)
        corr = between(offset) if known else far
        if shared:
            overlapping[shared] = corr
            same.append((offset, number * shared / (2 * m - shared)))
            place = next((p for p, (pair, _) in enumerate(pairs) if pair == (m, m, shared)), None)
        else:  # of the pairs that share nothing, some that are closer than others
            place, share = None, number * batch * math.prod(window.out) / total
            rest = next((p for p, (pair, _) in enumerate(windows.pairs) if pair == (m, m, 0)), None)
            if rest is not None and pairs[rest][1] > share:
                place = len(pairs)
                pairs[rest] = Overlap(m, m, 0), pairs[rest][1] - share
                pairs.append((Overlap(m, m, 0), share))
                alike.append(corr)
        if place is not None:
            places.append((offset, place))
    if known:
        mean = float(np.mean(list(overlapping.values()))) if overlapping else far
        for p, (pair, _) in enumerate(windows.pairs):
            alike[p] = overlapping.get(pair.shared, mean) if pair.shared else far
        windows = windows._replace(pairs=tuple(pairs), between=tuple(alike))
    return Plan(inner, windows, tuple(places), tuple(same))


def preimage(walk: Any, s: int) -> tuple[float, float]:
    """log standard deviation and distance of what an activation step acts on, behind its norm."""
    norm, d = walk.at[s][1], float(walk.rows.raw_distance[s])
    if norm.kind != "batch":
        return float(walk.rows.preimage[s]), d
    if not d > 0:
        return -math.inf, 0.0
    left, seen = float(walk.rows.raw[s]) + math.log(d), int(walk.spread.steps[s])
    # entries less their mean: as correlated as that makes them
    return (left - float(np.logaddexp(left, math.log(norm.eps)))) / 2, seen / (seen - 1)


def acted_on(walk: Any, s: int, w: int, out: int) -> None:
    """Moments of an activation step that acts on a max pool of what weights give; behind batch norm as of very many
    columns, but for the product of two."""
    (function, norm), peak, B = walk.at[s], walk.rows.peaks[w], int(walk.spread.steps[s])
    log, first = peak.log_std, "pool"
    if norm.kind == "batch":
        left, first = 2 * log + _log(peak.peaks.spread), "norm"
        log = (left - float(np.logaddexp(left, math.log(norm.eps)))) / 2
    found = peaks(function.row, log, peak.plan.correlation, peak.plan.windows, first)
    note_near(walk, ("window", w), walk.window(w), peak.plan, found)
    walk.rows.preimage[s], walk.rows.raw_distance[s] = log, walk.distance[out]
    drawn = math.exp(2 * log - found.log_square) * found.slopes / (B - 1) if norm.kind == "batch" else 0.0
    walk.square[out], walk.mean[out] = found.log_square, found.mean
    walk.distance[out] = min(found.distance + drawn, 2.0)
    walk.rows.pooled[s] = peak._replace(step=s, peaks=found)


def distance(walk: Any, op: Op, number: tuple[int, int]) -> Callable[[int], None]:
    return lambda i: None  # `moments` has done it


@lru_cache(maxsize=256)
def occurrences(window: Window, batch: int) -> Windows:
    """Which windows and pairs of windows a pool has, over all inputs; entries beyond an edge are none."""
    axes = [_along(*numbers) for numbers in zip(window.field, window.taps, window.stride, window.padding, strict=True)]
    inside: Counter[Overlap] = Counter()
    for one, count in axes[0].items():
        for other, more in axes[1].items():
            inside[Overlap(*(a * b for a, b in zip(one, other, strict=True)))] += count * more
    T = math.prod(window.out)
    sizes: dict[int, float] = {}
    for pair, count in inside.items():
        sizes[pair.first] = sizes.get(pair.first, 0.0) + count / T**2
    pairs = {pair: float(batch * count) for pair, count in inside.items()}
    for m, share in sizes.items():
        pairs[Overlap(m, m, m)] -= batch * T * share  # a window with itself
        for n, other in sizes.items():
            pairs[Overlap(m, n, 0)] = pairs.get(Overlap(m, n, 0), 0.0) + batch * (batch - 1) * T**2 * share * other
    total = max(batch * T * (batch * T - 1), 1)
    kept = {pair: count for pair, count in pairs.items() if count > 1e-9 * total}
    return Windows(
        tuple(sizes.items()),
        tuple((pair, count / total) for pair, count in kept.items()),
        (),
        tuple((pair, count / (batch * T)) for pair, count in kept.items() if pair.shared),
    )


def _along(n: int, k: int, stride: int, padding: int) -> Counter:
    """How many pairs of windows along one axis (a window with itself among them) have so many positions, and share so
    many."""
    at = np.arange((n + 2 * padding - k) // stride + 1) * stride - padding
    begin, end = np.maximum(at, 0), np.minimum(at + k, n)
    size, pairs = end - begin, Counter()
    for lag in range(min((k - 1) // stride, len(at) - 1) + 1):
        later = slice(lag, None)
        before = slice(len(at) - lag)
        shared = np.minimum(end[before], end[later]) - np.maximum(begin[before], begin[later])
        for pair, count in Counter(
            zip(size[before].tolist(), size[later].tolist(), shared.tolist(), strict=True)
        ).items():
            if pair[2] > 0:
                pairs[pair] += count
                pairs[pair[1], pair[0], pair[2]] += count if lag else 0
    often = Counter(size.tolist())
    for a, count in often.items():
        for b, more in often.items():
            near = sum(found for pair, found in pairs.items() if pair[:2] == (a, b) and pair[2])
            pairs[a, b, 0] = count * more - near
    return +pairs


def backward(walk: Any, op: Op, w: int | slice) -> None:
    g, o = walk.take(op.out)
    if isinstance(w, slice):  # a single column: nothing is pooled
        return walk.give(op.ins[0], g, o)
    if walk.window(w).largest:
        return _to_largest(walk, op, w, float(g), float(o))
    k, (seen, made) = math.prod(walk.window(w).taps), walk.spread.windows[w].tolist()
    whole = k * (1 + (made - 1) * o)
    walk.give(op.ins[0], g - math.log(k), (whole - 1) / (seen - 1) if seen > 1 else 0.0)


def _to_largest(walk: Any, op: Op, w: int, g: float, o: float) -> None:
    peak = walk.signal.peaks.get(w)
    if peak is None:
        return walk.give(op.ins[0], g, o)
    seen, made = walk.spread.windows[w].tolist()
    near = _overlapping(walk, peak, o)
    whole, own = 1 + (made - 1) * o, max(walk.sharing.pop(w, 1 + near * peak.peaks.same), 1e-300)
    g += math.log(own)
    walk.give(op.ins[0], g, (whole / own - 1) / (seen - 1))
    if peak.step is not None:
        walk.peaks[peak.step] = g, o, near, peak  # of the activation step behind which it gives


def _overlapping(walk: Any, peak: Peak, o: float) -> float:
    """The correlation of the gradients of windows that have one largest entry; `o`: that of any two."""
    number = sum(count for _, count in peak.plan.same)
    if not number or walk.inside is None:
        return o
    return sum(count * lookup(walk.inside, offset) for offset, count in peak.plan.same) / number


def slopes(walk: Any, s: int, o: float) -> tuple[float, float]:
    """What an activation step that acts on a max pool makes of a gradient of correlation o: log factor on its squared
    norm, and the correlation behind."""
    peak = walk.signal.pooled[s]
    found, count = peak.peaks, int(walk.spread.steps[s])
    kept, every = found.slope2, found.slope2 + (count - 1) * o * found.slopes
    if walk.at[s][1].kind == "batch":
        spread = 2 * peak.log_std + _log(found.spread)
        return _normed(walk, s, kept, every, found.pull2 + (count - 1) * o * found.pulls, spread)
    walk.sharing[peak.number] = 1 + _overlapping(walk, peak, o) * found.shared / kept if kept > 0 else 1.0
    return _log(kept), (every / kept - 1) / (count - 1) if kept > 0 and count > 1 else 0.0


def through(walk: Any, s: int) -> tuple[float, float, float, float]:
    """What an activation step makes of the gradient that a max pool has sent it: its log squared norm and correlation
    before, the log factor on the former, and the correlation behind."""
    g, o, near, peak = walk.peaks.pop(s)
    found, count = peak.peaks, peak.windows
    B, norm, own = int(walk.spread.steps[s]), walk.at[s][1], 1 + near * found.same
    before = ((1 + (count - 1) * o) / own - 1) / (B - 1)
    kept, every = found.slope2 + near * found.shared, found.slope2 + (count - 1) * o * found.slopes
    if norm.kind == "batch":
        spread = float(walk.signal.raw[s]) + math.log(float(walk.signal.raw_distance[s]))
        factor, alike = _normed(walk, s, kept, every, found.pull2 + (count - 1) * o * found.pulls, spread)
    else:
        scale = 0.0 if norm.kind is None else float(np.logaddexp(walk.signal.raw[s], math.log(norm.eps)))
        factor, alike = _log(kept) - scale, (every / kept - 1) / (B - 1) if kept > 0 else 0.0
    return g, before, factor - math.log(own), alike


def _normed(walk: Any, s: int, kept: float, every: float, pulled: float, spread: float) -> tuple[float, float]:
    """log factor of batch norm on a squared norm, and the correlation behind it.

    Args:
        kept, every, pulled: what slopes leave of the squared norm, of that of the sum over columns, and of that of the
            sum of each times its normalised entry.
        spread: log variance of what is normalised; it varies as that of normal entries.
    """
    B, norm = int(walk.spread.steps[s]), walk.at[s][1]
    factor, shrink = inverse_variance(B, math.log(norm.eps) - spread)
    return _log(kept - (every + pulled * (2 - shrink)) / B) + math.log(factor) - spread, -1 / (B - 1)


def _log(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf
