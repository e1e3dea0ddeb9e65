# SPDX-License-Identifier: BSD-3-Clause
"""What a sweep keeps of a chain's replicas: scalars of each, and mergeable statistics of the profiles over layers.

Profiles are summed over a fixed binary tree of replicas: node (level, index) holds replicas [index * 2**level, (index +
1) * 2**level). A sum over the tree has the same bits however the replicas were cut into blocks, in which order they
came, and whether they were computed at once or added later: so blocks may be cut by measured cost, and a resumed sweep
equals an undisturbed one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from pykernel import observables
from pykernel.sweeps.profiles import Profiles
from pykernel.verdict import first_over_last, slopes

KEPT = 32
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LAYERS_AT_ONCE = 4096  # of several cells, summarised side by side within a few megabytes
SCALARS = (
    "end_to_end",
    "signal_end_to_end",
    "slope",
    "log10_grad_weight_first",
    "log10_grad_weight_last",
    "dead",
    "saturated",
    "loss",
)


class Node(NamedTuple):
    """Statistics of one node of the tree of replicas, over P rows (Q of them with quantiles) and S layers.

    Attributes:
        count: (P, S) float64, finite values seen (a plain float where all were).
        mean, square: (P, S) float64, their mean and sum of squared deviations.
        sorted: (Q, S, min(2**level, KEPT)) float64, values in order, not finite ones included.
    """

    count: Any
    mean: np.ndarray
    square: np.ndarray
    sorted: np.ndarray


HAS_INPUT = {row.name: row.extent == "input" for row in observables.ROWS}  # a value at the input, too


def scalars(rows: dict[str, np.ndarray], chain: Any) -> np.ndarray:
    """The scalars of every replica from the rows of a chain that an engine returned: (len(SCALARS), R) float64."""
    weight, activation = rows["log10_grad_weight"], rows["log10_grad_activation"]
    return np.stack(
        [
            first_over_last(weight, chain.alike),
            first_over_last(activation),
            slopes(activation[:, chain.ends]),
            weight[:, 0],
            weight[:, -1],
            _over_steps(rows["dead"]),
            _over_steps(rows["saturated"]),
            rows["loss"],
        ]
    )


def _over_steps(row: np.ndarray) -> np.ndarray:
    """The mean over activation steps; 0 where a chain has none."""
    return row.mean(axis=1) if row.shape[1] else np.zeros(len(row))


def profiles(rows: dict[str, np.ndarray], kept: Profiles, layers: np.ndarray) -> np.ndarray:
    """The kept rows at the kept places: (P, R, S) float64. Place k is layer, activation step, block or weight k, as
    the row goes, 0 the input.

    Zero at the input for rows that have no value there (where nobody reads it); nan beyond the end of a row that is
    shorter than others.
    """
    values = np.zeros((len(kept.rows), len(rows["loss"]), len(layers)))
    for p, name in enumerate(kept.rows):
        row, begin = observables.of_weights(rows, name), int(not HAS_INPUT[name])
        places = layers[begin:] - begin
        if len(places) == row.shape[1] == places[-1] + 1:
            values[p, :, begin:] = row
            continue
        there = places < row.shape[1]
        values[p, :, begin:][:, there] = row[:, places[there]]
        values[p, :, begin:][:, ~there] = np.nan
    return values


def decompose(first: int, stop: int) -> Iterator[tuple[int, int]]:
    """The fewest nodes (level, index) that make up replicas [first, stop), in order."""
    while first < stop:
        level = (stop - first).bit_length() - 1
        if first:
            level = min(level, (first & -first).bit_length() - 1)
        yield level, first >> level
        first += 1 << level


def reduce(values: np.ndarray, first: int, with_quantiles: list[int]) -> dict[tuple[int, int], Node]:
    """The nodes of replicas first .. first + R of profiles (P, R, S); `with_quantiles` are the rows that keep
    quantiles."""
    nodes = {}
    with np.errstate(over="ignore", invalid="ignore"):
        for level, index in decompose(first, first + values.shape[1]):
            begin = (index << level) - first
            nodes[level, index] = _grow(values[:, begin : begin + (1 << level)], level, index, with_quantiles)
    return nodes


def _grow(values: np.ndarray, level: int, index: int, with_quantiles: list[int]) -> Node:
    finite = np.isfinite(values)
    if finite.all():
        count: Any = 1.0
        mean = values
    else:
        count = finite.astype(np.float64)
        mean = np.where(finite, values, 0.0)
    square = np.zeros_like(mean)
    for _ in range(level):
        halves = count if isinstance(count, float) else count[:, 0::2]
        others = count if isinstance(count, float) else count[:, 1::2]
        count, mean, square = _join(halves, mean[:, 0::2], square[:, 0::2], others, mean[:, 1::2], square[:, 1::2])
    ordered = values[with_quantiles].transpose(0, 2, 1)
    width = min(1 << level, KEPT)
    ordered = np.sort(ordered.reshape(*ordered.shape[:2], (1 << level) // width, width), axis=-1)
    for up in range(width.bit_length(), level + 1):
        pairs = np.sort(ordered.reshape(*ordered.shape[:2], 1 << (level - up), 2 * KEPT), axis=-1)
        ordered = np.empty((*pairs.shape[:3], KEPT))
        begin = index << (level - up)
        even, odd = (0, 1) if begin % 2 == 0 else (1, 0)
        ordered[:, :, 0::2] = pairs[:, :, 0::2, even::2]
        ordered[:, :, 1::2] = pairs[:, :, 1::2, odd::2]
    count = count if isinstance(count, float) else count[:, 0]
    return Node(count, mean[:, 0], square[:, 0], ordered[:, :, 0])


def _join(n: Any, mean: Any, square: Any, m: Any, other_mean: Any, other_square: Any) -> tuple:
    """Mean and sum of squares of two samples (Chan, Golub, LeVeque 1983); n, m counts of finite values."""
    total = n + m
    share = m / total if isinstance(total, float) else np.divide(m, total, out=np.zeros_like(total), where=total > 0)
    step = other_mean - mean
    return total, mean + step * share, square + other_square + step * step * (n * share)


def merge(a: Node, b: Node, index: int) -> Node:
    """The parent of siblings a, b; `index` is the parent's."""
    with np.errstate(over="ignore", invalid="ignore"):
        count, mean, square = _join(a.count, a.mean, a.square, b.count, b.mean, b.square)
    ordered = np.sort(np.concatenate([a.sorted, b.sorted], axis=-1), axis=-1)
    return Node(count, mean, square, ordered[..., index % 2 :: 2] if ordered.shape[-1] > KEPT else ordered)


def gather(nodes: Iterable[tuple[tuple[int, int], Node]]) -> dict[tuple[int, int], Node]:
    """The nodes that remain, by replica, after all siblings are merged; nodes inside others are dropped."""
    forest: dict[tuple[int, int], Node] = {}
    ordered = sorted(nodes, key=lambda item: -item[0][0])
    top = 0  # the highest level in the forest
    for (level, index), node in ordered:
        if any((level + up, index >> up) in forest for up in range(top + 1 - level)):
            continue
        while (level, index ^ 1) in forest:
            sibling = forest.pop((level, index ^ 1))
            pair = (sibling, node) if index & 1 else (node, sibling)
            level, index = level + 1, index >> 1
            node = merge(*pair, index)
        forest[level, index] = node
        top = max(top, level)
    return dict(sorted(forest.items(), key=lambda item: item[0][1] << item[0][0]))


def missing(known: set[tuple[int, int]], first: int, stop: int) -> list[tuple[int, int]]:
    """The ranges [first, stop) of replicas that no known node gives, merged and in order."""
    above = {(level + up, index >> up) for level, index in known for up in range(1, 34)}
    ranges: list[tuple[int, int]] = []

    def visit(level: int, index: int) -> None:
        if (level, index) in known:
            return
        if (level, index) in above and level:
            visit(level - 1, 2 * index)
            visit(level - 1, 2 * index + 1)
            return
        begin, end = index << level, (index + 1) << level
        if ranges and ranges[-1][1] == begin:
            ranges[-1] = (ranges[-1][0], end)
        else:
            ranges.append((begin, end))

    for level, index in decompose(first, stop):
        visit(level, index)
    return ranges


class Summary(NamedTuple):
    """A profile's statistics over replicas: count, mean, std (P, S); quantiles (Q, len(QUANTILES), S)."""

    count: np.ndarray  # type: ignore[assignment]
    mean: np.ndarray
    std: np.ndarray
    quantiles: np.ndarray


def summaries(forests: list[dict[tuple[int, int], Node]]) -> list[Summary]:
    """`summarise` of many forests: those of the same nodes side by side, a few thousand layers at once."""
    alike: dict[tuple, list[int]] = {}
    for i, forest in enumerate(forests):
        rows = next(iter(forest.values())).mean.shape[0]  # a batch has one more than a single input
        alike.setdefault(
            (rows, *((place, isinstance(node.count, float)) for place, node in forest.items())), []
        ).append(i)
    found: dict[int, Summary] = {}
    for (_, *kind), members in alike.items():
        layers = np.array([next(iter(forests[i].values())).mean.shape[1] for i in members])
        for begin, end in itertools.pairwise(
            [*range(0, len(members), max(1, LAYERS_AT_ONCE // int(layers.max()))), len(members)]
        ):
            side = [list(forests[i].values()) for i in members[begin:end]]
            nodes = [
                Node(
                    1.0 * (1 << level) if whole else np.concatenate([nodes[j].count for nodes in side], axis=1),
                    *(
                        np.concatenate([getattr(nodes[j], word) for nodes in side], axis=1)
                        for word in ("mean", "square", "sorted")
                    ),
                )
                for j, ((level, _), whole) in enumerate(kind)
            ]
            whole = summarise({place: node for (place, _), node in zip(kind, nodes, strict=True)})
            cuts = np.cumsum(layers[begin : end - 1])
            tables = (np.split(table, cuts, axis=-1) for table in whole)
            found.update(zip(members[begin:end], map(Summary._make, zip(*tables, strict=True)), strict=True))
    return [found[i] for i in range(len(forests))]


def summarise(forest: dict[tuple[int, int], Node]) -> Summary:
    """The statistics of all replicas of a forest, folded in the order of replicas."""
    items = list(forest.items())
    count, mean, square, _ = items[0][1]
    with np.errstate(over="ignore", invalid="ignore"):
        for _, node in items[1:]:
            count, mean, square = _join(count, mean, square, node.count, node.mean, node.square)
        count = np.broadcast_to(np.asarray(count, dtype=np.float64), mean.shape)
        std = np.where(count > 1, np.sqrt(square / np.maximum(count - 1, 1)), np.nan)
    mean = np.where(count > 0, mean, np.nan)
    values = np.concatenate([node.sorted for _, node in items], axis=-1)
    weights = np.concatenate(
        [np.full(node.sorted.shape[-1], 2.0**level / node.sorted.shape[-1]) for (level, _), node in items]
    )
    return Summary(count, mean, std, _quantiles(values, weights))


def _quantiles(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted quantiles along the last axis of (Q, S, M), at the middle of each value's step (Hazen); (Q,
    len(QUANTILES), S)."""
    alike = (weights == weights[0]).all()  # up to KEPT replicas: one row of steps serves all
    if alike:
        values = np.sort(values, axis=-1)
    else:
        order = np.argsort(values, axis=-1)
        values = np.take_along_axis(values, order, axis=-1)
        weights = weights[order]
    ends = np.cumsum(weights, axis=-1)
    middles = (ends - weights / 2) / ends[..., -1:]
    levels = np.array(QUANTILES)
    upper = np.clip((middles[..., None] < levels).sum(axis=-2), 0, values.shape[-1] - 1)  # (Q, S, levels)
    lower = np.clip(upper - 1, 0, None)
    take = (lambda table, at: table[..., at]) if alike else (lambda table, at: np.take_along_axis(table, at, axis=-1))
    low, high = (take(values, at) for at in (lower, upper))
    begin, end = (take(middles, at) for at in (lower, upper))
    share = np.clip(np.divide(levels - begin, end - begin, out=np.ones_like(low), where=end > begin), 0.0, 1.0)
    with np.errstate(invalid="ignore"):
        between = low + share * (high - low)
    # -inf on both sides, or a share of a whole step, must not become nan
    result = np.where((low == high) | (share == 0.0), low, np.where(share == 1.0, high, between))
    return result.transpose(0, 2, 1)
