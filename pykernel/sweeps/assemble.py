# SPDX-License-Identifier: BSD-3-Clause
"""A plan's description and what is known of its cells, as one labelled xarray.Dataset."""

from __future__ import annotations

from typing import Any

import numpy as np

from pykernel import observables
from pykernel._core import version
from pykernel.program import Counts
from pykernel.sweeps import statistics
from pykernel.sweeps import theory as theories
from pykernel.sweeps.shelf import Shelf
from pykernel.sweeps.statistics import QUANTILES, SCALARS, Profiles
from pykernel.verdict import judge

AXES = {"layer": "layer", "activation": "activation_step", "node": "node", "input": "node"}
_KINDS = {row.name: row.extent for row in observables.ROWS}
_UNITS = {row.name: row.unit for row in observables.ROWS}
_MEANINGS = {
    "end_to_end": ("decades", "log10 of the first over the last weight gradient"),
    "signal_end_to_end": ("decades", "log10 of the gradient at the input over the gradient at the output"),
    "slope": ("decades per layer", "least squares of log10_grad_activation, per layer travelled backwards; negative vanishes"),
    "log10_grad_weight_first": ("decades", "log10_grad_weight of layer 1"),
    "log10_grad_weight_last": ("decades", "log10_grad_weight of layer L"),
    "dead": ("fraction", "units whose slope is 0 for the whole batch, mean over layers"),
    "saturated": ("fraction", "(unit, input) pairs with a slope below 1 percent of the largest, mean over layers"),
    "loss": ("1", "the objective, with a head"),
}


def dataset(plan: dict, shelf: Shelf, targets: dict[str, int], failed: dict[str, Any], known_theory: theories.Known | None = None) -> Any:
    """The Dataset of a sweep.

    Args:
        plan: `SweepPlan.description()`.
        shelf: what is known.
        targets: replicas of each cell, by key.
        failed: keys of cells that failed.
        known_theory: predictions by key of cell; None leaves their columns out.

    Returns:
        Dimensions: the grid's axes, `replica`, `layer` (0 is the input) and `quantile`; with blocks also `activation_step` and `node` (see
        `_Lines`). Scalars (axes, replica); `verdict` and
        `replicas` (axes); for each kept row `<row>_mean`, `<row>_std` and `<row>_finite` (replicas that were finite) (axes, layer),
        `<row>_quantile` (axes, quantile, layer), and with `Profiles(replicas=True)` `<row>_replica` (axes, replica, layer).
        What is not known is nan, and `replicas` says how many are.
    """
    import xarray

    kept = Profiles(**{**plan["kept"], "rows": tuple(plan["kept"]["rows"]), "quantiles": tuple(plan["kept"]["quantiles"])})
    shape = tuple(len(next(iter(axis["labels"].values()))) for axis in plan["axes"])
    names = tuple(axis["name"] for axis in plan["axes"])
    cells = plan["cells"]
    most = max(targets.values(), default=0)
    extents = [_extents(plan, cell) for cell in cells]
    lines = _Lines(kept, set(extents), "extents" in plan)

    n, p, q, s = len(cells), len(kept.rows), len(kept.quantiles), lines.longest + 1  # the last place is for what is nowhere
    scalars = np.full((len(SCALARS), n, most), np.nan)
    mean, std, finite = (np.full((p, n, s), np.nan) for _ in range(3))
    quantiles = np.full((q, n, len(QUANTILES), s), np.nan)
    each = np.full((p, n, most, s), np.nan) if kept.replicas else None
    known = np.zeros(n, dtype=np.int64)
    verdicts = np.full(n, "missing", dtype=object)
    forests: dict[int, dict] = {}
    own = {
        batch: np.array([kept.rows.index(name) for name in kept.measured(batch).rows], dtype=int) for batch in {cell[5] for cell in cells}
    }
    own_quantiles = {batch: [kept.quantiles.index(name) for name in kept.measured(batch).quantiles] for batch in own}

    for i, (key, _, _, _, _, batch) in enumerate(cells):
        goal = targets[key]
        known[i] = shelf.known(key, goal)
        if known[i] == 0:
            verdicts[i] = "failed" if key in failed else "missing"
            continue
        scalars[:, i, :goal] = shelf.scalars(key, goal)
        if kept.rows and (forest := shelf.profiles(key, goal)):
            forests[i] = forest
        if each is not None:
            where = lines.where(extents[i], own[batch])
            found = shelf.replicas(key, goal, where.shape)
            each[own[batch][:, None, None], i, np.arange(goal)[:, None], where[:, None]] = found

    goals = np.array([targets[cell[0]] for cell in cells])
    for goal in np.unique(goals[known > 0]):
        some = np.flatnonzero((goals == goal) & (known > 0))
        verdicts[some] = _verdicts(scalars[:, some, :goal], plan["run"].get("precision", "exponent"))
    for i, summary in zip(forests, statistics.summaries(list(forests.values())), strict=True):
        batch = cells[i][5]
        where = lines.where(extents[i], own[batch])
        at_rows = (own[batch][:, None], i, where)
        for table, found in ((mean, summary.mean), (std, summary.std), (finite, summary.count)):
            table[at_rows] = found
        chosen = np.array(own_quantiles[batch], dtype=int)
        rows = [kept.measured(batch).rows.index(kept.quantiles[j]) for j in chosen]
        quantiles[chosen[:, None], i, :, where[rows]] = summary.quantiles.transpose(0, 2, 1)

    for j, name in enumerate(kept.rows):
        if not lines.has_input(name):
            for array in (mean, std, finite) if each is None else (mean, std, finite, each):
                array[j, ..., 0] = np.nan
    for j, name in enumerate(kept.quantiles):
        if not lines.has_input(name):
            quantiles[j, ..., 0] = np.nan

    variables: dict[str, Any] = {}
    for name, values in zip(SCALARS, scalars, strict=True):
        if name == "loss" and not np.isfinite(values).any():
            continue
        unit, meaning = _MEANINGS[name]
        unit = unit.replace("per layer", "per repetition") if "extents" in plan else unit
        variables[name] = ((*names, "replica"), values.reshape(*shape, most), {"units": unit, "long_name": meaning})
    variables["verdict"] = (
        names,
        verdicts.astype(str).reshape(shape),
        {"long_name": "vanishing, exploding, stable, dead, missing or failed"},
    )
    variables["replicas"] = (names, known.reshape(shape), {"long_name": "replicas finished"})
    for column, name in ((2, "engine"), (3, "backend")):
        words = np.array([cell[column] for cell in cells])
        if name not in names and name not in plan["run"]:
            variables[name] = (names, words.reshape(shape))
    for j, name in enumerate(kept.rows):
        attributes = {"units": _UNITS[name]}
        axis, size = lines.axis(name)
        for word, values in (("mean", mean), ("std", std), ("finite", finite)):
            variables[f"{name}_{word}"] = (
                (*names, axis),
                values[j, :, :size].reshape(*shape, size),
                attributes if word != "finite" else {"units": "replicas"},
            )
        if each is not None:
            variables[f"{name}_replica"] = ((*names, "replica", axis), each[j, ..., :size].reshape(*shape, most, size), attributes)
    for j, name in enumerate(kept.quantiles):
        axis, size = lines.axis(name)
        variables[f"{name}_quantile"] = (
            (*names, "quantile", axis),
            quantiles[j, ..., :size].reshape(*shape, len(QUANTILES), size),
            {"units": _UNITS[name]},
        )
    if known_theory is not None:
        columns = theories.variables([cell[0] for cell in cells], known_theory, scalars, [cell[1] for cell in cells])
        for name, (values, attributes) in columns.items():
            if "extents" in plan and "units" in attributes:
                attributes = {**attributes, "units": attributes["units"].replace("per layer", "per repetition")}
            variables[name] = (names, values.reshape(shape), attributes)

    coordinates: dict[str, Any] = {"replica": np.arange(most)}
    coordinates |= lines.coordinates
    if kept.quantiles:
        coordinates["quantile"] = list(QUANTILES)
    for axis in plan["axes"]:
        for word, values in axis["labels"].items():
            coordinates[word] = (axis["name"], np.array(values))
    for word in ("depth", "width", "activation", "init"):
        if word not in coordinates and word not in variables and word in plan["base"]:
            coordinates[word] = plan["base"][word]
    about: dict[str, Any] = {
        "pykernel": version,
        "plan": plan["hash"],
        "replicas": plan["replicas"],
        **{f"run_{name}": value for name, value in plan["run"].items() if value is not None},
        **{f"base_{name}": value for name, value in plan["base"].items()},
        "complete": int(all(known[i] >= targets[cell[0]] for i, cell in enumerate(cells))),
        "failed_cells": sum(cell[0] in failed for cell in cells),
    }
    return xarray.Dataset(variables, coords=coordinates, attrs=about)


def _extents(plan: dict, cell: Any) -> Counts:
    """Layers, activation steps and nodes of a cell's chain."""
    layer, activation, node = plan["extents"][cell[0]] if "extents" in plan else (cell[1],) * 3
    return Counts(layer=layer, activation=activation, node=node)


class _Lines:
    """Along which axis each kept row runs, and where on it the places kept of each chain are.

    Where layers, activation steps and nodes are one there is one axis, `layer`, 0 being the input. With blocks there are `layer` and
    `activation_step`, by number in the order of use, and `node`; each begins at 0, where only nodes have a value.
    """

    def __init__(self, kept: Profiles, chains: set[Counts], with_blocks: bool) -> None:
        kinds = AXES if with_blocks else dict.fromkeys(AXES, "layer")
        self._axes = {row.name: kinds.get(row.extent, "") for row in observables.ROWS}
        at = {name: [kept.at(statistics.extent_of(name, chain)) for chain in chains] for name in kept.rows}
        found: dict[str, list] = {}
        for name, places in at.items():
            found.setdefault(self._axes[name], []).extend(places)
        self.coordinates = {axis: np.unique(np.concatenate(places)) for axis, places in found.items()}
        self.longest = max(map(len, self.coordinates.values()), default=0)
        self.places = {}  # of each chain (P, S): of what is nowhere, beyond the longest axis
        for chain in chains:
            table = kept.places(chain)
            for row, name in zip(table, kept.rows, strict=True):
                row[:] = np.where(row < 0, self.longest, np.searchsorted(self.coordinates[self._axes[name]], row))
            self.places[chain] = table

    def where(self, chain: Counts, rows: np.ndarray) -> np.ndarray:
        """The places of these rows of a chain, as wide as the longest of them."""
        table = self.places[chain][rows]
        return table[:, : (table < self.longest).sum(axis=1).max(initial=0)]

    def axis(self, name: str) -> tuple[str, int]:
        """The axis of a row and its length."""
        return self._axes[name], len(self.coordinates[self._axes[name]])

    @staticmethod
    def has_input(name: str) -> bool:
        """Whether a row has a value at the input."""
        return _KINDS[name] == "input"


def verdict(values: np.ndarray, precision: str) -> str:
    """The verdict on a cell from the scalars (len(SCALARS), R) of the replicas that are known."""
    known = ~np.isnan(values[SCALARS.index("dead")])
    return _verdicts(values[:, None, known], precision)[0]


def _verdicts(values: np.ndarray, precision: str) -> list[str]:
    """The verdicts on cells from their scalars (len(SCALARS), cells, R), columns of nan where a replica is not known."""
    known = ~np.isnan(values[SCALARS.index("dead")])
    if not known.all():
        return [verdict(values[:, i], precision) for i in range(values.shape[1])]
    if not known.size:
        return ["undefined"] * len(known)
    medians = (np.median(values[SCALARS.index(name)], axis=-1).tolist() for name in ("end_to_end", "signal_end_to_end"))
    found = [judge(weight, signal) for weight, signal in zip(*medians, strict=True)]
    # Plain arithmetic makes zeros by underflow and nan by overflow.
    plain = {"dead": "vanishing", "undefined": "exploding"} if precision == "native" else {}
    return [plain.get(one, one) for one in found]
