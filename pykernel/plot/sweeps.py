# SPDX-License-Identifier: BSD-3-Clause
"""Figures of a sweep: gradient against depth, decades over gain and depth, spread against depth over width, map of
verdicts.

Every figure reads in greyscale: lines differ by marker and dash, areas by letter and contour.
"""

from __future__ import annotations

import contextlib
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pykernel import checks
from pykernel.plot.page import MARKERS, style_of
from pykernel.plot.panels import (
    MOST_CELLS,
    MOST_COLUMNS,
    MOST_LINES,
    MOST_ROWS,
    Page,
    cap,
    counted,
    finish,
    fit,
    multiples,
    name_sides,
    not_shown,
    over_replicas,
    places,
    settle,
    sides,
    signed,
    split,
    tick_values,
    ticks,
    word_of,
)
from pykernel.sweeps.report import LETTERS, axes, coordinates
from pykernel.verdict import EXPLODING, VANISHING

FILLS = {"stable": "#ffffff", "vanishing": "#9ecae1", "exploding": "#f4a582", "dead": "#636363"}
KINDS = ("gradient", "heat", "spread", "verdict")
ENOUGH = 4  # draws that a standard deviation is shown of, where some cells have as many
ROUNDING = 1e-5  # decades: below it a spread is float32's, not the weights'
_SIGNAL = "decades of gradient, input over output"


def plot_sweep(ds: Any, kind: str = "gradient", ax: Any = None) -> np.ndarray:
    """A figure of a sweep: it shows in a notebook, in a script by `plt.show()`. `pykernel plot` draws the same into
    files.

    Args:
        ds: what `sweep` or `open` returned, or a part of it by `ds.sel(...)`.
        kind: "gradient" (against depth, or against layer in a sweep of one depth), "heat" (over gain and depth),
            "spread" (over draws, against depth over width) or "verdict" (of every cell).
        ax: matplotlib axes to draw on, whose title stays, where one panel is enough; a new pyplot figure without.

    Returns:
        The axes of the panels, a NumPy array (rows, columns).

    Raises:
        ValueError: another kind, one that does not fit the grid, or `ax` where it takes several panels.

    Examples:
        >>> import matplotlib.pyplot as plt
        >>> import pykernel as pk
        >>> grid = {"depth": [5, 10], "activation": ["relu", "tanh"]}
        >>> ds = pk.sweep(grid, {"width": 16}, replicas=4, progress=False)
        >>> pk.plot_sweep(ds).shape
        (1, 2)
        >>> figure, ax = plt.subplots()
        >>> pk.plot_sweep(ds.sel(activation="relu"), ax=ax)[0, 0] is ax
        True
        >>> plt.close("all")
    """
    return _FIGURES[checks.choice("kind", kind, KINDS)](ds, ax).panels


def gradient(ds: Any, on: Any = None) -> Page:
    """Gradient magnitude against depth under each scheme: small multiples over activation and width.

    With a single depth, against layer, theory as a cross at the input. Points are medians over replicas, bars the
    middle 80 percent; lines are theory (the mean at this width where a law is known, else infinite width), dotted lines
    join points that have none.

    `on`: as in `Page`.
    """
    if ds.sizes.get("depth", 1) < 2 or "depth" not in axes(ds):
        return _profiles(ds, on)
    ds, note = settle(ds, "depth")
    ds, said = fit(ds, "depth")
    low, middle, high = (over_replicas(ds.signal_end_to_end, q) for q in (0.1, 0.5, 0.9))
    theory = _theory(ds)
    page, panels, legend = multiples(ds, "depth", on)
    edges: dict[str, None] = {}
    reach = np.nanmax(np.abs(middle.values[np.isfinite(middle.values)]), initial=4.0)
    for panel, at, lines in panels:
        panel.axhspan(VANISHING, EXPLODING, color="0.92", zorder=0)
        for i, (name, where) in enumerate(lines):
            x = ds.depth.values
            y, lower, upper = (part.isel({**at, **where}).values for part in (middle, low, high))
            zero, infinite = np.isneginf(y), np.isposinf(y)
            y = np.where(np.isfinite(y), y, np.nan)
            with np.errstate(invalid="ignore"):
                bars = np.nan_to_num(np.abs(np.stack([y - lower, upper - y])), nan=0.0, posinf=0.0)
            style = style_of(i)
            if theory is not None:
                expected = theory.isel({**at, **where}).values
                panel.plot(x, expected, color=style["color"], ls=style["ls"], lw=1.3, zorder=1)
                style["ls"] = "none" if np.isfinite(expected).any() else (0, (1, 4))
            (line, *_) = panel.errorbar(x, y, yerr=bars, **style, elinewidth=0.8, label=name)
            for edge, end, meaning in (
                (zero, -1.6 * reach, "at the lower edge: exactly zero"),
                (infinite, 1.6 * reach, "at the upper: inf"),
            ):
                if edge.any():
                    panel.plot(
                        x[edge],
                        np.full(edge.sum(), end),
                        MARKERS[i % 9],
                        color=line.get_color(),
                        mfc="none",
                        ms=4 + 1.5 * (i % 4),
                    )
                    edges[meaning] = None
            legend[name] = line
        if theory is not None:
            (legend["line: theory"],) = panel.plot([], [], color="0.4", lw=1.3)
        panel.set_xscale("log")
        panel.set_yscale("symlog", linthresh=EXPLODING, linscale=0.8)
        panel.set_yticks(ticks(2 * reach))
        panel.yaxis.set_major_formatter(signed)
        panel.set_ylim(-2 * reach, 2 * reach)
        panel.minorticks_off()
        tick_values(panel.xaxis, ds.depth.values)
    title = "Gradient against depth: medians over draws, bars from 10 to 90 %\ngrey: stable"
    title += "; lines: theory" if theory is not None else ""
    title += "; ".join(["", *edges])
    lost = not_shown(cells_without_a_number=int(np.isnan(middle.values).sum()))
    finish(page, legend, f"depth ({counted(ds)})", _SIGNAL, title + note + said + lost)
    return page


def _theory(ds: Any) -> Any:
    """The signal's decades that theory gives: the mean at this width where a law is known, else at infinite width; None
    without."""
    if "predicted_signal_end_to_end" not in ds:
        return None
    mean = ds.predicted_signal_end_to_end_mean
    return mean.where(np.isfinite(mean), ds.predicted_signal_end_to_end)


def _profiles(ds: Any, on: Any) -> Page:
    """Gradient against layer, for sweeps of one depth."""
    name = "log10_grad_activation"
    if f"{name}_mean" not in ds:
        raise ValueError(f"this sweep kept no profile of {name}: run it with profiles=True, or with several depths")
    ds, note = settle(ds, "layer")
    ds, said = fit(ds, "layer")
    theory, mark = _theory(ds), None
    page, panels, legend = multiples(ds, "layer", on)
    lost = 0
    for panel, at, lines in panels:
        for i, (label, where) in enumerate(lines):
            cell = ds.isel({**at, **where})
            y, spread, x = (
                cell[f"{name}_mean"].values.ravel(),
                cell[f"{name}_std"].values.ravel(),
                np.tile(ds.layer.values, cell.verdict.size),
            )
            lost += not np.isfinite(y).any()
            style = {**style_of(i), "markevery": max(1, len(x) // 8)}
            (legend[label],) = panel.plot(x, y, **style)
            panel.fill_between(x, y - spread, y + spread, color=style["color"], alpha=0.15, lw=0)
            if theory is None or cell.verdict.size > 1:
                continue
            expected = y[x == x[np.isfinite(y)].max(initial=0)] + theory.isel({**at, **where}).values.ravel()
            if np.isfinite(expected).all():
                bar = np.nan_to_num(cell.predicted_signal_end_to_end_std.values.ravel())
                cross = {
                    "color": "k",
                    "marker": "x",
                    "ms": 8,
                    "mew": 1.4,
                    "ls": "none",
                    "zorder": 5,
                    "elinewidth": 1.2,
                    "capsize": 4,
                }
                mark = panel.errorbar([x.min()], expected, yerr=bar, **cross)
    if mark is not None:
        legend["theory at the input, bar one standard deviation"] = mark
    place = "layer" if counted(ds) == "layers" else "block"
    title = f"Gradient against {place}: mean over draws, band one standard deviation"
    title += note + said + not_shown(chains_whose_gradients_are_zero_or_no_numbers=lost)
    finish(page, legend, place, "log10 of the gradient's norm", title)
    return page


def heat(ds: Any, on: Any = None) -> Page:
    """Decades of gradient over gain and depth, with contours at the verdict's bounds and the theory's critical gain.

    Raises:
        ValueError: if gain or depth is no axis of the sweep.
    """
    if not {"gain", "depth"} <= set(axes(ds)):
        raise ValueError("the heat map needs gain and depth as axes of the sweep")
    from matplotlib.colors import SymLogNorm

    ds, note = settle(ds, "gain", "depth")
    ds, said = fit(ds, "gain", "depth")
    others = [name for name in axes(ds) if name not in ("gain", "depth")]
    middle = over_replicas(ds.signal_end_to_end, 0.5)
    finite = middle.values[np.isfinite(middle.values)]
    reach = max(np.quantile(np.abs(finite), 0.95) if finite.size else 1.0, EXPLODING)
    # Even steps of colour inside the verdict's bounds, logarithmic beyond: the critical region is narrow.
    scale = SymLogNorm(linthresh=EXPLODING, vmin=-reach, vmax=reach)
    table = split(ds, others)
    rows, columns = len(table), len(table[0])
    height = 1.1 + (2.6 if rows < 4 else 1.8) * rows
    size = (max(2.4 + 2.7 * columns, 6), height)
    page = Page(on, table, size)
    panels = page.panels
    name_sides(page, table, 2.2)
    log = ds.depth.values.max() > 5 * ds.depth.values.min()
    for panel, (*_, where) in zip(panels.flat, (item for row in table for item in row), strict=True):
        z = middle.isel(where).transpose("depth", "gain").values
        z = np.where(np.isinf(z), np.sign(z) * 1e9, z)  # what is missing stays blank
        mesh = panel.pcolormesh(
            _edges(ds.gain.values, False), _edges(ds.depth.values, log), z, cmap="RdBu_r", norm=scale
        )
        panel.set_facecolor("0.8")
        for infinite, letter in ((-1e9, "0"), (1e9, r"\infty")):  # both ends of the colours are dark in grey
            i, j = np.nonzero(z == infinite)
            panel.scatter(ds.gain.values[j], ds.depth.values[i], 18, "w", marker=f"${letter}$", lw=0.1)
        if min(z.shape) > 1 and np.isfinite(z).any():
            lines = panel.contour(
                ds.gain.values,
                ds.depth.values,
                z,
                levels=[VANISHING, EXPLODING],
                colors="k",
                linestyles=["--", "-"],
                linewidths=1,
            )
            panel.clabel(lines, fmt=lambda level: f"{level:+g}", fontsize=7)
        critical = _critical(ds, where)
        if critical is not None and ds.gain.values.min() <= critical <= ds.gain.values.max():
            panel.axvline(critical, color="k", ls=":", lw=1.8)
        panel.set_yscale("log" if log else "linear")
        tick_values(panel.yaxis, ds.depth.values)
        panel.tick_params(labelsize=7)
    for panel in panels[-1]:
        panel.set_xlabel("gain", fontsize=9)
    for panel in panels[:, 0]:
        panel.set_ylabel(f"depth ({counted(ds)})", fontsize=9)
    bar = page.figure.colorbar(
        mesh, ax=panels, label=_SIGNAL, extend="both", ticks=ticks(reach), shrink=min(1.0, 4 / height), aspect=25
    )
    bar.ax.yaxis.set_major_formatter(signed)
    bar.ax.minorticks_off()
    title = (
        "Medians over draws; contours at the verdict's bounds (dashed: vanishing, solid: exploding)\ndotted: "
        "theory's critical gain"
    )
    title += "; 0: exactly zero" if np.isneginf(middle.values).any() else ""
    title += "; grey: no number" if np.isnan(middle.values).any() else ""
    page.title(title + note + said, 9)
    return page


def _edges(values: np.ndarray, log: bool) -> np.ndarray:
    """Edges of cells around increasing values, half way in the axis's own scale."""
    x = np.log(values) if log else values.astype(float)
    if len(x) == 1:
        x = np.array([x[0] - 0.5, x[0] + 0.5])
    else:
        middle = (x[1:] + x[:-1]) / 2
        x = np.concatenate([[2 * x[0] - middle[0]], middle, [2 * x[-1] - middle[-1]]])
    return np.exp(x) if log else x


def spread(ds: Any, on: Any = None) -> Page:
    """Standard deviation over draws of the gradient's decades against depth over width, with the finite-width laws.

    Gaussian chains, one input: the variance of the log of the squared norm is 2 L / n for linear chains and 5 L / n for
    ReLU (Hanin, Nica 2018, theorem 1), 3 L / n for orthogonal ReLU; a standard deviation in decades is half its root
    over ln 10.

    Raises:
        ValueError: if neither depth nor width is an axis of the sweep.
    """
    if not {"depth", "width"} & set(axes(ds)):
        raise ValueError("the spread needs depth or width as an axis of the sweep")
    ds, note = settle(ds, "depth", "width")
    names = axes(ds)
    from matplotlib.ticker import LogLocator, NullFormatter

    rest = [name for name in names if name not in ("depth", "width", "activation", "replicas")]
    for some, most in ((rest, MOST_LINES), ([name for name in names if name == "activation"], 9)):
        ds, said = cap(ds, some, most)
        note += said
    acts = list(ds.activation.values) if "activation" in names else [None]
    columns = min(3, len(acts))
    rows = -(-len(acts) // columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = ds.signal_end_to_end.where(np.isfinite(ds.signal_end_to_end))
        drawn = np.isfinite(values).sum("replica")
        enough = min(ENOUGH, int(drawn.max()))
        std = values.std("replica", ddof=1).where(drawn >= enough)
    if not (std > ROUNDING).any():
        raise ValueError(
            "no cell has a spread to show: it takes several draws of gradients that are neither zero nor infinite"
        )
    lost = not_shown(
        **{
            f"cells_with_fewer_than_{enough}_finite_draws": int((drawn < enough).sum()),
            "cells_whose_draws_all_agree": int((std <= ROUNDING).sum()),
        }
    )
    page = Page(on, [[None] * columns] * rows, (max(0.8 + 3.4 * columns, 5.5), 1.9 + 2.6 * rows))
    panels = page.panels
    ratio = ds.depth / ds.width
    laws = (("law: 5 L/n, ReLU", 5, "-"), ("law: 2 L/n, linear", 2, "--")) if counted(ds) == "layers" else ()
    legend: dict[str, Any] = {}
    for panel, act in zip(panels.flat, acts, strict=False):
        part = std if act is None else std.sel(activation=act)
        for i, (label, where) in enumerate(places(ds, rest)):
            y = part.isel(where)
            x, y = (a.values.ravel() for a in _broadcast(ratio, y))
            order = np.argsort(x)
            x, y = x[order], y[order]
            good = np.isfinite(y) & (y > ROUNDING)
            if good.any():
                (legend[label],) = panel.plot(x[good], y[good], **{**style_of(i), "ls": "none"})
        ends = np.array([float(ratio.min()), float(ratio.max())]) * ((0.7, 1.4) if ratio.size == 1 else (1, 1))
        for law, factor, dash in laws:
            (legend[law],) = panel.plot(ends, np.sqrt(factor * ends) / 2 / math.log(10), "k", ls=dash, lw=1.2)
        panel.set(xscale="log", yscale="log")
        for axis in (panel.xaxis, panel.yaxis):
            low, high = axis.get_view_interval()
            axis.set_major_locator(LogLocator(10, (1, 2, 5) if high < 300 * low else (1,), numticks=12))
            axis.set_major_formatter(lambda value, _: f"{value:.3g}")
            axis.set_minor_formatter(NullFormatter())
        if act is not None:
            panel.set_title(act, fontsize=9)
    for panel in panels.flat[len(acts) :]:
        panel.set_visible(False)
    for panel in panels[-1]:
        panel.set_xlabel("depth / width", fontsize=9)
    page.label_y("standard deviation over draws (decades)")
    page.legend({label: line for label, line in legend.items() if label != "all"})
    page.title(
        "Spread of the gradient over draws of the weights"
        + (", and the finite-width laws" if laws else "")
        + note
        + lost
    )
    return page


def verdict(ds: Any, on: Any = None) -> Page:
    """The verdict of every cell: letters on shades, small multiples over activation and width."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    x = "depth" if "depth" in axes(ds) else axes(ds)[-1]
    ds, note = settle(ds, x)
    rest = [name for name in axes(ds) if name != x]
    y = ["init"] if "init" in rest else rest[:1]
    down = sides([name for name in rest if name not in y])[1]
    # too many rows of panels: the longest axis joins the lines
    while down and math.prod(ds.sizes[name] for name in down) > MOST_ROWS:
        y.insert(0, max(down, key=lambda name: ds.sizes[name]))
        down.remove(y[0])
    across = sides([name for name in rest if name not in y])[0]
    for names, most in (([x], MOST_CELLS), (y, MOST_CELLS), (across, MOST_COLUMNS)):
        ds, said = cap(ds, names, most)
        note += said
    table = split(ds, [name for name in rest if name not in y])
    lines = [label for label, _ in places(ds, y)]
    steps = [word_of(v) for v in ds[x].values] if coordinates(ds, x) == [x] else [label for label, _ in places(ds, [x])]
    rows, columns = len(table), len(table[0])
    wide, beside = (
        max(1.6, 0.3 * ds.sizes[x]),
        0.068 * max(len(line) for line in (*lines, *(row for row, _ in places(ds, down)))),
    )
    below = 0.07 * max(map(len, steps))
    size = (
        max(0.9 + beside + wide * columns, 5),
        1.1 + below + rows * (0.3 + (0.24 if len(lines) < 12 else 0.16) * len(lines)),
    )
    page = Page(on, table, size)
    name_sides(page, table, wide)
    for row, line in zip(page.panels, table, strict=True):
        for panel, (*_, where) in zip(row, line, strict=True):
            part = ds.verdict.isel(where)
            words = part.transpose(*y, x).values.reshape(-1, ds.sizes[x])
            shades = np.array([[to_rgb(FILLS.get(word, "#dddddd")) for word in row] for row in words])
            panel.imshow(shades, aspect="auto", interpolation="nearest")
            for word in set(words.ravel()) - {"missing"}:
                i, j = np.nonzero(words == word)
                panel.scatter(j, i, 22, "w" if word == "dead" else "k", marker=f"${LETTERS.get(word, '?')}$", lw=0.1)
            panel.set_xlim(-0.5, words.shape[1] - 0.5)
            panel.set_ylim(words.shape[0] - 0.5, -0.5)
            panel.set_xticks(range(ds.sizes[x]), steps, fontsize=7, rotation=90)
            panel.set_yticks(range(len(lines)), lines if y else [""], fontsize=8 if len(lines) < 12 else 6.5)
            panel.tick_params(length=0)
    present = [word for word in LETTERS if (ds.verdict.values == word).any()]
    handles = [
        Patch(fc=FILLS.get(word, "#dddddd"), ec="0.5", label=word if word == "missing" else f"{LETTERS[word]}  {word}")
        for word in present
    ]
    page.legend({handle.get_label(): handle for handle in handles})
    for panel in page.panels[-1]:
        panel.set_xlabel(x, fontsize=8)
    page.title("Verdicts" + note, 9)
    return page


_FIGURES = {"gradient": gradient, "heat": heat, "spread": spread, "verdict": verdict}


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
    from matplotlib.figure import Figure

    if kind != "all" and kind not in KINDS:
        raise ValueError(f"kind must be all or one of {', '.join(KINDS)}, got {kind!r}")
    made = []
    for name in KINDS if kind == "all" else (kind,):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                figure = _FIGURES[name](ds, Figure()).figure  # nothing to close, and no window
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
            raise OSError(
                error.errno, f"{path} could not be written ({error.strerror}); --output DIR draws elsewhere"
            ) from error
        made.append(path)
    return made


def _critical(ds: Any, where: dict) -> float | None:
    """The theory's critical gain of the chains in a panel, over the panel's init; None where it has none."""
    from pykernel.theory.critical import critical_gain

    cell = ds.isel(dict(where.items()))
    if not {"activation", "init"} <= set(cell.coords):  # blocks say their own
        return None
    activation, init = str(cell.activation.item()), str(cell.init.item())
    scale = {"lecun_normal": 1.0, "orthogonal": 1.0, "he_normal": 2**0.5, "glorot_normal": 1.0}.get(init)
    if scale is None:
        return None
    bias = float(cell.coords["bias_std"].item() if "bias_std" in cell.coords else ds.attrs.get("base_bias_std", 0.0))
    try:
        gain = critical_gain(activation, bias_std=bias).gain
    except (AttributeError, ImportError, ValueError, TypeError):
        return None
    return None if gain is None or not np.isfinite(gain) else float(gain) / scale


def _broadcast(a: Any, b: Any) -> tuple:
    import xarray

    return xarray.broadcast(a, b)
