# SPDX-License-Identifier: BSD-3-Clause
"""A sweep's Dataset as the data of a page: axes, verdicts, quantities with theory, layers of every cell."""

from __future__ import annotations

from typing import Any

import numpy as np

from pykernel import observables
from pykernel.plot.panels import cap, counted, over_replicas, word_of
from pykernel.sweeps.report import LETTERS, axes, coordinates
from pykernel.sweeps.statistics import QUANTILES
from pykernel.webpage.document import plain

MOST_CELLS = 8000  # 250 bytes each
MOST_NUMBERS = 350_000  # of all profiles together: 3 MB
MOST_LAYERS, FEWEST_LAYERS = 48, 8  # of one profile
# of a quantity: what it is called, how its axis runs, and where theory has its mean and its deviation
QUANTITIES = {
    "signal_end_to_end": (
        "decades of gradient, input over output",
        "symlog",
        ("predicted_signal_end_to_end_mean", "predicted_signal_end_to_end"),
        "predicted_signal_end_to_end_std",
    ),
    "end_to_end": (
        "decades of weight gradient, first over last layer",
        "symlog",
        ("predicted_end_to_end",),
        None,
    ),
    "slope": ("slope, decades a layer", "linear", ("predicted_slope",), "predicted_slope_std"),
    "log10_grad_weight_first": ("log10 norm of dJ/dW, first layer", "symlog", (), None),
    "log10_grad_weight_last": ("log10 norm of dJ/dW, last layer", "symlog", (), None),
    "dead": ("share of dead units", "linear", (), None),
    "saturated": ("share of saturated units", "linear", (), None),
    "loss": ("loss", "symlog", (), None),
}
SAID = {
    "log10_grad_activation": "log10 norm of dJ/da",
    "log10_grad_weight": "log10 norm of dJ/dW",
    "log10_mean_square_preactivation": "log10 mean square of z",
    "log10_mean_square_activation": "log10 mean square of a",
}
PLAIN_WORDS = ("activation", "init", "blocks", "norm")  # values that name themselves


def label(name: str) -> str:
    """What a row is called on the page."""
    row = next(row for row in observables.ROWS if row.name == name)
    return SAID.get(name, name.replace("_", " ") + ("" if row.unit in ("1", "decades") else f", {row.unit}"))


def grid(ds: Any) -> tuple[dict, str]:
    """The data of a sweep, and what the page must say that it leaves out.

    Args:
        ds: what `sweep` or `open` returned.

    Returns:
        A dict as JSON holds it, arrays over cells in C order of the axes; and a sentence, "" where all is there.
    """
    ds, said = cap(ds, axes(ds), MOST_CELLS)
    names = axes(ds)
    cells = ds.verdict.size
    words = ["stable", "vanishing", "exploding", "dead", "undefined", "missing", "failed"]
    found = ds.verdict.values.ravel().tolist()
    words += sorted(set(found) - set(words))
    told: dict[str, Any] = {
        "axes": [_axis(ds, name) for name in names],
        "x": names.index(main_axis(ds)),
        "letters": LETTERS,
        "verdicts": words,
        "verdict": [words.index(word) for word in found],
        "replicas": ds.replicas.values.ravel().tolist(),
        "quantities": [_quantity(ds, name) for name in QUANTITIES if _has(ds, name)],
    }
    if "theory" in ds:
        laws = sorted(set(ds.theory.values.ravel().tolist()))
        told["laws"] = laws
        told["law"] = [laws.index(law) for law in ds.theory.values.ravel().tolist()]
        told["z"] = plain(ds.z_slope.values.ravel(), 3)
    profiles, more = _profiles(ds, cells)
    if profiles:
        told["profiles"] = profiles
    kept = said.strip().removeprefix("shown: ")
    notes = [f"Of the grid the page has {kept}; `pykernel export` has all." if kept else "", more]
    return told, " ".join(note for note in notes if note)


def main_axis(ds: Any) -> str:
    """The axis that figures run along at first: depth, else the first of several numbers, else the last."""
    names = axes(ds)
    several = [name for name in names if ds.sizes[name] > 1] or names
    numbers = [name for name in several if _numbers(ds, name) is not None]
    return "depth" if "depth" in several else (numbers or several[-1:])[0]


def place(ds: Any, values: dict[str, float]) -> list[int]:
    """The number along each axis of the values that lie nearest to these."""
    return [int(np.abs(ds[name].values - values[name]).argmin()) for name in axes(ds)]


def _has(ds: Any, name: str) -> bool:
    return name in ds and not np.isnan(ds[name].values).all()


def words_along(ds: Any, name: str) -> list[str]:
    """The values along an axis in words; those of a zip joined by a slash."""
    columns = [ds[word].values.tolist() for word in coordinates(ds, name)]
    return ["/".join(word_of(value) for value in row) for row in zip(*columns, strict=True)]


def _numbers(ds: Any, name: str) -> list | None:
    """The values along an axis where they are numbers."""
    if coordinates(ds, name) != [name] or ds[name].dtype.kind not in "iuf":
        return None
    return ds[name].values.tolist()


def _axis(ds: Any, name: str) -> dict[str, Any]:
    values = _numbers(ds, name)
    title = "/".join(coordinates(ds, name))
    spread = values is not None and min(values) > 0 and max(values) >= 8 * min(values)
    return {
        "name": title,
        "label": f"depth ({counted(ds)})" if name == "depth" else title.replace("_", " "),
        "words": words_along(ds, name),
        "values": None if values is None else plain(values, 12),
        "log": spread,
        "plain": title in PLAIN_WORDS,
    }


def _quantity(ds: Any, name: str) -> dict[str, Any]:
    said, kind, means, std = QUANTITIES[name]
    if name == "slope":
        said = f"slope, {ds.slope.attrs.get('units', 'decades per layer').replace('per', 'a')}"
    with np.errstate(all="ignore"):
        sides = {
            side: plain(over_replicas(ds[name], level).values.ravel())
            for side, level in (("low", 0.1), ("mid", 0.5), ("high", 0.9))
        }
    told = {"name": name, "label": said, "kind": kind, **sides, "theory": None, "std": None}
    columns = [ds[mean].values.ravel() for mean in means if mean in ds]
    if columns and np.isfinite(columns).any():
        first, last = columns[0], columns[-1]
        told["theory"] = plain(np.where(np.isfinite(first), first, last))
        told["std"] = plain(ds[std].values.ravel(), 3) if std in ds else None
    return told


def _profiles(ds: Any, cells: int) -> tuple[dict | None, str]:
    """Rows over layers of every cell, at as many layers as the page has room for; and what is left out."""
    kept = [row.name for row in observables.ROWS if f"{row.name}_mean" in ds]
    kept = [name for name in kept if not np.isnan(ds[f"{name}_mean"].values).all()]
    kept.sort(key=lambda name: name != "log10_grad_activation")
    if not kept:
        return None, "This sweep kept no profiles over layers (profiles=True keeps them)."
    room = MOST_NUMBERS // (3 * cells)
    shown = kept[: max(1, room // FEWEST_LAYERS)]
    most = min(MOST_LAYERS, room // len(shown))
    if most < FEWEST_LAYERS:
        return None, f"Profiles over layers of {cells} cells have no room here; `pykernel export` has them."
    tables = [_table(ds, name, cells) for name in shown]
    layers, group, places = _places(ds, tables, most)
    rows = []
    for name, values in zip(shown, tables, strict=True):
        parts = [plain(values[:, i, place].ravel()) if len(place) else None for i, place in enumerate(places)]
        quantiles = f"{name}_quantile" in ds
        rows.append({"name": name, "label": label(name), "parts": 3 if quantiles else 2, "values": parts})
    told = {"rows": rows, "layers": layers, "group": group, "label": _place_label(ds)}
    left = [label(name) for name in kept if name not in shown]
    return told, f"Of the profiles over layers there is no room for {', '.join(left)}." if left else ""


def _place_label(ds: Any) -> str:
    return "layer (0 is the input)" if counted(ds) == "layers" else "place: layer, activation step or block"


def _table(ds: Any, name: str, cells: int) -> np.ndarray:
    """Middle, lower and upper line of a row, (3, cells, layers)."""
    dims = axes(ds)
    if f"{name}_quantile" in ds:
        values = ds[f"{name}_quantile"].transpose(*dims, "quantile", "layer").values.reshape(cells, len(QUANTILES), -1)
        at = [QUANTILES.index(level) for level in (0.5, min(QUANTILES), max(QUANTILES))]
        return values[:, at].transpose(1, 0, 2)
    mean, std = (ds[f"{name}_{word}"].transpose(*dims, "layer").values.reshape(cells, -1) for word in ("mean", "std"))
    std = np.nan_to_num(std)
    with np.errstate(invalid="ignore"):
        return np.stack([mean, mean - std, mean + std])


def _places(ds: Any, tables: list[np.ndarray], most: int) -> tuple[list[list[int]], list[int], list[np.ndarray]]:
    """At which layers each cell is shown: lists of layers, which of them a cell has, and where in the Dataset."""
    known = np.logical_or.reduce([~np.isnan(values[0]) for values in tables])
    layer, layers, group, places = ds.layer.values, [], [], []
    seen: dict[bytes, int] = {}
    for row in known:
        key = row.tobytes()
        if key not in seen:
            at = np.flatnonzero(row)
            pick = np.unique(np.linspace(0, len(at) - 1, min(most, len(at))).round().astype(int)) if len(at) else at
            seen[key] = len(layers)
            layers.append(layer[at[pick]].tolist())
            places.append(at[pick])
        group.append(seen[key])
    return layers, group, [places[i] for i in group]


def sizes(ds: Any) -> str:
    """The grid in a few words: "6 activation x 9 init"."""
    return " × ".join(f"{ds.sizes[name]} {'/'.join(coordinates(ds, name))}" for name in axes(ds)) or "one cell"
