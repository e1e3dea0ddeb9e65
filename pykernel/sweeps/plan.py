# SPDX-License-Identifier: BSD-3-Clause
"""The plan of a sweep: its cells with their keys, replicas and stop rule; what a store's plan file says, and what
`--dry-run` prints."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pykernel import checks, machine, stream
from pykernel.chain import FIELDS
from pykernel.init import Given
from pykernel.patterns import pattern_of
from pykernel.program import MAX_REPLICAS
from pykernel.sweeps import blocks, grid, identity, statistics
from pykernel.sweeps.grid import Axis, Cell, PlanCell
from pykernel.sweeps.profiles import Profiles

# What engines refuse does not depend on gain, nor on depth beyond the residual's: so a large grid is lowered a few
# times only.
ASKED = tuple(word for word in FIELDS if word not in ("depth", "gain"))


@dataclass(frozen=True)
class StandardError:
    """A stop rule: add replicas to a cell until the standard error of a scalar's mean is small.

    Args:
        of: the scalar, one of `pykernel.sweeps.statistics.SCALARS`.
        below: the standard error to reach, in the scalar's unit.
        most: replicas at which a cell is given up; None for 100 times the sweep's `replicas`.

    Raises:
        ValueError: for an unknown scalar, or bounds that are not positive.

    Examples:
        >>> import pykernel as pk
        >>> rule = pk.StandardError("slope", below=0.01)  # decades a layer
        >>> grid = {"depth": [20], "init": ["he_normal", "lecun_normal"]}
        >>> ds = pk.sweep(grid, pk.Chain(depth=1, width=32), replicas=8, until=rule, progress=False)
        >>> bool((ds.slope.std("replica", ddof=1) / ds.replicas**0.5 < 0.01).all())
        True
    """

    of: str
    below: float
    most: int | None = None

    def __post_init__(self) -> None:
        if self.of not in statistics.SCALARS:
            raise ValueError(f"StandardError needs a scalar among {', '.join(statistics.SCALARS)}, got {self.of!r}")
        if not (isinstance(self.below, int | float) and math.isfinite(self.below) and self.below > 0):
            raise ValueError(f"StandardError needs a positive bound, got {self.below!r}")
        if self.most is not None and (not isinstance(self.most, int) or self.most < 2):
            raise ValueError(f"most must be an int of 2 or more, got {self.most!r}")

    def next(self, values: np.ndarray, replicas: int) -> int:
        """How many replicas a cell should have, given the scalar of those it has; `replicas` is where it began.

        The answer is a function of the values alone, so a resumed or a distributed sweep comes to the same numbers.
        """
        most = self.most or 100 * replicas
        known = len(values)
        finite = values[np.isfinite(values)]
        if known >= most or len(finite) < 2:
            return known
        error = finite.std(ddof=1) / math.sqrt(len(finite))
        if error <= self.below:
            return known
        wanted = math.ceil(known * (error / self.below) ** 2)
        return min(max(wanted, known + 1), 2 * known, most)


@dataclass(frozen=True)
class Replicas:
    """Fewer draws for dear cells: `most`, or as many as fit into so many core seconds of a cell, but `least`.

    Seconds are nominal (`blocks.seconds_per_replica`), not measured: the plan is the same on every machine.

    Args:
        most: draws of a cheap cell.
        seconds: nominal core seconds that a cell may take.
        least: draws of the dearest cell.

    Raises:
        ValueError: unless 1 <= least <= most and seconds is positive.

    Examples:
        >>> import pykernel as pk
        >>> few = pk.Replicas(most=20, seconds=0.001, least=2)
        >>> ds = pk.sweep({"depth": [2, 2000]}, {"width": 16}, replicas=few, progress=False)
        >>> bool(20 == ds.replicas[0] > ds.replicas[1] >= 2)
        True
    """

    most: int
    seconds: float
    least: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most or not self.seconds > 0:
            raise ValueError(f"Replicas needs 1 <= least <= most and positive seconds, got {self}")

    def of(self, chain: Any, run: dict) -> int:
        return max(self.least, min(self.most, int(self.seconds / blocks.seconds_per_replica(chain, run))))


@dataclass(frozen=True)
class SweepPlan:
    """Everything that defines a sweep's result."""

    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]
    replicas: int
    until: StandardError | None
    kept: Profiles

    @classmethod
    def make(
        cls, given: Mapping | Sequence, base: Any, run: dict, replicas: int | Replicas, until: Any, kept: Profiles
    ) -> SweepPlan:
        """Validate everything and give every cell its key.

        Raises:
            ValueError, TypeError: naming the cell and what is wrong with it.
        """
        budget = replicas if isinstance(replicas, Replicas) else None
        most = checks.integer("replicas", budget.most if budget else replicas, 1, MAX_REPLICAS)
        if until is not None and not isinstance(until, StandardError):
            raise TypeError(f"until must be None or a StandardError, got {until!r}")
        axes = grid.axes(given)
        cells, known, rests, keys = [], {}, {}, identity.Keys()
        unkeyed = grid.cells(axes, base, run, most)
        kept = kept.of_cells((cell.chain for cell in unkeyed), any(cell.run.get("formats") for cell in unkeyed))
        for cell in unkeyed:
            try:
                resolved = _resolve(cell, known)
            except (TypeError, ValueError, MemoryError) as error:
                kind = next(kind for kind in (TypeError, ValueError, MemoryError) if isinstance(error, kind))
                raise kind(f"cell {grid.name(cell, axes)}: {error}") from None
            ran = tuple(resolved.values())
            if ran not in rests:
                rests[ran] = identity.words(kept=kept, stream=stream.VERSION, format=identity.FORMAT, **resolved)
            count = budget.of(cell.chain, resolved) if budget else cell.replicas
            cells.append(cell._replace(run=resolved, replicas=count, key=keys.key(cell.chain, rests[ran])))
        _require_memory(axes, cells)
        plan = cls(axes, tuple(cells), most, until, kept)
        instead = "ask for fewer cells, replicas or profiles (profiles=False, --no-profiles, keeps scalars only)"
        machine.require_memory(plan.memory(), f"the result of {len(cells)} cells", instead)
        return plan

    def pieces(self, shelf: Any, targets: Mapping[str, int]) -> list[blocks.Piece]:
        """What is still to do for these numbers of replicas, in the order of cells; equal cells once."""
        result, seen = [], set()
        for cell in self.cells:
            if cell.key in seen:
                continue
            seen.add(cell.key)
            for first, stop in shelf.missing(cell.key, targets[cell.key]):
                result.append(blocks.Piece(cell.key, cell.chain, cell.run, first, stop - first))
        return result

    def description(self) -> dict:
        """The plan as plain JSON: enough to label a store's numbers without the objects that made them."""
        cells = [
            PlanCell(c.key, c.chain.extent, c.run["engine"], c.run["backend"], c.replicas, grid.columns(c.run))
            for c in self.cells
        ]
        until = None if self.until is None else dataclasses.asdict(self.until)
        first = self.cells[0]
        held = {
            name: str(value) if name == "formats" else value
            for name, value in first.run.items()
            if len({str(c.run.get(name)) for c in self.cells}) == 1
        }
        gridded = {word for axis in self.axes for word in axis.keys}
        base = {
            name: grid.label(getattr(first.chain, name))
            for name in FIELDS
            if name not in gridded and "chain" not in gridded
        }
        result = {
            "axes": [{"name": axis.name, "keys": list(axis.keys), "labels": grid.labels(axis)} for axis in self.axes],
            "cells": cells,
            "replicas": self.replicas,
            "until": until,
            "kept": dataclasses.asdict(self.kept),
            "base": {name: text for name, text in base.items() if text != "none"},
            "run": held,
        }
        if any(cell.chain.blocks is not None for cell in self.cells):
            result["unit"] = "repetition"
        return {"hash": identity.digest(result), **result}

    def memory(self) -> int:
        """Bytes of the Dataset."""
        depths = {cell.chain.extent for cell in self.cells}
        layers = len(np.unique(np.concatenate([self.kept.at(depth) for depth in depths])))
        most = max(cell.replicas for cell in self.cells)
        each = most * len(statistics.SCALARS) + layers * (
            3 * len(self.kept.rows) + len(statistics.QUANTILES) * len(self.kept.quantiles)
        )
        return 8 * len(self.cells) * (each + self.kept.replicas * most * layers * len(self.kept.rows))


def _resolve(cell: Cell, known: dict) -> dict:
    """The run of a cell with its engine and backend chosen, so that `auto` means one thing in a store for ever.

    Raises:
        ValueError, TypeError: for what no engine can run.
    """
    from pykernel.engines import run as runs

    chain, run = cell.chain, dict(cell.run)
    uses = chain.tied and chain.depth  # of a shared weight: each costs the more the more there were
    question = (*(getattr(chain, word) for word in ASKED), uses, *run.values())
    try:
        hash(question)
    except TypeError:
        runs.prepare(chain, **run)  # says which word of a run it is
        raise
    same = tuple(map(id, question))  # cheaper than hashing; the objects live as long as the cells do
    if same not in known and question in known:
        known[same] = known[question]
    if same not in known:
        shortened = chain.width is not None and not chain.has_lists and not uses and not isinstance(chain.init, Given)
        depth = min(chain.depth, 2 * chain.residual.every if chain.residual else 2)
        job = runs.prepare(chain.replace(depth=depth) if shortened else chain, **run)
        batch = job.program.batch
        if batch != run["batch"]:
            raise ValueError(
                f"batch={run['batch']} contradicts head targets of {batch} inputs: give the sweep batch={batch}"
            )
        known[same] = known[question] = job.choice.engine, job.choice.backend
    run["engine"], run["backend"] = known[same]
    return run


def _nodes(cell: Cell) -> np.ndarray:
    """Units at the ends of a cell's blocks."""
    chain = cell.chain
    return chain.layer_widths if chain.blocks is None else pattern_of(chain, grid.positions(cell.run)).nodes


def _require_memory(axes: tuple[Axis, ...], cells: list[Cell]) -> None:
    """Refuse the largest cell of each engine if one chain of it does not fit in memory.

    Raises:
        TooLarge: naming the cell.
    """
    from pykernel.engines import run as runs

    largest: dict[tuple, tuple[float, Cell]] = {}
    for cell in cells:
        chain = cell.chain
        equal = chain.width is not None and chain.blocks is None
        units = chain.depth * chain.width if equal else int(_nodes(cell).sum())
        size = units * grid.columns(cell.run)
        kind = cell.run["engine"], cell.run["backend"]
        if kind not in largest or size > largest[kind][0]:
            largest[kind] = size, cell
    for _, cell in largest.values():
        job = runs.prepare(cell.chain, **cell.run)
        try:
            runs.require_memory(job, 1)
        except machine.TooLarge as error:
            raise machine.TooLarge(f"cell {grid.name(cell, axes)}: {error}") from None
