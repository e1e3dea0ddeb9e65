# SPDX-License-Identifier: BSD-3-Clause
"""A plan's description and what is known of its cells, as one labelled xarray.Dataset."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pykernel import observables
from pykernel._core import version
from pykernel.sweeps import statistics
from pykernel.sweeps import theory as theories
from pykernel.sweeps.grid import PlanCell
from pykernel.sweeps.profiles import LOST, Profiles
from pykernel.sweeps.shelf import Shelf
from pykernel.sweeps.statistics import HAS_INPUT, QUANTILES, SCALARS
from pykernel.verdict import judge

_UNITS = {row.name: row.unit for row in observables.ROWS}
_MEANINGS = {
    "end_to_end": ("decades", "log10 of the first over the last weight gradient"),
    "signal_end_to_end": ("decades", "log10 of the gradient at the input over the gradient at the output"),
    "slope": (
        "decades per layer",
        "least squares of log10_grad_activation, per layer travelled backwards; negative vanishes",
    ),
    "log10_grad_weight_first": ("decades", "log10_grad_weight of layer 1"),
    "log10_grad_weight_last": ("decades", "log10_grad_weight of layer L"),
    "dead": ("fraction", "units whose slope is 0 for the whole batch, mean over layers"),
    "saturated": ("fraction", "(unit, input) pairs with a slope below 1 percent of the largest, mean over layers"),
    "loss": ("1", "the objective, with a head"),
}


def dataset(
    plan: dict,
    shelf: Shelf,
    targets: dict[str, int],
    failed: dict[str, Any],
    known_theory: theories.Known | None = None,
) -> Any:
    """The Dataset of a sweep.

    Args:
        plan: `SweepPlan.description()`.
        shelf: what is known.
        targets: replicas of each cell, by key.
        failed: keys of cells that failed.
        known_theory: predictions by key of cell; None leaves their columns out.

    Returns:
        Dimensions: the grid's axes, `replica`, `layer` (0 is the input) and `quantile`. Scalars (axes, replica);
            `verdict` and `replicas` (axes); for each kept row `<row>_mean`, `<row>_std` and `<row>_finite` (replicas
            that were finite) (axes, layer), `<row>_quantile` (axes, quantile, layer), and with
            `Profiles(replicas=True)` `<row>_replica` (axes, replica, layer). What is not known is nan, and `replicas`
            says how many are. Of a chain of blocks place k along `layer` is its k-th weight layer, activation step or
            block, as the row goes; beyond a row's end it is nan.
    """
    cells, kept = plan["cells"], Profiles.of_plan(plan)
    scalars = fill_scalars(cells, shelf, targets, failed, plan["run"].get("precision", "exponent"))
    profiles = fill_profiles(cells, kept, shelf, targets, scalars.known)
    return label(plan, kept, scalars, profiles, targets, failed, known_theory)


class Scalars(NamedTuple):
    """What has one number a replica or a cell: values (len(SCALARS), cells, replicas), known replicas and verdicts
    (cells,)."""

    values: np.ndarray
    known: np.ndarray
    verdicts: np.ndarray


class Curves(NamedTuple):
    """Profiles over S layers: mean, std, finite (P, cells, S), quantiles (Q, cells, len(QUANTILES), S), each replica or
    None."""

    layers: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    finite: np.ndarray
    quantiles: np.ndarray
    each: np.ndarray | None


def fill_scalars(
    cells: list[PlanCell], shelf: Shelf, targets: dict[str, int], failed: dict[str, Any], precision: str
) -> Scalars:
    """The scalars of all cells with their verdicts; nan and "missing" or "failed" where nothing is known."""
    values = np.full((len(SCALARS), len(cells), max(targets.values(), default=0)), np.nan)
    known = np.array([shelf.known(cell.key, targets[cell.key]) for cell in cells], dtype=np.int64)
    verdicts = np.array(["failed" if cell.key in failed else "missing" for cell in cells], dtype=object)
    goals = np.array([targets[cell.key] for cell in cells])
    for i in np.flatnonzero(known).tolist():
        values[:, i, : goals[i]] = shelf.scalars(cells[i].key, int(goals[i]))
    for goal in np.unique(goals[known > 0]):
        some = np.flatnonzero((goals == goal) & (known > 0))
        verdicts[some] = _verdicts(values[:, some, :goal], precision)
    return Scalars(values, known, verdicts)


def fill_profiles(
    cells: list[PlanCell], kept: Profiles, shelf: Shelf, targets: dict[str, int], known: np.ndarray
) -> Curves:
    """The profiles of all cells at the layers that any of them keeps; nan where nothing is known."""
    at = {depth: kept.at(depth) for depth in {cell.depth for cell in cells}}
    layers = np.unique(np.concatenate(list(at.values()))) if kept.rows else np.zeros(0, dtype=np.int64)
    places = {depth: np.searchsorted(layers, layers_of) for depth, layers_of in at.items()}
    batches = {cell.batch for cell in cells}
    rows = {
        batch: np.array([kept.rows.index(name) for name in kept.measured(batch).rows], dtype=int) for batch in batches
    }
    sorted_rows = {
        batch: np.array([kept.quantiles.index(name) for name in kept.measured(batch).quantiles], dtype=int)
        for batch in batches
    }

    n, p, q, s = len(cells), len(kept.rows), len(kept.quantiles), len(layers)
    mean, std, finite = (np.full((p, n, s), np.nan) for _ in range(3))
    quantiles = np.full((q, n, len(QUANTILES), s), np.nan)
    each = np.full((p, n, max(targets.values(), default=0), s), np.nan) if kept.replicas else None
    forests: dict[int, dict] = {}
    for i in np.flatnonzero(known).tolist():
        cell = cells[i]
        goal, mine = targets[cell.key], rows[cell.batch]
        forest = shelf.profiles(cell.key, goal) if kept.rows else None
        if forest:
            forests[i] = forest
        if each is not None:
            found = shelf.replicas(cell.key, goal, (len(mine), len(at[cell.depth])))
            each[mine[:, None, None], i, np.arange(goal)[:, None], places[cell.depth]] = found
    for i, summary in zip(forests, statistics.summaries(list(forests.values())), strict=True):
        cell = cells[i]
        where = places[cell.depth]
        for table, found in ((mean, summary.mean), (std, summary.std), (finite, summary.count)):
            table[rows[cell.batch][:, None], i, where] = found
        quantiles[sorted_rows[cell.batch][:, None], i, :, where] = summary.quantiles.transpose(0, 2, 1)

    begin = layers == 0
    for j, name in enumerate(kept.rows):
        if not HAS_INPUT[name]:
            for array in (mean, std, finite, *([] if each is None else [each])):
                array[j, ..., begin] = np.nan
    for j, name in enumerate(kept.quantiles):
        if not HAS_INPUT[name]:
            quantiles[j, ..., begin] = np.nan
    return Curves(layers, mean, std, finite, quantiles, each)


def label(
    plan: dict,
    kept: Profiles,
    scalars: Scalars,
    profiles: Curves,
    targets: dict[str, int],
    failed: dict[str, Any],
    known_theory: theories.Known | None,
) -> Any:
    """The arrays under the words of the grid."""
    import xarray

    cells = plan["cells"]
    names = tuple(axis["name"] for axis in plan["axes"])
    shape = tuple(len(next(iter(axis["labels"].values()))) for axis in plan["axes"])
    variables = _of_scalars(scalars, names, shape)
    for name in ("engine", "backend"):
        if name not in names and name not in plan["run"]:
            variables[name] = names, np.array([getattr(cell, name) for cell in cells]).reshape(shape)
    variables |= _of_profiles(kept, profiles, names, shape)
    variables |= _of_formats(kept, profiles, names, shape)
    if known_theory is not None:
        columns = theories.variables(
            [cell.key for cell in cells], known_theory, scalars.values, [cell.depth for cell in cells]
        )
        variables |= {
            name: (names, values.reshape(shape), attributes) for name, (values, attributes) in columns.items()
        }

    if "unit" in plan:  # of blocks
        for name, (dims, values, *words) in variables.items():
            said = {
                word: text.replace("per layer", f"per {plan['unit']}")
                for word, text in (words[0] if words else {}).items()
            }
            variables[name] = dims, values, said

    coordinates: dict[str, Any] = {"replica": np.arange(scalars.values.shape[-1])}
    if kept.rows:
        coordinates["layer"] = profiles.layers
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
        "complete": int(all(known >= targets[cell.key] for known, cell in zip(scalars.known, cells, strict=True))),
        "failed_cells": sum(cell.key in failed for cell in cells),
    }
    return xarray.Dataset(variables, coords=coordinates, attrs=about)


def _of_scalars(scalars: Scalars, names: tuple, shape: tuple) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    for name, values in zip(SCALARS, scalars.values, strict=True):
        if name == "loss" and not np.isfinite(values).any():
            continue
        unit, meaning = _MEANINGS[name]
        variables[name] = (
            (*names, "replica"),
            values.reshape(*shape, values.shape[1]),
            {"units": unit, "long_name": meaning},
        )
    meaning = "vanishing, exploding, stable, dead, undefined (not a number), missing or failed"
    variables["verdict"] = (names, scalars.verdicts.astype(str).reshape(shape), {"long_name": meaning})
    variables["replicas"] = (names, scalars.known.reshape(shape), {"long_name": "replicas finished"})
    return variables


def _of_profiles(kept: Profiles, profiles: Curves, names: tuple, shape: tuple) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    s, each = len(profiles.layers), profiles.each
    for j, name in enumerate(kept.rows):
        unit = {"units": _UNITS[name]}
        for word, units in (("mean", unit), ("std", unit), ("finite", {"units": "replicas"})):
            variables[f"{name}_{word}"] = ((*names, "layer"), getattr(profiles, word)[j].reshape(*shape, s), units)
        if each is not None:
            variables[f"{name}_replica"] = (
                (*names, "replica", "layer"),
                each[j].reshape(*shape, each.shape[2], s),
                unit,
            )
    for j, name in enumerate(kept.quantiles):
        values = profiles.quantiles[j].reshape(*shape, len(QUANTILES), s)
        variables[f"{name}_quantile"] = ((*names, "quantile", "layer"), values, {"units": _UNITS[name]})
    return variables


def _of_formats(kept: Profiles, profiles: Curves, names: tuple, shape: tuple) -> dict[str, Any]:
    """What formats cost in two numbers a cell, where these rows are kept."""
    variables: dict[str, Any] = {}
    if "gradient_cosine" in kept.rows:
        first = profiles.mean[kept.rows.index("gradient_cosine")][:, profiles.layers == 1]
        meaning = "cosine of dJ/da of the first block with what it is without formats, mean over replicas"
        variables["gradient_cosine_first"] = names, first.reshape(shape), {"units": "1", "long_name": meaning}
    if all(name in kept.rows for name in LOST):
        shares = np.stack([profiles.mean[kept.rows.index(name)] for name in LOST])
        most = np.max(shares, axis=(0, 2), initial=-np.inf, where=~np.isnan(shares))
        meaning = "largest share of a block's signal or gradient that flushes or overflows, mean over replicas"
        most = np.where(np.isfinite(most), most, np.nan)
        variables["lost"] = names, most.reshape(shape), {"units": "fraction", "long_name": meaning}
    return variables


def verdict(values: np.ndarray, precision: str) -> str:
    """The verdict on a cell from the scalars (len(SCALARS), R) of the replicas that are known."""
    known = ~np.isnan(values[SCALARS.index("dead")])
    return _verdicts(values[:, None, known], precision)[0]


def _verdicts(values: np.ndarray, precision: str) -> list[str]:
    """The verdicts on cells from their scalars (len(SCALARS), cells, R), columns of nan where a replica is not
    known."""
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
