# SPDX-License-Identifier: BSD-3-Clause
"""A figure of a sweep: spread over draws against depth over width."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from pykernel.plot.page import style_of
from pykernel.plot.panels import (
    MOST_LINES,
    Page,
    cap,
    counted,
    not_shown,
    places,
    settle,
)
from pykernel.sweeps.report import axes

ENOUGH = 4  # draws that a standard deviation is shown of, where some cells have as many
ROUNDING = 1e-5  # decades: below it a spread is float32's, not the weights'


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
    std, lost = _deviation(ds)
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


def _deviation(ds: Any) -> tuple[Any, str]:
    """The standard deviation over draws where there are enough of them, and what is not shown."""
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
    return std, lost


def _broadcast(a: Any, b: Any) -> tuple:
    import xarray

    return xarray.broadcast(a, b)
