# SPDX-License-Identifier: BSD-3-Clause
"""All that is known of every cell so far, from parts read and blocks finished."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pykernel.sweeps import statistics
from pykernel.sweeps.statistics import SCALARS, Node
from pykernel.sweeps.work import Entry


class Shelf:
    """Entries by the key of their cell."""

    def __init__(self) -> None:
        self.entries: dict[str, list[Entry]] = {}
        self.others: set[str] = set()  # keys of cells that the store keeps for other grids

    def add(self, entries: Iterable[tuple[str, Entry]]) -> None:
        for key, entry in entries:
            self.entries.setdefault(key, []).append(entry)

    def missing(self, key: str, replicas: int) -> list[tuple[int, int]]:
        """The ranges of replicas 0 .. replicas that are not known."""
        entries = self.entries.get(key)
        if not entries:
            return [(0, replicas)]
        if len(entries) == 1 and entries[0].first == 0 and entries[0].count == replicas:
            return []
        # Nodes of children may be at hand where the parent is asked for: merged, they give it.
        known = {place for entry in entries for place in entry.nodes}
        return statistics.missing(_closed(known), 0, replicas)

    def known(self, key: str, replicas: int) -> int:
        """How many of the replicas 0 .. replicas are known."""
        return replicas - sum(stop - first for first, stop in self.missing(key, replicas))

    def scalars(self, key: str, replicas: int) -> np.ndarray:
        """(len(SCALARS), replicas) float64, nan where not known."""
        values = np.full((len(SCALARS), replicas), np.nan)
        for entry in self.entries.get(key, ()):
            stop = min(entry.first + entry.count, replicas)
            if stop > entry.first:
                values[:, entry.first : stop] = entry.scalars[:, : stop - entry.first]
        return values

    def profiles(self, key: str, replicas: int) -> dict[tuple[int, int], Node]:
        """The forest of nodes inside replicas 0 .. replicas; empty where nothing is known."""
        nodes = {}
        for entry in self.entries.get(key, ()):
            for (level, index), node in entry.nodes.items():
                if (index + 1) << level <= replicas:
                    nodes[level, index] = node
        return statistics.gather(nodes.items())

    def replicas(self, key: str, replicas: int, shape: tuple[int, int]) -> np.ndarray:
        """Profiles of every replica (P, replicas, S), nan where not known."""
        values = np.full((shape[0], replicas, shape[1]), np.nan)
        for entry in self.entries.get(key, ()):
            stop = min(entry.first + entry.count, replicas)
            if entry.replicas is not None and stop > entry.first:
                values[:, entry.first : stop] = entry.replicas[:, : stop - entry.first]
        return values


def _closed(known: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """The known nodes, and all their ancestors that follow from them."""
    closed = set(known)
    todo = list(known)
    while todo:
        level, index = todo.pop()
        parent = (level + 1, index >> 1)
        if (level, index ^ 1) in closed and parent not in closed:
            closed.add(parent)
            todo.append(parent)
    return closed
