# SPDX-License-Identifier: BSD-3-Clause
"""A sweep's Dataset as tables to read (80 columns) and files to keep (CSV, Parquet, NetCDF)."""

from __future__ import annotations

import os
import shutil
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pykernel import files
from pykernel.chain import FIELDS, Chain
from pykernel.sweeps.grid import label
from pykernel.tables import WIDTH, Table

LETTERS_ALONG, BLOCKS = 40, 24  # in a table of letters: values of the axis along a row, pairs of axes
LETTERS = {
    "stable": "s",
    "vanishing": "v",
    "exploding": "E",
    "dead": "d",
    "undefined": "?",
    "missing": ".",
    "failed": "!",
}
FORMATS = ("csv", "parquet", "nc")
# What labels say of the words of a chain and of a run that nobody gave.
USUAL = {name: label(getattr(Chain, name, None)) for name in FIELDS} | {
    "batch": 1,
    "seed": 0,
    "dtype": "float32",
    "precision": "exponent",
    "correlation": 0.0,
}
_SHORT = {"leaky_relu": "leaky", "torch_linear_default": "torch default"}


def axes(ds: Any) -> list[str]:
    """The dimensions of a sweep's grid, in its order."""
    return list(ds.verdict.dims)


def table(ds: Any, width: int | None = None) -> str:
    """The verdicts: a line for each cell where they are few, else letters along depth for each pair of axes.

    Args:
        ds: what `sweep` or `open` returned.
        width: columns of the page; the terminal's without (80 where there is none). What has no room is left out, and
            said.
    """
    width = width or shutil.get_terminal_size((WIDTH, 24)).columns
    return "\n".join(_lines(ds, width) if ds.verdict.size <= 40 else _letters(ds, width))


# Columns in the order in which they give way.
_GIVE_WAY = ("weights", "z", "theory", "+-", "signal", "chains")
_OF_FORMATS = {"cosine": "gradient_cosine_first", "lost": "lost"}
_EXPLAINED = {
    "slope": "slope: decades of gradient a layer, travelled backwards, mean over draws (negative vanishes)",
    "+-": "+-: its standard error",
    "theory": "theory: what is predicted of the slope",
    "z": "z: standard errors from theory to the slope",
    "cosine": "cosine: of the first block's gradient with what it is without formats",
    "lost": "lost: largest share of a block's signal or gradient that flushes or overflows",
    "signal": "signal: decades of the signal's gradient, input over output",
    "weights": "weights: decades of the weights' gradient, first over last layer",
}
_VERDICT = "verdict: by the larger of signal and weights, vanishing below -3 decades, exploding above 3"


def _lines(ds: Any, width: int) -> Iterator[str]:
    names = [name for axis in axes(ds) for name in coordinates(ds, axis)]
    columns: dict[str, list[str]] = {
        name: []
        for name in (*names, "chains", "slope", "+-", "theory", "z", "cosine", "lost", "signal", "weights", "verdict")
    }
    for name, variable in _OF_FORMATS.items():
        if variable not in ds or not np.isfinite(ds[variable].values).any():
            del columns[name]
    if "predicted_slope" not in ds:
        del columns["theory"], columns["z"]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for where in np.ndindex(ds.verdict.shape):
            cell = ds.isel(dict(zip(axes(ds), where, strict=True)))
            slope = cell.slope.values[np.isfinite(cell.slope.values)]
            found = {name: _short(cell[name].item()) for name in names}
            found |= {
                "chains": str(int(cell.replicas)),
                "slope": f"{np.mean(slope):.4g}" if len(slope) else "-",
                "+-": f"{slope.std(ddof=1) / len(slope) ** 0.5:.1g}" if len(slope) > 1 else "-",
                "signal": _decades(cell.signal_end_to_end),
                "weights": _decades(cell.end_to_end),
                "verdict": str(cell.verdict.item()),
            }
            if "theory" in columns:
                found |= {"theory": _plain(cell.predicted_slope, ".4g"), "z": _plain(cell.z_slope, "+z.1f")}
            found |= {name: _plain(cell[of], ".3g") for name, of in _OF_FORMATS.items() if name in columns}
            for name, column in columns.items():
                column.append(found[name])
    left_out = _fit(columns, names, width)
    shown = Table(list(columns), list(zip(*columns.values(), strict=True)), left=(*names, "verdict"), gap=" ")
    yield from (line[:width] for line in shown.printed())
    yield ""
    said = [text for name, text in _EXPLAINED.items() if name in columns]
    if "repetition" in ds.slope.attrs.get("units", ""):
        said = [text.replace("gradient a layer", "gradient a repetition of the blocks") for text in said]
    yield from textwrap.wrap("; ".join([*said, _VERDICT]), width)
    if left_out:
        yield from textwrap.wrap(
            f"no room for {', '.join(left_out)}: a wider terminal, or `pykernel export DIR`, has all", width
        )


def _fit(columns: dict[str, list[str]], names: list[str], width: int) -> list[str]:
    """Drop columns, then shorten the grid's own words, until a line fits; what was dropped."""

    def excess() -> int:
        return sum(max(map(len, [name, *column])) + 1 for name, column in columns.items()) - 1 - width

    left_out = []
    for name in _GIVE_WAY:
        if excess() <= 0:
            break
        if columns.pop(name, None) is not None:
            left_out.append(name)
    while excess() > 0 and names:
        name = max(names, key=lambda name: max(map(len, columns[name])))
        longest = max(map(len, columns[name]))
        if longest <= 8:
            break
        columns[name][:] = [
            text if len(text) < longest else text[: longest - 2].rstrip(".") + "." for text in columns[name]
        ]
    return left_out


def _decades(values: Any) -> str:
    median = float(np.nanmedian(values.values))
    return f"{median:.4g}" if median == median else "-"


def _plain(value: Any, form: str) -> str:
    return f"{float(value):{form}}" if np.isfinite(float(value)) else "-"


def _letters(ds: Any, width: int) -> Iterator[str]:
    dims = axes(ds)
    along = "depth" if "depth" in dims else max(dims, key=lambda name: ds.sizes[name])
    rest = [name for name in dims if name != along]
    across = "activation" if "activation" in rest else rest[-1] if rest else along
    down = "init" if "init" in rest and across != "init" else next((name for name in rest if name != across), None)
    others = [name for name in rest if name not in (across, down)]
    legend = ", ".join(f"{letter}\xa0{word}" for word, letter in LETTERS.items() if (ds.verdict.values == word).any())
    step = -(-ds.sizes[along] // LETTERS_ALONG)
    shown = _values(ds, along)[::step]
    values = ", ".join(shown if len(shown) <= 12 else [*shown[:3], "...", *shown[-2:]])
    thinned = f" (every {step}th of {ds.sizes[along]})" if step > 1 else ""
    heading = textwrap.wrap(f"verdicts along {along} = {values}{thinned}: {legend}", width)
    yield from (line.replace("\xa0", " ") for line in heading)  # a letter and its word stay on one line
    blocks = list(np.ndindex(*(ds.sizes[name] for name in others)))
    for where in blocks[:BLOCKS]:
        part = ds.verdict.isel({along: slice(None, None, step), **dict(zip(others, where, strict=True))})
        yield ""
        if others:
            yield ", ".join(
                f"{'/'.join(coordinates(ds, name))} {_values(ds, name)[i]}"
                for name, i in zip(others, where, strict=True)
            )
        yield from _grid(part, along, across if across != along else None, down, width)
    if len(blocks) > BLOCKS:
        yield ""
        yield from textwrap.wrap(
            f"{len(blocks) - BLOCKS} of {len(blocks)} blocks are left out: `pykernel export DIR` has all", width
        )
    yield ""
    yield from textwrap.wrap(
        _VERDICT.replace("signal and weights", "the signal's and the weights' decades end to end"), width
    )
    if "z_slope" in ds:
        yield ""
        yield from textwrap.wrap(beside(ds), width)


def beside(ds: Any) -> str:
    """How the measured slopes of a sweep with theory lie beside the predicted ones, in a sentence."""
    z = np.abs(ds.z_slope.values[np.isfinite(ds.z_slope.values)])
    predicted = int(np.isfinite(ds.predicted_slope.values).sum())
    text = f"theory predicts the slope of {predicted} of {ds.verdict.size} cells, "
    if len(z):
        text += (
            f"and its spread in {len(z)}: of these, {np.mean(z <= 2):.0%} have their mean slope within 2 "
            "standard errors of it, "
        )
        text += f"{np.mean(z <= 4):.0%} within 4"
    else:
        text += "and its spread in none"
    waiting = int(np.char.startswith(ds.theory.values.astype(str), "not computed").sum())
    if waiting:
        text += f"; theory of {waiting} cells is left out: --predict (predict=True) asks for it"
    return text


def _grid(part: Any, along: str, across: str | None, down: str | None, page: int) -> Iterator[str]:
    columns = _values(part, across) if across else [along]
    names = _values(part, down) if down else [""]
    ordered = part.transpose(*(name for name in (down, across, along) if name))
    words = ordered.values.reshape(len(names), len(columns), -1)
    first = max(len(name) for name in names)
    width = max(max(len(name) for name in columns), words.shape[2])
    many = max(1, (page - first - 1) // (width + 1))
    for begin in range(0, len(columns), many):
        titles = ["", *columns[begin : begin + many]]
        part = words[:, begin : begin + many]
        letters = [["".join(LETTERS.get(word, "?") for word in cell) for cell in row] for row in part]
        lines = [[name, *row] for name, row in zip(names, letters, strict=True)]
        yield from Table(titles, lines, left=titles, gap=" ").printed()


def coordinates(ds: Any, axis: str) -> list[str]:
    """The coordinates that say where along an axis a cell stands."""
    others = [name for name in ds.coords if name != axis and ds[name].dims == (axis,)]
    return others if others and axis not in ("depth", "width") else [axis]


def _values(ds: Any, axis: str) -> list[str]:
    """The values along an axis in words; those of a zip joined by a slash."""
    return [
        "/".join(_short(v) for v in row)
        for row in zip(*(ds[name].values.tolist() for name in coordinates(ds, axis)), strict=True)
    ]


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return _SHORT.get(text, text)


def frame(ds: Any, replicas: bool = False) -> Any:
    """A tidy pandas.DataFrame: a line for each cell with median, mean, std and standard error of every scalar; or for
    each replica."""
    import pandas

    from pykernel.sweeps.statistics import SCALARS

    dims = axes(ds)
    names = [name for name in SCALARS if name in ds]
    index = {
        name: np.broadcast_to(_along(ds, name, dims), ds.verdict.shape).ravel()
        for axis in dims
        for name in _coordinates(ds, axis)
    }
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
        ValueError: for an unknown format, or "parquet" without pyarrow.
    """
    path = Path(path)
    form = form or path.suffix.removeprefix(".")
    if form not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {form or 'a file without an ending'!r}")
    if form == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise ValueError(
                "format parquet needs pyarrow: pip install pyarrow; csv and nc need nothing more"
            ) from None
    with files.whole(path, "--output FILE writes elsewhere") as temporary:
        if form == "nc":
            encoding = {
                str(name): {"zlib": True, "complevel": 1}
                for name in ds.data_vars
                if ds[name].dtype.kind == "f" and ds[name].size
            }
            ds.to_netcdf(temporary, engine="h5netcdf", encoding=encoding)
        elif form == "csv":
            frame(ds, replicas).to_csv(temporary, index=False)
        else:
            frame(ds, replicas).to_parquet(temporary, index=False)
    return path
