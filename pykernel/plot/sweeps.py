# SPDX-License-Identifier: BSD-3-Clause
"""Figures of a sweep: gradient against depth, decades over gain and depth, spread against depth over width, map of verdicts.

Every figure reads in greyscale: lines differ by marker and dash, areas by letter and contour.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pykernel.sweeps.report import LETTERS, axes, coordinates
from pykernel.verdict import EXPLODING, VANISHING

# Okabe and Ito's colours, told apart by most eyes; with 9 markers and 4 dashes no two of 36 lines look alike in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#7A5195", "#8C564B")
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "<", "*")
DASHES = ("-", "--", "-.", ":")
FILLS = {"stable": "#ffffff", "vanishing": "#9ecae1", "exploding": "#f4a582", "dead": "#636363"}
KINDS = ("gradient", "heat", "spread", "verdict")
MOST_LINES, MOST_PANELS, MOST_CELLS = 9, 24, 40  # in one panel, in one figure, along one side of the map of verdicts
_SIGNAL = "decades of gradient, input over output"


def gradient(ds: Any) -> Any:
    """Gradient magnitude against depth under each scheme: small multiples over activation and width.

    With a single depth, against layer. Points are medians over replicas, bars the middle 80 percent; lines are theory (the mean at this
    width where a law is known, else infinite width), dotted lines join points that have none.

    Returns:
        matplotlib Figure.
    """
    if ds.sizes.get("depth", 1) < 2 or "depth" not in axes(ds):
        return _profiles(ds)
    ds, note = _thin(ds, "depth")
    low, middle, high = (_over_replicas(ds.signal_end_to_end, q) for q in (0.1, 0.5, 0.9))
    theory = _theory(ds)
    figure, panels, legend = _multiples(ds, "depth")
    reach = np.nanmax(np.abs(middle.values[np.isfinite(middle.values)]), initial=4.0)
    for panel, at, lines in panels:
        panel.axhspan(VANISHING, EXPLODING, color="0.92", zorder=0)
        for i, (name, where) in enumerate(lines):
            x = ds.depth.values
            y, lower, upper = (part.isel({**at, **where}).values for part in (middle, low, high))
            zero = np.isneginf(y)
            y = np.where(np.isfinite(y), y, np.nan)
            with np.errstate(invalid="ignore"):
                bars = np.nan_to_num(np.abs(np.stack([y - lower, upper - y])), nan=0.0, posinf=0.0)
            style = _style(i)
            if theory is not None:
                expected = theory.isel({**at, **where}).values
                panel.plot(x, expected, color=style["color"], ls=style["ls"], lw=1.3, zorder=1)
                style["ls"] = "none" if np.isfinite(expected).any() else (0, (1, 4))
            (line, *_) = panel.errorbar(x, y, yerr=bars, **style, elinewidth=0.8, label=name)
            if zero.any():
                panel.plot(x[zero], np.full(zero.sum(), -reach * 1.6), MARKERS[i % 9], color=line.get_color(), mfc="none", ms=5)
            legend[name] = line
        if theory is not None:
            (legend["line: theory"],) = panel.plot([], [], color="0.4", lw=1.3)
        panel.set_xscale("log")
        panel.set_yscale("symlog", linthresh=EXPLODING, linscale=0.8)
        panel.set_yticks(_ticks(2 * reach))
        panel.yaxis.set_major_formatter(_signed)
        panel.set_ylim(-2 * reach, 2 * reach)
        panel.minorticks_off()
        _tick_values(panel.xaxis, ds.depth.values)
    title = "Gradient against depth: medians over draws, bars from 10 to 90 %; grey: stable"
    title += "; lines: theory" if theory is not None else ""
    _finish(figure, panels, legend, "depth (layers)", _SIGNAL, title + note)
    return figure


def _theory(ds: Any) -> Any:
    """The signal's decades that theory gives: the mean at this width where a law is known, else at infinite width; None without."""
    if "predicted_signal_end_to_end" not in ds:
        return None
    mean = ds.predicted_signal_end_to_end_mean
    return mean.where(np.isfinite(mean), ds.predicted_signal_end_to_end)


def _profiles(ds: Any) -> Any:
    """Gradient against layer, for sweeps of one depth."""
    name = "log10_grad_activation"
    if f"{name}_mean" not in ds:
        raise ValueError(f"this sweep kept no profile of {name}: run it with profiles=True, or with several depths")
    ds, note = _thin(ds, "layer")
    figure, panels, legend = _multiples(ds, "layer")
    for panel, at, lines in panels:
        for i, (label, where) in enumerate(lines):
            cell = ds.isel({**at, **where})
            y, spread, x = (
                cell[f"{name}_mean"].values.ravel(),
                cell[f"{name}_std"].values.ravel(),
                np.tile(ds.layer.values, cell.verdict.size),
            )
            style = {**_style(i), "markevery": max(1, len(x) // 8)}
            (legend[label],) = panel.plot(x, y, **style)
            panel.fill_between(x, y - spread, y + spread, color=style["color"], alpha=0.15, lw=0)
    _finish(
        figure,
        panels,
        legend,
        "layer",
        "log10 of the gradient's norm",
        "Gradient against layer: mean over draws, band one standard deviation" + note,
    )
    return figure


def heat(ds: Any) -> Any:
    """Decades of gradient over gain and depth, with contours at the verdict's bounds and the theory's critical gain.

    Returns:
        matplotlib Figure.

    Raises:
        ValueError: if gain or depth is no axis of the sweep.
    """
    if not {"gain", "depth"} <= set(axes(ds)):
        raise ValueError("the heat map needs gain and depth as axes of the sweep")
    plt = _pyplot()
    from matplotlib.colors import SymLogNorm

    ds, note = _thin(ds, "gain", "depth")
    others = [name for name in axes(ds) if name not in ("gain", "depth")]
    middle = _over_replicas(ds.signal_end_to_end, 0.5)
    finite = middle.values[np.isfinite(middle.values)]
    reach = max(np.quantile(np.abs(finite), 0.95) if finite.size else 1.0, EXPLODING)
    # Even steps of colour inside the verdict's bounds, logarithmic beyond: the critical region is narrow.
    scale = SymLogNorm(linthresh=EXPLODING, vmin=-reach, vmax=reach)
    wheres = list(_places(ds, others))
    columns = min(4, len(wheres))
    rows = -(-len(wheres) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(1.2 + 3.4 * columns, 0.8 + 2.9 * rows), squeeze=False, layout="constrained")
    for panel, (label, where) in zip(panels.flat, wheres, strict=False):
        z = middle.isel(where).transpose("depth", "gain").values
        z = np.where(np.isinf(z), np.sign(z) * 1e9, z)  # what is missing stays blank
        mesh = panel.pcolormesh(ds.gain.values, ds.depth.values, z, cmap="RdBu_r", norm=scale, shading="nearest")
        panel.set_facecolor("0.8")
        if min(z.shape) > 1 and np.isfinite(z).any():
            lines = panel.contour(
                ds.gain.values, ds.depth.values, z, levels=[VANISHING, EXPLODING], colors="k", linestyles=["--", "-"], linewidths=1
            )
            panel.clabel(lines, fmt=lambda level: f"{level:+g}", fontsize=7)
        critical = _critical(ds, where)
        if critical is not None and ds.gain.values.min() <= critical <= ds.gain.values.max():
            panel.axvline(critical, color="k", ls=":", lw=1.8)
            panel.text(critical, ds.depth.values.max(), " critical", fontsize=7, va="top", rotation=90, ha="right")
        panel.set_yscale("log" if ds.depth.values.max() > 5 * ds.depth.values.min() else "linear")
        _tick_values(panel.yaxis, ds.depth.values)
        panel.set_title(label, fontsize=9)
        panel.set_xlabel("gain")
        panel.set_ylabel("depth (layers)")
    for panel in panels.flat[len(wheres) :]:
        panel.set_visible(False)
    bar = figure.colorbar(mesh, ax=panels, label=_SIGNAL, extend="both", ticks=_ticks(reach))
    bar.ax.yaxis.set_major_formatter(_signed)
    bar.ax.minorticks_off()
    figure.suptitle(
        "Medians over draws; contours at the verdict's bounds (dashed: vanishing, solid: exploding); dotted: theory's critical gain" + note,
        fontsize=9,
    )
    return figure


def spread(ds: Any) -> Any:
    """Standard deviation over draws of the gradient's decades against depth over width, with the finite-width laws.

    Gaussian chains, one input: the variance of the log of the squared norm is 2 L / n for linear chains and 5 L / n for ReLU
    (Hanin, Nica 2018, theorem 1), 3 L / n for orthogonal ReLU; a standard deviation in decades is half its root over ln 10.

    Returns:
        matplotlib Figure.

    Raises:
        ValueError: if neither depth nor width is an axis of the sweep.
    """
    names = axes(ds)
    if not {"depth", "width"} & set(names):
        raise ValueError("the spread needs depth or width as an axis of the sweep")
    ds, note = _thin(ds, "depth", "width")
    plt = _pyplot()
    from matplotlib.ticker import LogLocator, NullFormatter

    rest = [name for name in names if name not in ("depth", "width", "activation", "replicas")]
    acts = list(ds.activation.values) if "activation" in names else [None]
    columns = min(3, len(acts))
    rows = -(-len(acts) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(0.8 + 3.6 * columns, 1.6 + 2.8 * rows), squeeze=False, layout="constrained", sharex=True, sharey=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = ds.signal_end_to_end.where(np.isfinite(ds.signal_end_to_end))
        std = values.std("replica", ddof=1)
    ratio = ds.depth / ds.width
    legend: dict[str, Any] = {}
    for panel, act in zip(panels.flat, acts, strict=False):
        part = std if act is None else std.sel(activation=act)
        for i, (label, where) in enumerate(_places(ds, rest)):
            y = part.isel(where)
            x, y = (a.values.ravel() for a in _broadcast(ratio, y))
            order = np.argsort(x)
            x, y = x[order], y[order]
            good = np.isfinite(y) & (y > 1e-7)
            if good.any():
                (legend[label],) = panel.plot(x[good], y[good], **{**_style(i), "ls": "none"})
        ends = np.array([float(ratio.min()), float(ratio.max())])
        for law, factor, dash in (("law: 5 L/n, ReLU", 5, "-"), ("law: 2 L/n, linear", 2, "--")):
            (legend[law],) = panel.plot(ends, np.sqrt(factor * ends) / 2 / math.log(10), "k", ls=dash, lw=1.2)
        panel.set(xscale="log", yscale="log", title=act or "")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_locator(LogLocator(10, (1, 2, 5), numticks=12))
            axis.set_major_formatter(lambda value, _: f"{value:.3g}")
            axis.set_minor_formatter(NullFormatter())
        panel.title.set_fontsize(9)
    for panel in panels.flat[len(acts) :]:
        panel.set_visible(False)
    for panel in panels[-1]:
        panel.set_xlabel("depth / width", fontsize=9)
    figure.supylabel("standard deviation over draws (decades)", fontsize=9)
    figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle("Spread of the gradient over draws of the weights, and the finite-width laws" + note, fontsize=10)
    return figure


def verdict(ds: Any) -> Any:
    """The verdict of every cell: letters on shades, small multiples over activation and width.

    Returns:
        matplotlib Figure.
    """
    plt = _pyplot()
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    names = axes(ds)
    x = "depth" if "depth" in names else names[-1]
    ds, note = _thin(ds, x, *(name for name in ("init",) if name in names), most=MOST_CELLS)
    rest = [name for name in names if name != x]
    y = "init" if "init" in rest else (rest[0] if rest else None)
    across, down, wheres = _split(ds, [name for name in rest if name != y])
    rows, columns = len(wheres), len(wheres[0])
    height = 0.9 + rows * (0.5 + 0.24 * (ds.sizes[y] if y else 1))
    figure, panels = plt.subplots(
        rows,
        columns,
        figsize=(2 + max(1.6, 0.3 * ds.sizes[x]) * columns, height),
        squeeze=False,
        layout="constrained",
        sharex=True,
        sharey=True,
    )
    del across, down
    for row, line in zip(panels, wheres, strict=True):
        for panel, (label, where) in zip(row, line, strict=True):
            part = ds.verdict.isel(where)
            words = part.transpose(*(name for name in (y, x) if name)).values.reshape(-1, ds.sizes[x])
            shades = np.array([[to_rgb(FILLS.get(word, "#dddddd")) for word in row] for row in words])
            panel.imshow(shades, aspect="auto", interpolation="nearest")
            for word in set(words.ravel()) - {"missing"}:
                i, j = np.nonzero(words == word)
                panel.scatter(j, i, 22, "w" if word == "dead" else "k", marker=f"${LETTERS.get(word, '?')}$", lw=0.1)
            panel.set_xlim(-0.5, words.shape[1] - 0.5)
            panel.set_ylim(words.shape[0] - 0.5, -0.5)
            panel.set_xticks(range(ds.sizes[x]), [_word(v) for v in ds[x].values], fontsize=7, rotation=90)
            if y:
                panel.set_yticks(range(ds.sizes[y]), [_word(v) for v in ds[y].values], fontsize=8)
            panel.set_title(label, fontsize=8)
            panel.tick_params(length=0)
    present = [word for word in LETTERS if (ds.verdict.values == word).any()]
    handles = [
        Patch(fc=FILLS.get(word, "#dddddd"), ec="0.5", label=word if word == "missing" else f"{LETTERS[word]}  {word}") for word in present
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False)
    for panel in panels[-1]:
        panel.set_xlabel(x, fontsize=8)
    if note:
        figure.suptitle("Verdicts" + note, fontsize=9)
    return figure


def save(ds: Any, directory: str | Path, kind: str = "all", form: str = "png") -> list[Path]:
    """Draw figures into a directory, each as `<kind>.<form>`.

    Args:
        ds: what `sweep` or `open` returned.
        directory: where to.
        kind: "all" draws what fits the grid; or one of KINDS.
        form: "png", "svg" or "pdf".

    Returns:
        The files written.

    Raises:
        ValueError: for an unknown kind, or one that does not fit the grid.
    """
    if kind != "all" and kind not in KINDS:
        raise ValueError(f"kind must be all or one of {', '.join(KINDS)}, got {kind!r}")
    made = []
    for name in KINDS if kind == "all" else (kind,):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                figure = globals()[name](ds)
        except ValueError:
            if kind != "all":
                raise
            continue
        path = Path(directory) / f"{name}.{form}"
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(temporary, dpi=130, format=form)
            temporary.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise OSError(error.errno, f"{path} could not be written ({error.strerror}); --output DIR draws elsewhere") from error
        finally:
            _pyplot().close(figure)
        made.append(path)
    return made


def _pyplot() -> Any:
    import sys

    import matplotlib

    if "matplotlib.pyplot" not in sys.modules:
        matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _style(i: int) -> dict[str, Any]:
    return {"color": COLOURS[i % 9], "marker": MARKERS[i % 9], "ls": DASHES[i % 4], "ms": 4, "lw": 1.3}


def _ticks(reach: float) -> list[float]:
    """Ticks of a symmetric logarithmic axis: the verdict's bounds, and powers of ten beyond."""
    powers = [10.0**k for k in range(1, math.ceil(math.log10(reach)) if reach > 10 else 1)]
    return [-p for p in reversed(powers)] + [VANISHING, 0.0, EXPLODING, *powers]


def _signed(value: float, _: Any) -> str:
    return f"{value:+g}" if value else "0"


def _over_replicas(values: Any, level: float) -> Any:
    """A quantile over replicas that is an order statistic, so that exact zeros (-inf) stay zeros."""
    ordered = np.sort(values.values, axis=-1)
    count = (~np.isnan(ordered)).sum(axis=-1)
    at = np.clip(np.round(level * (count - 1)).astype(int), 0, None)
    return values.isel(replica=0, drop=True).copy(data=np.take_along_axis(ordered, at[..., None], axis=-1)[..., 0])


def _broadcast(a: Any, b: Any) -> tuple:
    import xarray

    return xarray.broadcast(a, b)


def _places(ds: Any, names: list[str]) -> Iterator[tuple[str, dict]]:
    """Every combination along some axes: its label and where it is."""
    for where in np.ndindex(*(ds.sizes[name] for name in names)):
        at = dict(zip(names, where, strict=True))
        words = [
            _word(ds[word].values[i]) if word in ("init", "activation") else f"{word} {_word(ds[word].values[i])}"
            for name, i in at.items()
            for word in coordinates(ds, name)
        ]
        yield ", ".join(words) or "all", at


def _word(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)


def _thin(ds: Any, *whole: str, most: int = MOST_LINES) -> tuple[Any, str]:
    """A sweep with no more values along its axes than a figure can show, and what the figure must say of it.

    Args:
        whole: axes along which everything is shown; with `most`, at most so many of every axis.
    """
    sizes = {name: ds.sizes[name] for name in axes(ds)}
    kept = {name: n if name in whole and most == MOST_LINES else min(n, most) for name, n in sizes.items()}
    rest = [name for name in kept if name not in whole]
    while math.prod(kept[name] for name in rest) > MOST_PANELS * (MOST_LINES if most == MOST_LINES else 1):
        largest = max(rest, key=lambda name: kept[name])
        kept[largest] = max(1, kept[largest] // 2)
    said = [f"{kept[name]} of {n} values of {name}" for name, n in sizes.items() if kept[name] < n]
    at = {name: np.unique(np.linspace(0, sizes[name] - 1, n).round().astype(int)) for name, n in kept.items() if n < sizes[name]}
    notes = ["shown: " + ", ".join(said)] if said else []
    if not ds.attrs.get("complete", 1):
        notes.append(f"UNFINISHED: {int(ds.replicas.sum())} draws so far, {int((ds.verdict == 'missing').sum())} cells without any")
    return ds.isel(at), "".join("\n" + note for note in notes)


def _tick_values(axis: Any, values: np.ndarray) -> None:
    """Ticks at the swept values, where they are few."""
    if len(values) <= 12:
        axis.set_ticks(values, [_word(v) for v in values])
        axis.set_ticks([], minor=True)


def _split(ds: Any, names: list[str]) -> tuple[list[str], list[str], list[list]]:
    """Axes of small multiples: across (activation), down (the rest), and the panels by row."""
    across = [name for name in names if name == "activation"] or names[:1]
    down = [name for name in names if name not in across]
    table = []
    for row, below in _places(ds, down):
        line = []
        for column, at in _places(ds, across):
            label = ", ".join(word for word in (column, row) if word != "all")
            line.append((label, {**below, **at}))
        table.append(line)
    return across, down, table


def _multiples(ds: Any, x: str) -> tuple[Any, list, dict]:
    """A figure of panels over activation and the rest, with lines over init: [(panel, where, [(label, where)])]."""
    plt = _pyplot()
    rest = [name for name in axes(ds) if name != x]
    lines = [name for name in rest if name == "init"] or [name for name in rest if name not in ("activation", "width")][-1:]
    _, _, table = _split(ds, [name for name in rest if name not in lines])
    rows, columns = len(table), len(table[0])
    figure, grid = plt.subplots(
        rows, columns, figsize=(1.5 + 2.6 * columns, 1.4 + 2.3 * rows), squeeze=False, layout="constrained", sharex=True, sharey=True
    )
    panels = []
    for row, line in zip(grid, table, strict=True):
        for panel, (label, where) in zip(row, line, strict=True):
            panel.set_title(label, fontsize=9)
            panels.append((panel, where, list(_places(ds, lines))))
    return figure, panels, {}


def _finish(figure: Any, panels: list, legend: dict, x: str, y: str, title: str) -> None:
    for panel, *_ in panels:
        panel.grid(True, color="0.88", lw=0.5)
        panel.tick_params(labelsize=7)
    bottom = max(panel.get_subplotspec().rowspan.start for panel, *_ in panels)
    for panel, *_ in panels:
        if panel.get_subplotspec().rowspan.start == bottom:
            panel.set_xlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=9)
    figure.suptitle(title, fontsize=10)
    if len(legend) > 1 or "all" not in legend:
        figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=min(len(legend), 5), fontsize=8, frameon=False)


def _critical(ds: Any, where: dict) -> float | None:
    """The theory's critical gain of the chains in a panel, over the panel's init; None where it has none."""
    import pykernel as pk

    cell = ds.isel(dict(where.items()))
    activation, init = str(cell.activation.item()), str(cell.init.item())
    scale = {"lecun_normal": 1.0, "orthogonal": 1.0, "he_normal": 2**0.5, "glorot_normal": 1.0}.get(init)
    if scale is None:
        return None
    bias = float(cell.coords["bias_std"].item() if "bias_std" in cell.coords else ds.attrs.get("base_bias_std", 0.0))
    try:
        gain = pk.critical_gain(activation, bias_std=bias).gain
    except (AttributeError, ImportError, ValueError, TypeError):
        return None
    return None if gain is None or not np.isfinite(gain) else float(gain) / scale
