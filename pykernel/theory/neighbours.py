# SPDX-License-Identifier: BSD-3-Clause
"""What neighbours have in common beyond any two columns, behind max pools whose windows overlap.

Means over all pairs are what other rooms follow. Here the pairs of positions of one input that are a few steps apart
are followed beside them: forward their distance, backward the correlation of their gradients. A convolution keeps both
(it hands on products tap by tap), a stride leaves every second, functions act on each as on any pair.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from pykernel.program import Op, Stretch
from pykernel.theory import edges
from pykernel.theory.coherence import kept_share
from pykernel.theory.structure import place
from pykernel.window import Window

Offset = tuple[int, int]
REACH = 2  # steps up to which edges make neighbours, before a max pool: those within a window of three
RATIO = ("node", "scale", "linear", "norm", "affine")  # ops that change all distances alike


class Near(NamedTuple):
    """Positions of one input along both axes, and the distance of two that are so many steps apart, up to a sign."""

    field: Offset
    apart: dict[Offset, float]

    def partners(self, offset: Offset) -> float:
        """How many others of its input a position has so far away, on average."""
        return 2 * math.prod(max(n - abs(step), 0) / n for n, step in zip(self.field, offset, strict=True))

    def others(self, distance: float, columns: int) -> float:
        """The mean distance of all other pairs, from that of all pairs."""
        number = sum(map(self.partners, self.apart))
        known = sum(self.partners(offset) * d for offset, d in self.apart.items())
        return max(distance * (columns - 1) - known, 0.0) / max(columns - 1 - number, 1.0)


def offsets(reach: Offset) -> list[Offset]:
    """All but none, one of each two of opposite sign."""
    rows, columns = reach
    every = ((i, j) for i in range(rows + 1) for j in range(-columns, columns + 1))
    return [offset for offset in every if offset > (0, 0)]


def noting(walk: Any, stretch: Stretch, op: Any, step: Callable[[int], None]) -> Callable[[int], None]:
    """The step of an op that notes which activation step, or max pool of what weights give, its register is behind:
    what max pools, and functions on them, ask."""
    first, each = place(stretch, op)
    notes = {"phi": walk.behind, "pool": walk.pooled}

    def noted(i: int) -> None:
        step(i)
        at = first + i * each
        for kind, note in notes.items():
            number = note.get(op.ins[0]) if op.kind == "node" else None
            if op.kind == kind and (kind == "phi" or (at in walk.rows.peaks and walk.rows.peaks[at].step is None)):
                number = at
            note.pop(op.out, None)
            if number is not None:
                note[op.out] = number

    return noted


def neighbouring(walk: Any, stretch: Stretch, op: Any, steps: tuple[Callable[[int], None], ...]) -> Callable:
    """All steps of an op, with what they do to neighbours."""
    first, each = place(stretch, op)

    def both(i: int) -> None:
        read, before = [walk.near.get(r) for r in op.ins], [walk.distance[r] for r in op.ins]
        squares = walk.map.get(op.ins[0]) if op.ins else None
        for step in steps:
            step(i)
        if op.kind == "gather":
            walk.near[op.out] = _patches(walk, first + i * each, read[0], before[0], squares)
        else:
            walk.near[op.out] = handed_on(walk, op, first + i * each, read, before)

    return both


def handed_on(walk: Any, op: Any, number: int, read: list[Near | None], before: list[float]) -> Near | None:
    """Neighbours in what an op writes, from those in what it reads and the mean distances there.

    What functions and layers read is noted in `walk.rows.near`.
    """
    near = read[0] if read else None
    if op.kind == "add":
        return _sum(walk, op, number, read, before)
    if op.kind == "pool":
        return walk.rows.near.get(("window", number))
    if op.kind == "phi" and number in walk.rows.pooled:  # `ops.pool` has noted it
        return walk.rows.near.get(("window", walk.rows.pooled[number].number))
    if near is None or op.kind in ("gate", "mix", "drive"):
        return None
    if op.kind == "mask":
        left = 1 - walk.program.masks[number]
        return near._replace(apart={offset: 1 - left * (1 - d) for offset, d in near.apart.items()})
    if op.kind == "linear":
        walk.rows.near["layer", number] = near
    if op.kind == "phi":
        return _function(walk, op, number, near, before[0])
    if op.kind in RATIO:
        ratio = walk.distance[op.out] / before[0] if before[0] > 0 else 1.0
        return near._replace(apart={offset: min(ratio * d, 2.0) for offset, d in near.apart.items()})
    return None


def _sum(walk: Any, op: Op, number: int, read: list[Near | None], before: list[float]) -> Near | None:
    if all(near is None for near in read):
        return None
    field = next(near.field for near in read if near is not None)
    found = {offset for near in read if near is not None for offset in near.apart}
    shares = walk.rows.kept[number], walk.rows.added[number]
    of = lambda near, mean, offset: mean if near is None else near.apart.get(offset, mean)
    parts = list(zip(read, before, shares, strict=True))
    return Near(field, {o: min(sum(share * of(near, mean, o) for near, mean, share in parts), 2.0) for o in found})


def _patches(walk: Any, number: int, near: Near | None, distance: float, squares: Any) -> Near | None:
    """Neighbours of patches: those that were, and, where taps lie beyond an edge, those that lose less by it than
    positions far apart do."""
    window = walk.window(number)
    if window.by_units:
        return None
    kept = None if near is None else _every(near, window)
    if not walk.edged or number in walk.edged.windows or walk.columns == 1:
        return kept
    apart: dict[Offset, float] = {}
    if number < walk.last_peak:
        far = distance if near is None else near.others(distance, int(walk.spread.windows[number, 0]))
        rows, columns = (min(REACH, n - 1) for n in window.out)
        apart = dict.fromkeys(offsets((rows, columns)), far) if far < 1 else {}
    apart |= {} if kept is None else kept.apart
    if not apart:
        return None
    left = edges.together(window, squares, apart)
    return Near(window.out, {o: 1 - (1 - d) * kept for (o, d), kept in zip(apart.items(), left, strict=True)})


def _every(near: Near, window: Window) -> Near | None:
    """Neighbours of patches: those that are a multiple of the stride apart."""
    kept = {}
    for offset, d in near.apart.items():
        if all(step % s == 0 for step, s in zip(offset, window.stride, strict=True)):
            i, j = (step // s for step, s in zip(offset, window.stride, strict=True))
            kept[i, j] = d
    return Near(window.out, kept) if kept else None


def _function(walk: Any, op: Op, s: int, near: Near, mean: float) -> Near:
    """Neighbours behind a function: its map of distances, behind batch norm of distances in units of their mean."""
    function, norm = walk.at[s]
    if norm.kind == "batch":
        unit = mean if mean > 0 else 1.0
        near = near._replace(apart={offset: min(d / unit, 2.0) for offset, d in near.apart.items()})
    walk.rows.near["step", s] = near
    t = float(walk.rows.preimage[s])
    return near._replace(apart={offset: function.apart(s, t, d) for offset, d in near.apart.items()})


# Backward: a dictionary of offsets, with the correlation of any other two positions of one input at ANY.
ANY: Offset = (0, 0)


def lookup(inside: dict[Offset, float], offset: Offset) -> float:
    """The correlation of the gradients of two positions so far apart."""
    return inside.get(offset, inside[ANY])


def sent_back(walk: Any, op: Any, number: int, inside: dict[Offset, float], o: float) -> dict[Offset, float]:
    """Correlations of neighbours' gradients in what an op reads, from those in what it wrote; `o`: the mean over all
    pairs there."""
    if op.kind == "gather":
        window = walk.window(number)
        if window.by_units:
            return {ANY: 0.0}
        if window.stride == (1, 1):
            return inside
        rows, columns = window.stride
        return {(i * rows, j * columns): share for (i, j), share in inside.items() if (i, j) != ANY} | {ANY: 0.0}
    if op.kind == "pool":
        window, peak = walk.window(number), walk.signal.peaks.get(number)
        return _to_largest(window, inside, peak) if window.largest else _spread(window, inside)
    if op.kind == "mask":
        return {offset: share * (1 - walk.program.masks[number]) for offset, share in inside.items()}
    if op.kind == "norm" and walk.norms[number].kind == "batch":
        return _centred(inside, o, int(walk.spread.norms[number]))
    if op.kind == "phi":
        return _slopes(walk, number, inside, o)
    return inside


def _to_largest(window: Window, inside: dict[Offset, float], peak: Any) -> dict[Offset, float]:
    """A max pool's gradients go to single positions: the sum of all products of one input stays."""
    before, behind = math.prod(window.field), math.prod(window.out)
    if peak is None or before == 1:
        return inside
    own = 1 + sum(count * lookup(inside, offset) for offset, count in peak.plan.same)
    return {ANY: ((1 + (behind - 1) * inside[ANY]) / max(own, 1e-300) - 1) / (before - 1)}


def _spread(window: Window, inside: dict[Offset, float]) -> dict[Offset, float]:
    """A mean pool's gradient is one for all of a window."""
    found = {ANY: inside[ANY]}
    if window.out == (1, 1):
        return {ANY: 1.0}
    for offset in offsets((window.taps[0] - 1, window.taps[1] - 1)):
        together = math.prod(1 - abs(step) / k for step, k in zip(offset, window.taps, strict=True))
        found[offset] = together + (1 - together) * inside[ANY]
    return found


def _slopes(walk: Any, s: int, inside: dict[Offset, float], o: float) -> dict[Offset, float]:
    (function, norm), near = walk.at[s], walk.signal.near.get(("step", s))
    t, normed = float(walk.signal.preimage[s]), norm.kind == "batch"
    B = int(walk.spread.steps[s])
    mean = 1.0 if normed else math.exp(min(float(walk.signal.spread[s] - walk.signal.raw[s]), 1.0))
    share = lambda d: kept_share(function.row, math.exp(min(max(t, -340.0), 340.0)), d) if math.isfinite(t) else 1.0
    any_two = share(mean)
    apart = near.apart if near is not None else {}
    found = {offset: lookup(inside, offset) * share(d) for offset, d in apart.items()}
    found |= {offset: inside[offset] * any_two for offset in inside if offset not in found}
    return _centred(found, o * any_two, B) if normed else found


def _centred(inside: dict[Offset, float], o: float, B: int) -> dict[Offset, float]:
    """Behind batch norm over B columns, which takes the mean of all gradients from each."""
    common = min((1 + (B - 1) * o) / B, 1 - 1e-12)
    return {offset: (share - common) / (1 - common) for offset, share in inside.items()}


def mixed(one: dict[Offset, float], other: dict[Offset, float], share: float) -> dict[Offset, float]:
    """Of a sum of independent gradients, of which the first has this share of the squared norm."""
    return {k: share * lookup(one, k) + (1 - share) * lookup(other, k) for k in {*one, *other}}


def beside(near: Near, inside: dict[Offset, float], distance: float, o: float, columns: int) -> float:
    """What neighbours add to the sum over all partners of a column of gradients' correlations times inputs' cosines,
    where all pairs have the mean distance and the mean correlation o."""
    far = near.others(distance, columns)
    own = sum(near.partners(k) * lookup(inside, k) * (far - d) for k, d in near.apart.items())
    return float(own + (columns - 1) * o * (distance - far))
