# SPDX-License-Identifier: BSD-3-Clause
"""Figures of a sweep: gradient against depth, or against layer where there is one depth."""

from __future__ import annotations

from typing import Any

import numpy as np

from pykernel.plot.page import MARKERS, style_of
from pykernel.plot.panels import (
    SIGNAL,
    Page,
    counted,
    finish,
    fit,
    multiples,
    not_shown,
    over_replicas,
    settle,
    signed,
    tick_values,
    ticks,
)
from pykernel.sweeps.report import axes
from pykernel.verdict import EXPLODING, VANISHING


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
    finish(page, legend, f"depth ({counted(ds)})", SIGNAL, title + note + said + lost)
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
