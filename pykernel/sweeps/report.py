# SPDX-License-Identifier: BSD-3-Clause
"""A sweep's Dataset as tables to read (80 columns) and files to keep (CSV, Parquet, NetCDF)."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

WIDTH = 80
LETTERS = {"stable": "s", "vanishing": "v", "exploding": "E", "dead": "d", "undefined": "?", "missing": ".", "failed": "!"}
FORMATS = ("csv", "parquet", "nc")
_SHORT = {"leaky_relu": "leaky", "torch_linear_default": "torch default"}


def axes(ds: Any) -> list[str]:
    """The dimensions of a sweep's grid, in its order."""
    return list(ds.verdict.dims)


def table(ds: Any) -> str:
    """The verdicts: a line for each cell where they are few, else letters along depth for each pair of axes."""
    if ds.verdict.size <= 40:
        return "\n".join(_lines(ds))
    return "\n".join(_letters(ds))


def _lines(ds: Any) -> Iterator[str]:
    names = [name for axis in axes(ds) for name in _words(ds, axis)]
    theory = ["theory", "z"] if "predicted_slope" in ds else []
    rows = [[*names, "chains", "slope", "+-", *theory, "signal", "weights", "verdict"]]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for where in np.ndindex(ds.verdict.shape):
            at = dict(zip(axes(ds), where, strict=True))
            cell = ds.isel(at)
            n = int(cell.replicas)
            slope = cell.slope.values[np.isfinite(cell.slope.values)]
            error = slope.std(ddof=1) / len(slope) ** 0.5 if len(slope) > 1 else np.nan
            signal, weights = (float(np.nanmedian(cell[name].values)) for name in ("signal_end_to_end", "end_to_end"))
            numbers = [f"{np.median(slope):.4g}" if len(slope) else "-", f"{error:.1g}" if error == error else "-"]
            words = [_short(cell[name].item()) for name in names]
            if theory:
                numbers += [_plain(cell.predicted_slope, ".4g"), _plain(cell.z_slope, "+.1f")]
            rows.append([*words, str(n), *numbers, f"{signal:.4g}", f"{weights:.4g}", str(cell.verdict.item())])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        left = len(names)
        cells = [
            text.ljust(w) if i < left or i == len(row) - 1 else text.rjust(w) for i, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        yield " ".join(cells).rstrip()
    yield ""
    yield "slope: decades a layer, travelled backwards, median and standard error; signal and"
    yield "weights: log10 of the gradient at the first over the last layer, medians."
    if theory:
        yield "theory: of the slope; z: standard errors from there to the mean slope."


def _plain(value: Any, form: str) -> str:
    return f"{float(value):{form}}" if np.isfinite(float(value)) else "-"


def _letters(ds: Any) -> Iterator[str]:
    dims = axes(ds)
    along = "depth" if "depth" in dims else max(dims, key=lambda name: ds.sizes[name])
    rest = [name for name in dims if name != along]
    across = "activation" if "activation" in rest else rest[-1] if rest else along
    down = "init" if "init" in rest else next((name for name in rest if name != across), None)
    others = [name for name in rest if name not in (across, down)]
    legend = ", ".join(f"{letter} {word}" for word, letter in LETTERS.items() if (ds.verdict.values == word).any())
    yield f"verdicts along {along} = {', '.join(_short(v) for v in ds[along].values)}: {legend}"
    for where in np.ndindex(*(ds.sizes[name] for name in others)):
        part = ds.verdict.isel(dict(zip(others, where, strict=True)))
        yield ""
        if others:
            yield ", ".join(f"{name} {_short(ds[name].values[i])}" for name, i in zip(others, where, strict=True))
        yield from _grid(part, along, across if across != along else None, down)
    if "z_slope" in ds:
        yield from _beside(ds)


def _beside(ds: Any) -> Iterator[str]:
    """How the measured slopes lie beside the predicted ones, in a few lines."""
    z = np.abs(ds.z_slope.values[np.isfinite(ds.z_slope.values)])
    predicted = int(np.isfinite(ds.predicted_slope.values).sum())
    yield ""
    yield f"theory predicts the slope of {predicted} of {ds.verdict.size} cells, and its spread in {len(z)}: of these,"
    if len(z):
        yield f"{np.mean(z <= 2):.0%} have their mean slope within 2 standard errors of it, {np.mean(z <= 4):.0%} within 4"


def _grid(part: Any, along: str, across: str | None, down: str | None) -> Iterator[str]:
    columns = [_short(v) for v in part[across].values] if across else [along]
    names = [_short(v) for v in part[down].values] if down else [""]
    ordered = part.transpose(*(name for name in (down, across, along) if name))
    words = ordered.values.reshape(len(names), len(columns), -1)
    first = max(len(name) for name in names)
    width = max(max(len(name) for name in columns), words.shape[2])
    many = max(1, (WIDTH - first - 1) // (width + 1))
    for begin in range(0, len(columns), many):
        yield " ".join([" " * first, *(name.ljust(width) for name in columns[begin : begin + many])]).rstrip()
        for name, line in zip(names, words[:, begin : begin + many], strict=True):
            letters = ["".join(LETTERS.get(word, "?") for word in cell).ljust(width) for cell in line]
            yield " ".join([name.ljust(first), *letters]).rstrip()


def _words(ds: Any, axis: str) -> list[str]:
    """The coordinates that say where along an axis a cell stands."""
    others = [name for name in ds.coords if name != axis and ds[name].dims == (axis,)]
    return others if others and axis not in ("depth", "width") else [axis]


def _short(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return _SHORT.get(text, text)


def frame(ds: Any, replicas: bool = False) -> Any:
    """A tidy pandas.DataFrame: a line for each cell with median, mean, std and standard error of every scalar; or for each replica."""
    import pandas

    from pykernel.sweeps.statistics import SCALARS

    dims = axes(ds)
    names = [name for name in SCALARS if name in ds]
    index = {name: np.broadcast_to(_along(ds, name, dims), ds.verdict.shape).ravel() for axis in dims for name in _coordinates(ds, axis)}
    facts = {name: ds[name].values.ravel() for name in ds.data_vars if ds[name].dims == tuple(dims)}
    if replicas:
        count = ds.sizes["replica"]
        columns = {name: np.repeat(values, count) for name, values in index.items()}
        columns["replica"] = np.tile(ds.replica.values, ds.verdict.size)
        columns |= {name: ds[name].transpose(*dims, "replica").values.ravel() for name in names}
        table = pandas.DataFrame(columns)
        return table[table["dead"].notna()].reset_index(drop=True)
    columns = {**index, **facts}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for name in names:
            values = ds[name].transpose(*dims, "replica").values.reshape(ds.verdict.size, -1)
            finite = np.where(np.isfinite(values), values, np.nan)
            count = np.isfinite(values).sum(axis=1)
            std = np.nanstd(finite, axis=1, ddof=1)
            columns[f"{name}_median"] = np.nanmedian(values, axis=1)
            columns[f"{name}_mean"] = np.nanmean(finite, axis=1)
            columns[f"{name}_std"] = std
            columns[f"{name}_stderr"] = std / np.sqrt(count)
    return pandas.DataFrame(columns)


def _coordinates(ds: Any, axis: str) -> list[str]:
    return [str(name) for name in ds.coords if ds[name].dims == (axis,)]


def _along(ds: Any, name: str, dims: list[str]) -> np.ndarray:
    at = dims.index(ds[name].dims[0])
    return ds[name].values.reshape([-1 if i == at else 1 for i in range(len(dims))])


def export(ds: Any, path: str | os.PathLike, form: str | None = None, replicas: bool = False) -> Path:
    """Write a sweep's Dataset to a file, whole or not at all.

    Args:
        ds: what `sweep` or `open` returned.
        path: the file; its ending says the format unless `form` does.
        form: "csv" or "parquet" (tables as `frame` makes them), or "nc" (NetCDF: everything, labelled).
        replicas: for tables, a line for each replica instead of each cell.

    Raises:
        ValueError: for an unknown format.
    """
    path = Path(path)
    form = form or path.suffix.removeprefix(".")
    if form not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {form or 'a file without an ending'!r}")
    temporary = path.with_name(f".{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if form == "nc":
            # Profiles are statistics of replicas: seven digits are more than their error, and halve the file.
            encoding = {
                str(name): {"zlib": True, "complevel": 1, **({"dtype": "float32"} if "layer" in ds[name].dims else {})}
                for name in ds.data_vars
                if ds[name].dtype.kind == "f" and ds[name].size
            }
            ds.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)
        elif form == "csv":
            frame(ds, replicas).to_csv(temporary, index=False)
        else:
            frame(ds, replicas).to_parquet(temporary, index=False)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
