# SPDX-License-Identifier: BSD-3-Clause
"""Forward through zeros beyond the edge: of every register a map of mean squares, and of pairs of positions what they
have in common beside one number for all.

Two columns whose taps lie beyond different edges have less in common than others: a unit's mean over inputs is a
pattern over positions. Batch norm takes away what all positions have in common and leaves the pattern; so patterns are
followed, too, the few that carry most. Functions hand them on by the slope of their map of correlations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from pykernel.program import Op, Stretch
from pykernel.theory.coherence import kept_share
from pykernel.theory.edges import (
    NOTHING,
    Map,
    Preimage,
    mean_product,
    moments_at,
    normal,
    pairs,
    seen,
    sees_beyond,
    shared,
    sources,
    whole,
)
from pykernel.theory.largest import Windows, peaks
from pykernel.theory.logs import log_add
from pykernel.theory.quadrature import HOMOGENEOUS, LOG_SLOPE2, LOG_VALUE2, gaussian_mean, moments, special_points
from pykernel.theory.structure import place
from pykernel.window import Window

PATTERNS = 16  # that are followed
STRONG = 4  # whose squares are
NUMBERS = 2**24  # of all patterns of patches together


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


def following(walk: Any, stretch: Stretch, op: Op, steps: tuple[Callable, ...]) -> Callable[[int], None]:
    """All steps of an op, with what it does to maps."""
    first, each = place(stretch, op)
    forward, begins = FORWARD.get(op.kind), op.kind in BEGINNING

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


def _gather(walk: Any, op: Op, number: int, read: list[Read]) -> Map:
    window, w, batch = walk.window(number), read[0].map, walk.program.batch
    before = seen(window, whole(w, math.prod(window.field)))
    if number in walk.edged.windows:  # what the layer behind sees of it; the patches themselves have less
        walk.patches[op.out] = before.mean(axis=0)
        return normal(before[len(before) // 2])[0]
    patch = before.mean(axis=0)
    found, log = normal(patch)
    if batch * len(patch) > 1:
        walk.distance[op.out] = 1 - _cosine_of_patches(walk, op, window, read[0], before)
    walk.square[op.out] += log
    return found


def _cosine_of_patches(walk: Any, op: Op, window: Window, read: Read, before: np.ndarray) -> float:
    """The mean cosine of two patches; taps hand on the patterns that they see."""
    batch, patch, left = walk.program.batch, before.mean(axis=0), 1 - read.distance
    rows = _fewer(_whole_patterns(read, math.prod(window.field)), max(NUMBERS // before.size, 1))
    handed = np.concatenate([seen(window, row) for row in rows])
    walk.patterns[op.out] = Patterns(_fewer(handed / math.sqrt(len(before) * float(patch.mean()))), True)
    beside = products(rows, batch) / float(pairs(whole(read.map, rows.shape[1]), batch))
    cosine = products(handed, batch) / (len(before) * float(pairs(patch, batch)))
    return cosine + (left - beside) * shared(before, patch, batch)


def products(rows: np.ndarray, batch: int) -> float:
    """The sum over ordered pairs of two columns of what patterns have in common."""
    return float(((batch * rows.sum(axis=1)) ** 2 - batch * (rows * rows).sum(axis=1)).sum())


def _fewer(rows: np.ndarray, most: int = PATTERNS) -> np.ndarray:
    """The few combinations of patterns that carry most of their covariance."""
    if len(rows) <= most:
        return rows
    if rows.shape[1] < len(rows):
        values, vectors = np.linalg.eigh(rows.T @ rows)
        return (vectors * np.sqrt(np.maximum(values, 0.0))).T[-most:]
    _, vectors = np.linalg.eigh(rows @ rows.T)
    return vectors[:, -most:].T @ rows


def _whole_patterns(read: Read, positions: int) -> np.ndarray:
    """All rows of what two columns have in common."""
    base = math.sqrt(max(1 - read.distance, 0.0)) * np.sqrt(whole(read.map, positions))[None]
    if read.patterns is None:
        return base
    return read.patterns.rows if read.patterns.is_whole else np.concatenate([base, read.patterns.rows])


@lru_cache(maxsize=512)
def _handed_on(row: Any, log_std: float, distance: float) -> float:
    """What a function leaves of a small difference between the correlations of its columns: the slope of its map."""
    table = moments(row)
    factor = table.column(log_std, LOG_SLOPE2) + 2 * log_std - table.column(log_std, LOG_VALUE2)
    return kept_share(row, math.exp(min(max(log_std, -340.0), 340.0)), distance) * math.exp(min(factor, 0.0))


def _linear(walk: Any, op: Op, l: int, read: list[Read]) -> Map:
    _, d, w, _ = read[0]
    patch = walk.patches.pop(op.ins[0], w)
    if patch is not None:
        walk.rows.edges["layer", l] = patch
    if w is None:
        return None
    if walk.bias[l] == -math.inf:
        return w
    share = math.exp(walk.weight[l] + walk.rows.input[l] - walk.rows.preactivation[l])
    if walk.patterned:  # all positions have the bias in common
        rows = np.pad(math.sqrt(share) * _whole_patterns(read[0], len(w)), ((0, 1), (0, 0)), constant_values=0.0)
        rows[-1] = math.sqrt(max(1 - share, 0.0))
        walk.patterns[op.out] = Patterns(_fewer(rows), True)
    return _sum(walk, op.out, [(share, d, w)], None)


def _mask(walk: Any, op: Op, m: int, read: list[Read]) -> Map:
    w, old = read[0].map, read[0].patterns
    left = math.sqrt(1 - walk.program.masks[m])
    walk.patterns[op.out] = None if old is None else old._replace(rows=left * old.rows)
    return w


def _affine(walk: Any, op: Op, n: int, read: list[Read]) -> Map:
    _, d, w, _ = read[0]
    return _sum(walk, op.out, [(walk.rows.scaled[n], d, w)], None)


def _add(walk: Any, op: Op, j: int, read: list[Read]) -> Map:
    shares = walk.rows.kept[j], walk.rows.added[j]
    one, other = (1.0 if part.map is None else part.map for part in read)
    both = list(zip(shares, read, strict=True))
    if walk.patterned:
        positions = max(np.size(one), np.size(other))
        rows = np.concatenate([math.sqrt(share) * _whole_patterns(part, positions) for share, part in both])
        walk.patterns[op.out] = Patterns(_fewer(rows), True)
    return _sum(walk, op.out, [(share, part.distance, part.map) for share, part in both], np.sqrt(one * other))


def _sum(walk: Any, out: int, parts: list[tuple[float, float, Map]], common: Map) -> Map:
    """A sum of independent parts, (share, distance, map) each; of the rest of its mean square, which all columns have
    in common, the map is `common`."""
    batch, rest = walk.program.batch, 1 - sum(share for share, _, _ in parts)
    total = sum(share * (1.0 if w is None else w) for share, _, w in parts) + rest * (1.0 if common is None else common)
    kept = sum(share * (1 - d) * mean_product(w, batch) for share, d, w in parts)
    found, _ = normal(np.maximum(total, 0.0))
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


def _phi(walk: Any, op: Op, s: int, read: list[Read]) -> Map:
    (function, norm), t = walk.at[s], float(walk.rows.preimage[s])
    if not math.isfinite(t) or walk.square[op.out] == -math.inf:
        return None
    if norm.kind is None and function.passes:
        return read[0].map
    walk.rows.edges["step", s] = own = _preimage(walk, norm, float(walk.rows.raw[s]), read[0])
    if walk.patterned:
        _patterns_behind(walk, op, function.row, norm, t, read[0])
    if function.row.name in HOMOGENEOUS:
        found, log = normal(np.exp(own.variance))
        walk.square[op.out] += log
        return found
    value, mean = moments_at(function, t, own)
    found, log = normal(np.exp(value[:-1] - value[-1]))
    walk.square[op.out] += log
    if mean[-1]:
        root = np.exp((value[:-1] - value[-1]) / 2)
        walk.mean[op.out] *= float((mean[:-1] * root).sum() / root.sum()) / mean[-1]
    return found


def _patterns_behind(walk: Any, op: Op, row: Any, norm: Any, t: float, read: Read) -> None:
    """Patterns behind a function; behind batch norm, where all else that two columns have in common is gone, with what
    their square adds."""
    normed, batch = norm.kind == "batch", walk.program.batch
    rows = _beside(read, normed)
    left = _handed_on(row, round(t, 3), 1.0 if normed else round(read.distance, 2))
    every = math.sqrt(left) * rows
    if normed and len(read.map) * batch > 1:
        strong = _fewer(rows, STRONG)
        i, j = np.triu_indices(len(strong))
        squares = np.sqrt(_bent(row) * np.where(i == j, 1.0, 2.0))[:, None] * strong[i] * strong[j]
        walk.distance[op.out] -= products(squares, batch) / float(pairs(np.ones(len(read.map)), batch))
        every = _fewer(np.concatenate([every, squares]))
    walk.patterns[op.out] = Patterns(every, False)


@lru_cache(maxsize=64)
def _bent(row: Any) -> float:
    """(E phi'')^2 / 2 over E phi^2 of a standard normal: what a function makes of the square of a correlation."""
    kinks = special_points(row)
    square = gaussian_mean(lambda z: np.asarray(row.value(z), float) ** 2, 1.0, kinks)
    second = gaussian_mean(lambda z: np.asarray(row.value(z), float) * (z * z - 1), 1.0, kinks)
    return second**2 / 2 / square if square > 0 else 0.0


def _beside(read: Read, normed: bool) -> np.ndarray:
    """Patterns less what all positions have in common, behind batch norm in units of what that leaves."""
    rows = _whole_patterns(read, len(read.map))
    if not normed:
        root = np.sqrt(read.map)
        return rows - np.outer(rows @ root, root) / float(root @ root)
    middle = rows.mean(axis=1, keepdims=True)
    left = 1 - float((middle**2).sum())
    return (rows - middle) / math.sqrt(max(left, NOTHING))


def _gate(walk: Any, op: Op, s: int, read: list[Read]) -> Map:
    gate, value = read
    function, t = walk.at[s][0], float(walk.rows.preimage[s])
    if not math.isfinite(t):
        return None
    walk.rows.edges["value", s] = value.map
    total: Any = 1.0 if value.map is None else value.map
    if gate.map is not None:
        walk.rows.edges["step", s] = own = Preimage(np.log(np.maximum(gate.map, NOTHING)), None)
        square, _ = moments_at(function, t, own)
        total = total * np.exp(square[:-1] - square[-1])
    found, log = normal(total)
    walk.square[op.out] += log
    return found


def _norm(walk: Any, op: Op, n: int, read: list[Read]) -> Map:
    norm = walk.norms[n]
    if walk.square[op.out] == -math.inf:
        return None
    walk.rows.edges["norm", n] = own = _preimage(walk, norm, float(walk.rows.norm_raw[n]), read[0])
    if walk.patterned:
        walk.patterns[op.out] = Patterns(_beside(read[0], True), True) if norm.kind == "batch" else read[0].patterns
    found, log = normal(np.exp(own.variance))
    walk.square[op.out] += log
    return found


def _node(walk: Any, op: Op, n: int, read: list[Read]) -> Map:
    walk.rows.mean[n + 1] *= float(np.sqrt(read[0].map).mean())
    return read[0].map


def _pool(walk: Any, op: Op, number: int, read: list[Read]) -> Map:
    window, (_, d, w, _), batch = walk.window(number), read[0], walk.program.batch
    if w is None and not (window.largest and sees_beyond(window)):
        return None
    positions = math.prod(window.field)
    before = seen(window, whole(w, positions))
    if window.largest:
        entries = (sources(window) < positions).sum(axis=0)
        size, mean = _by_entries(walk, number, entries)
        found, log = normal(before.sum(axis=0) / entries * size)
        walk.square[op.out] += log
        _pooled_patterns(walk, op, window, read[0], entries)
        if walk.patterned and mean is not None:  # behind batch norm windows have their means in common
            old = walk.patterns[op.out]
            own = (np.sqrt(whole(found, len(entries))) * mean)[None]
            walk.patterns[op.out] = Patterns(own if old is None else np.concatenate([own, old.rows]), True)
        return found
    k, c = len(before), 1 - d
    middle = np.sqrt(before).mean(axis=0)
    own = c * middle**2 + (1 - c) * before.mean(axis=0) / k
    found, log = normal(own)
    left = (1 + (k - 1) * c) / k
    if left > 0:
        cosine = (1 - walk.distance[op.out]) * shared(middle**2, own / left, batch)
        walk.distance[op.out] = min(max(1 - cosine, 0.0), 2.0)
        walk.square[op.out] += log - math.log(left)
    _pooled_patterns(walk, op, window, read[0], k * math.sqrt(float(own.mean())))
    return found


def _pooled_patterns(walk: Any, op: Op, window: Window, read: Read, size: Any) -> None:
    """Means of patterns over windows, which largest entries follow nearly."""
    if read.patterns is not None:
        rows = np.array([seen(window, row).sum(axis=0) for row in read.patterns.rows])
        walk.patterns[op.out] = read.patterns._replace(rows=rows / size)


def _by_entries(walk: Any, number: int, entries: np.ndarray) -> tuple[Any, Any]:
    """Of the largest of so many entries, the mean square over what it is on average, and the relative mean, where that
    is all that windows have in common."""
    peak = walk.rows.peaks.get(number)
    if peak is None:
        return 1.0, None
    row, first = (walk.line if peak.step is None else walk.at[peak.step][0]).row, peak.plan
    sizes, back = np.unique(entries, return_inverse=True)
    of = [peaks(row, peak.log_std, first.correlation, Windows(((int(m), 1.0),), (), (), ())) for m in sizes]
    square = np.exp(np.array([one.log_square for one in of]) - peak.peaks.log_square)
    mean = np.array([one.mean for one in of])[back] if first.correlation <= 0 else None
    return square[back], mean


PASSING = ("node", "scale", "linear")  # ops that leave patterns what they are
BEGINNING = ("gather", "pool", "linear")  # ops that make a map where there was none, or must be told of one
# (walk, op, number, what was read) -> the map of what an op has written, whose moments it brings up to date
FORWARD: dict[str, Callable] = {
    "gather": _gather,
    "linear": _linear,
    "affine": _affine,
    "add": _add,
    "phi": _phi,
    "gate": _gate,
    "norm": _norm,
    "mask": _mask,
    "node": _node,
    "pool": _pool,
    "mix": lambda walk, op, number, read: None,
    "drive": lambda walk, op, number, read: None,
}
