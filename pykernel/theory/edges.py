# SPDX-License-Identifier: BSD-3-Clause
"""What zeros beyond the edge do: a map over the positions of mean squares forward, and of squared gradients backward.

Near an edge a patch sees fewer positions, and a position is seen by fewer patches. So, beside the means over positions
that other rooms follow, every register has here what each position's mean square, or squared gradient, is over that
mean. Weights hand on squares tap by tap, functions act on every position's own variance: these maps are exact at
infinite width. Of two positions one number is kept, as elsewhere: all pairs count as equally correlated, and what taps
beyond the edge take from the sum of all products is counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pykernel.program import Program, Stretch, once
from pykernel.theory.largest import Windows, peaks
from pykernel.theory.logs import log_add
from pykernel.theory.quadrature import HOMOGENEOUS, LOG_SLOPE2, LOG_VALUE2, MEAN, gaussian_mean, special_points
from pykernel.theory.structure import place
from pykernel.window import OUTSIDE, Window

Map = Any  # float64 over the positions of one input, mean 1; None where all are alike
PATTERNS = 16  # that are followed
NOTHING = 1e-30  # of a variance


class Patterns(NamedTuple):
    """Of a register before batch norm somewhere: what columns have in common beside one number for all pairs.

    A unit's mean over inputs is a pattern over positions, since taps beyond an edge are missing at some of them. The
    covariance of two positions is the sum over rows of `rows[:, p] rows[:, p']`, in units of the mean square; unless it
    `is_whole`, one more row is the root of the map times that of the mean correlation.
    """

    rows: np.ndarray
    is_whole: bool


class Read(NamedTuple):
    """Of a register, as an op has read it: relative mean and distance of two columns, as `mean_field.Forward` has them,
    its map and its patterns."""

    mean: float
    distance: float
    map: Map
    patterns: Patterns | None = None


class Preimage(NamedTuple):
    """Of an activation step, or a norm: log of each position's variance behind its norm, over what it is on average;
    the same of what a layer or RMS norm divides squares by, None for others."""

    variance: Any
    level: Any


class Sent(NamedTuple):
    """What edges do to a gradient on its way through an op: its map behind, log of a factor on its squared norm, and a
    factor on the correlation of two columns'."""

    map: Map
    log: float = 0.0
    alike: float = 1.0


ALIKE = Sent(None)


class Centred(NamedTuple):
    """Numbers of the layers whose weights have the middle tap only (delta-orthogonal), and of the windows that they
    read."""

    layers: frozenset[int]
    windows: frozenset[int]


@once
def edged(program: Program) -> Centred | None:
    """The delta-orthogonal layers of a program in which patches see zeros beyond an edge; None where none does."""
    layers, windows, sees = set(), set(), False
    for stretch in program.stretches:
        patches: dict[int, Any] = {}
        for op in stretch.ops:
            if op.kind == "gather":
                numbers = _numbers(stretch, op)
                sees = sees or any(_beyond(program.windows[program.window_steps[n]]) for n in numbers)
                patches[op.out] = op
                continue
            if op.kind == "linear" and op.ins[0] in patches:
                for l, w in zip(_numbers(stretch, op), _numbers(stretch, patches[op.ins[0]]), strict=True):
                    draw = program.draws[program.layers.draw[l]]
                    if draw.distribution == "haar" and draw.parameter and program.layers.taps[l] > 1:
                        layers.add(l)
                        windows.add(w)
            patches.pop(op.out, None)
    return Centred(frozenset(layers), frozenset(windows)) if sees else None


def _numbers(stretch: Stretch, op: Any) -> range:
    first, each = place(stretch, op)
    return range(first, first + each * stretch.count, each)


@lru_cache(maxsize=256)
def _beyond(window: Window) -> bool:
    return bool((window.sources() == OUTSIDE).any())


@lru_cache(maxsize=128)
def _sources(window: Window) -> np.ndarray:
    """As `Window.sources`, one beyond the last position in the place of OUTSIDE."""
    seen = window.sources()
    return np.where(seen == OUTSIDE, math.prod(window.field), seen)


def seen(window: Window, values: np.ndarray) -> np.ndarray:
    """Values of what each tap of each window sees, zero beyond the edge, (taps, windows)."""
    return np.append(values, 0.0)[_sources(window)]


def sent(window: Window, values: np.ndarray) -> np.ndarray:
    """The transpose: the sum over all taps that see a position of a number of each window, (positions,)."""
    at = _sources(window)
    count = math.prod(window.field)
    return np.bincount(at.ravel(), np.broadcast_to(values, at.shape).ravel(), count + 1)[:count]


def pairs(values: Any, batch: int) -> Any:
    """Sums over ordered pairs of two columns, of `batch` inputs, of products of the roots of values, over the last
    axis: as mean squares are handed on where all pairs are equally correlated."""
    return (batch * np.sqrt(values).sum(axis=-1)) ** 2 - batch * np.sum(values, axis=-1)


def shared(before: np.ndarray, after: np.ndarray, batch: int) -> float:
    """What is left of the sum of products of two columns, from squares before (over taps, where these have an axis) and
    behind; 1 where there is one column."""
    if batch * len(after) == 1:
        return 1.0
    made = float(pairs(after, batch))
    return float(np.mean(pairs(before, batch))) / made if made > 0 else 1.0


def together(window: Window, squares: Map, offset: tuple[int, int]) -> float:
    """What is left of the correlation of two positions so far apart in the patches that these windows see."""
    roots = np.sqrt(seen(window, _whole(squares, math.prod(window.field))))
    made = np.sqrt((roots**2).mean(axis=0))
    both = [values.reshape(-1, *window.out) for values in (roots, made)]
    (i, j), (rows, columns) = offset, window.out
    one, other = (
        (slice(0, rows - i), slice(max(-j, 0), columns - max(j, 0))),
        (slice(i, rows), slice(max(j, 0), columns - max(-j, 0))),
    )
    before, after = (float((values[:, *one] * values[:, *other]).sum(axis=(1, 2)).mean()) for values in both)
    return before / after if after > 0 else 1.0


def mean_product(values: Map, batch: int) -> float:
    """The mean over these pairs; 1 where all positions are alike, or there is one column."""
    columns = 1 if values is None else batch * len(values)
    return 1.0 if columns == 1 else float(pairs(values, batch)) / (columns * (columns - 1))


def _whole(values: Map, window_positions: int) -> np.ndarray:
    return np.ones(window_positions) if values is None else values


def _normal(values: np.ndarray) -> tuple[Map, float]:
    """Values over their mean, and log of that."""
    mean = float(values.mean())
    if not mean > 0:
        return None, -math.inf
    return (None if len(values) == 1 else values / mean), math.log(mean)


# Forward: (walk, op, number, what was read) -> the map of what an op has written, whose moments are brought up to date.


def following(walk: Any, stretch: Stretch, op: Any, steps: tuple[Callable, ...]) -> Callable[[int], None]:
    """All steps of an op, with what it does to maps."""
    first, each = place(stretch, op)
    forward = FORWARD.get(op.kind)

    begins = op.kind in BEGINNING

    def both(i: int) -> None:
        read = [Read(walk.mean[r], walk.distance[r], walk.map.get(r), walk.patterns.get(r)) for r in op.ins]
        for step in steps:
            step(i)
        walk.patterns[op.out] = read[0].patterns if op.kind in PASSING else None
        if not begins and all(one.map is None for one in read):
            walk.map[op.out] = None
        else:
            walk.map[op.out] = read[0].map if forward is None else forward(walk, op, first + i * each, read)

    return both


def _gather(walk, op, number, read):
    window, (_, d, w, _), batch = walk.window(number), read[0], walk.program.batch
    before = seen(window, _whole(w, math.prod(window.field)))
    if number in walk.edged.windows:  # what the layer behind sees of it; the patches themselves have less
        walk.patches[op.out] = before.mean(axis=0)
        return _normal(before[len(before) // 2])[0]
    patch = before.mean(axis=0)
    cosine = (1 - d) * shared(before, patch, batch)
    found, log = _normal(patch)
    if walk.normed:
        cosine += _patterns_of_patches(walk, op, window, read[0], before, log)
    walk.distance[op.out] = 1 - cosine
    walk.square[op.out] += log
    return found


def _patterns_of_patches(walk, op, window, read, before, log) -> float:
    """Each tap hands on the patterns that it sees: what those beside the mean correlation add to it."""
    size, old, added = math.exp(log / 2) * math.sqrt(len(before)), read.patterns, 0.0
    rows = [math.sqrt(max(1 - read.distance, 0.0)) * np.sqrt(before)]
    if old is not None:
        own = np.concatenate([seen(window, row) for row in old.rows])
        rows = [own] if old.is_whole else [*rows, own]
        if not old.is_whole:
            batch, made = walk.program.batch, _normal(before.mean(axis=0))[0]
            columns = batch * before.shape[1]
            if columns > 1 and made is not None:
                both = ((batch * own.sum(axis=1)) ** 2 - batch * (own**2).sum(axis=1)).sum() / size**2
                added = float(both) / float(pairs(made, batch))
    walk.patterns[op.out] = Patterns(_fewer(np.concatenate(rows) / size), True)
    return added


def _fewer(rows: np.ndarray) -> np.ndarray:
    """The few combinations of patterns that carry most of their covariance."""
    if len(rows) <= PATTERNS:
        return rows
    _, vectors = np.linalg.eigh(rows @ rows.T)
    return vectors[:, -PATTERNS:].T @ rows


def _whole_patterns(read: Read, positions: int) -> np.ndarray:
    """All rows of what two columns have in common."""
    base = math.sqrt(max(1 - read.distance, 0.0)) * np.sqrt(_whole(read.map, positions))[None]
    if read.patterns is None:
        return base
    return read.patterns.rows if read.patterns.is_whole else np.concatenate([base, read.patterns.rows])


@lru_cache(maxsize=64)
def _handed_on(row: Any) -> float:
    """(E phi')^2 / E phi^2 of a standard normal: what a function leaves of a small correlation."""
    kinks = special_points(row)
    square = gaussian_mean(lambda z: np.asarray(row.value(z), float) ** 2, 1.0, kinks)
    return gaussian_mean(lambda z: np.asarray(row.slope(z), float), 1.0, kinks) ** 2 / square if square > 0 else 0.0


def _linear(walk, op, l, read):
    _, d, w, _ = read[0]
    patch = walk.patches.pop(op.ins[0], w)
    if patch is not None:
        walk.rows.edges["layer", l] = patch
    if w is None:
        return None
    share = math.exp(walk.weight[l] + walk.rows.input[l] - walk.rows.preactivation[l])
    return _sum(walk, op.out, [(share, d, w)], None) if walk.bias[l] > -math.inf else w


def _affine(walk, op, n, read):
    _, d, w, _ = read[0]
    return _sum(walk, op.out, [(walk.rows.scaled[n], d, w)], None)


def _add(walk, op, j, read):
    shares = walk.rows.kept[j], walk.rows.added[j]
    one, other = (1.0 if part.map is None else part.map for part in read)
    both = list(zip(shares, read, strict=True))
    if walk.normed:
        positions = max(np.size(one), np.size(other))
        rows = np.concatenate([math.sqrt(share) * _whole_patterns(part, positions) for share, part in both])
        walk.patterns[op.out] = Patterns(_fewer(rows), True)
    return _sum(walk, op.out, [(share, part.distance, part.map) for share, part in both], np.sqrt(one * other))


def _sum(walk, out, parts, common):
    """A sum of independent parts, (share, distance, map) each; of the rest of its mean square, which all columns have
    in common, the map is `common`."""
    batch, rest = walk.program.batch, 1 - sum(share for share, _, _ in parts)
    total = sum(share * (1.0 if w is None else w) for share, _, w in parts) + rest * (1.0 if common is None else common)
    kept = sum(share * (1 - d) * mean_product(w, batch) for share, d, w in parts)
    found, _ = _normal(total)
    cosine = (kept + rest * mean_product(common, batch)) / max(mean_product(found, batch), NOTHING)
    walk.distance[out] = min(max(1 - cosine, 0.0), 2.0)
    return found


def _preimage(walk: Any, norm: Any, raw: float, read: Read) -> Preimage:
    """What each position's variance is behind a norm, and what that has divided by."""
    mean, _, w, _ = read
    if norm.kind is None:
        return Preimage(np.log(np.maximum(w, NOTHING)), None)
    if norm.kind == "batch":  # less the mean over all columns, that of each pattern
        rows = _whole_patterns(read, len(w))
        middle = rows.mean(axis=1)
        left = np.maximum(w - middle @ (2 * rows - middle[:, None]), NOTHING)
        return Preimage(np.log(left / left.mean()), None)
    raw += math.log1p(-mean * mean) if norm.kind == "layer" else 0.0
    eps, own = math.log(norm.eps), raw + np.log(np.maximum(w, NOTHING))
    level = np.logaddexp(own, eps) - log_add(raw, eps)
    return Preimage(own - raw - level, level)


def _phi(walk, op, s, read):
    (function, norm), t = walk.at[s], float(walk.rows.preimage[s])
    if not math.isfinite(t) or walk.square[op.out] == -math.inf:
        return None
    if norm.kind is None and function.passes:
        return read[0].map
    walk.rows.edges["step", s] = own = _preimage(walk, norm, float(walk.rows.raw[s]), read[0])
    if walk.normed:
        rows = math.sqrt(_handed_on(function.row)) * _beside(read[0], norm.kind == "batch")
        walk.patterns[op.out] = Patterns(rows, False)
    if function.row.name in HOMOGENEOUS:
        found, log = _normal(np.exp(own.variance))
        walk.square[op.out] += log
        return found
    value, mean = _moments(function, t, own)
    found, log = _normal(np.exp(value[:-1] - value[-1]))
    walk.square[op.out] += log
    if mean[-1]:
        root = np.exp((value[:-1] - value[-1]) / 2)
        walk.mean[op.out] *= float((mean[:-1] * root).sum() / root.sum()) / mean[-1]
    return found


def _beside(read: Read, normed: bool) -> np.ndarray:
    """Patterns less what all positions have in common, behind batch norm in units of what that leaves."""
    rows = _whole_patterns(read, len(read.map))
    if not normed:
        root = np.sqrt(read.map)
        return rows - np.outer(rows @ root, root) / float(root @ root)
    middle = rows.mean(axis=1, keepdims=True)
    left = 1 - float((middle**2).sum())
    return (rows - middle) / math.sqrt(max(left, NOTHING))


def _moments(function: Any, t: float, own: Preimage, columns: Any = (LOG_VALUE2, MEAN)) -> np.ndarray:
    """Moments of a function at each position, and last at the mean."""
    return function.table.sampled(np.append(t + own.variance / 2, t), list(columns))


def _gate(walk, op, s, read):
    gate, value = read
    function, t = walk.at[s][0], float(walk.rows.preimage[s])
    if not math.isfinite(t):
        return None
    walk.rows.edges["value", s] = value.map
    total = 1.0 if value.map is None else value.map
    if gate.map is not None:
        walk.rows.edges["step", s] = own = Preimage(np.log(np.maximum(gate.map, NOTHING)), None)
        moments, _ = _moments(function, t, own)
        total = total * np.exp(moments[:-1] - moments[-1])
    found, log = _normal(total)
    walk.square[op.out] += log
    return found


def _norm(walk, op, n, read):
    norm = walk.norms[n]
    if walk.square[op.out] == -math.inf:
        return None
    walk.rows.edges["norm", n] = own = _preimage(walk, norm, float(walk.rows.norm_raw[n]), read[0])
    if walk.normed:
        walk.patterns[op.out] = Patterns(_beside(read[0], True), True) if norm.kind == "batch" else read[0].patterns
    found, log = _normal(np.exp(own.variance))
    walk.square[op.out] += log
    return found


def _node(walk, op, n, read):
    walk.rows.mean[n + 1] *= float(np.sqrt(read[0].map).mean())
    return read[0].map


def _pool(walk, op, number, read):
    window, (_, d, w, _), batch = walk.window(number), read[0], walk.program.batch
    if w is None and not (window.largest and _beyond(window)):
        return None
    positions = math.prod(window.field)
    before = seen(window, _whole(w, positions))
    if window.largest:
        entries = (_sources(window) < positions).sum(axis=0)
        found, log = _normal(before.sum(axis=0) / entries * _by_entries(walk, number, entries))
        walk.square[op.out] += log
        return found
    k, c = len(before), 1 - d
    middle = np.sqrt(before).mean(axis=0)
    own = c * middle**2 + (1 - c) * before.mean(axis=0) / k
    found, log = _normal(own)
    left = (1 + (k - 1) * c) / k
    if left > 0:
        cosine = (1 - walk.distance[op.out]) * shared(middle**2, own / left, batch)
        walk.distance[op.out] = min(max(1 - cosine, 0.0), 2.0)
        walk.square[op.out] += log - math.log(left)
    return found


def _by_entries(walk: Any, number: int, entries: np.ndarray) -> Any:
    """What the largest of so many entries is in mean square, over what it is on average."""
    peak = walk.rows.peaks.get(number)
    sizes = np.unique(entries).tolist()
    if peak is None or len(sizes) == 1:
        return 1.0
    row, first = (walk.line if peak.step is None else walk.at[peak.step][0]).row, peak.plan
    square = {m: peaks(row, peak.log_std, first.correlation, Windows(((m, 1.0),), (), (), ())) for m in sizes}
    return np.exp(np.array([square[m].log_square for m in entries.tolist()]) - peak.peaks.log_square)


PASSING = ("node", "scale", "linear", "mask")  # ops that leave patterns what they are
BEGINNING = ("gather", "pool", "linear")  # ops that make a map where there was none, or must be told of one
FORWARD: dict[str, Callable] = {
    "gather": _gather,
    "linear": _linear,
    "affine": _affine,
    "add": _add,
    "phi": _phi,
    "gate": _gate,
    "norm": _norm,
    "node": _node,
    "pool": _pool,
    "mix": lambda walk, op, number, read: None,
    "drive": lambda walk, op, number, read: None,
}


# Backward: (walk, op, number, map of the gradient of what it wrote) -> register -> Sent.


def sent_back(walk: Any, op: Any, number: int) -> dict[int, Sent]:
    """What an op does to the map of the gradient that comes back to it, for each register that it has read."""
    u, backward = walk.map.pop(op.out, None), BACKWARD.get(op.kind)
    if backward is None:
        return dict.fromkeys(op.ins, Sent(u))
    return backward(walk, op, number, u)


def noted(walk: Any, op: Any, number: int, sent: dict[int, Sent]) -> None:
    """What edges make of the factor of a function on the squared norm, in its row."""
    if op.kind == "phi":
        walk.rows.derivative[number] += sent[op.ins[0]].log
    elif op.kind == "gate" and (sent[op.ins[0]].log or sent[op.ins[1]].log):
        size, value = walk.signal.factor[number] + walk.slope[number], walk.signal.value[number]
        g, v = op.ins
        walk.rows.derivative[number] += np.logaddexp(size + sent[g].log, value + sent[v].log) - np.logaddexp(
            size, value
        )


def mixed(one: Map, other: Map, share: float) -> Map:
    """Of a sum of independent gradients, of which the first has this share of the squared norm."""
    if one is None and other is None:
        return None
    return share * (1.0 if one is None else one) + (1 - share) * (1.0 if other is None else other)


def _gather_back(walk, op, number, u):
    window, batch = walk.window(number), walk.program.batch
    at, out = _sources(window), math.prod(window.out)
    u = _whole(u, out)
    if number in walk.edged.windows:
        return {op.ins[0]: Sent(_normal(np.bincount(at[len(at) // 2], u, math.prod(window.field)))[0])}
    found, log = _normal(sent(window, u) / len(at))
    log -= math.log(out / math.prod(window.field))
    inside = np.where(at < math.prod(window.field), u, 0.0)
    return {op.ins[0]: Sent(found, log, shared(inside, u, batch) * math.exp(-log))}


def _pool_back(walk, op, number, u):
    window = walk.window(number)
    u = _whole(u, math.prod(window.out))
    if window.largest:
        u = u / (_sources(window) < math.prod(window.field)).sum(axis=0)
    return {op.ins[0]: Sent(_normal(sent(window, u))[0])}


def _linear_back(walk, op, l, u):
    patch, batch = walk.signal.edges.get(("layer", l)), walk.program.batch
    if u is not None or patch is not None:
        both = (1.0 if u is None else u) * (1.0 if patch is None else patch)
        walk.rows.edges[l] = float(both.mean()), mean_product(both, batch) / max(mean_product(u, batch), NOTHING)
    return {op.ins[0]: Sent(u)}


def _times(walk: Any, u: Map, factor: Any, ties: bool = False) -> Sent:
    """A gradient times a factor of each position; `ties`: whether correlations do not follow."""
    if factor is None:
        return Sent(u)
    found, log = _normal((1.0 if u is None else u) * factor)
    batch = walk.program.batch
    alike = 1.0 if ties else mean_product(found, batch) / max(mean_product(u, batch), NOTHING)
    return Sent(found, log, alike)


def _slopes(walk: Any, s: int) -> Any:
    """Of each position, E phi'^2 over what it is on average, less what its norm divides by; None for no difference."""
    own, function = walk.signal.edges.get(("step", s)), walk.at[s][0]
    if own is None or (own.level is None and function.table.level is not None):
        return None
    log = np.zeros(len(own.variance))
    if function.table.level is None:
        slope = _moments(function, float(walk.signal.preimage[s]), own, (LOG_SLOPE2,))[0]
        log = slope[:-1] - slope[-1]
    return np.exp(log if own.level is None else log - own.level)


def _phi_back(walk, op, s, u):
    return {op.ins[0]: _times(walk, u, _slopes(walk, s), walk.at[s][1].kind == "batch")}


def _gate_back(walk, op, s, u):
    (g, v), own, value = op.ins, walk.signal.edges.get(("step", s)), walk.signal.edges.get(("value", s))
    slopes, to_value = _slopes(walk, s), None
    if own is not None:
        moments, _ = _moments(walk.at[s][0], float(walk.signal.preimage[s]), own)
        to_value = np.exp(moments[:-1] - moments[-1])
    to_gate = value if slopes is None else slopes * (1.0 if value is None else value)
    return {g: _times(walk, u, to_gate), v: _times(walk, u, to_value)}


def _norm_back(walk, op, n, u):
    own = walk.signal.edges.get(("norm", n))
    return {op.ins[0]: _times(walk, u, None if own is None or own.level is None else np.exp(-own.level))}


BACKWARD: dict[str, Callable] = {
    "gather": _gather_back,
    "pool": _pool_back,
    "linear": _linear_back,
    "phi": _phi_back,
    "gate": _gate_back,
    "norm": _norm_back,
    "mix": lambda walk, op, number, u: {},
    "drive": lambda walk, op, number, u: {},
}
