# SPDX-License-Identifier: BSD-3-Clause
"""A figure of a sweep: decades of gradient over gain and depth."""

from __future__ import annotations

from typing import Any

import numpy as np

from pykernel.plot.panels import (
    SIGNAL,
    Page,
    counted,
    fit,
    name_sides,
    over_replicas,
    settle,
    signed,
    split,
    tick_values,
    ticks,
)
from pykernel.sweeps.report import axes
from pykernel.verdict import EXPLODING, VANISHING


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
        mesh = _shade(panel, ds, middle.isel(where).transpose("depth", "gain").values, log, scale)
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
        mesh, ax=panels, label=SIGNAL, extend="both", ticks=ticks(reach), shrink=min(1.0, 4 / height), aspect=25
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


def _shade(panel: Any, ds: Any, z: np.ndarray, log: bool, scale: Any) -> Any:
    """Draw the decades of a panel, (depth, gain), and contours at the verdict's bounds."""
    z = np.where(np.isinf(z), np.sign(z) * 1e9, z)  # what is missing stays blank
    mesh = panel.pcolormesh(_edges(ds.gain.values, False), _edges(ds.depth.values, log), z, cmap="RdBu_r", norm=scale)
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
    return mesh


def _edges(values: np.ndarray, log: bool) -> np.ndarray:
    """Edges of cells around increasing values, half way in the axis's own scale."""
    x = np.log(values) if log else values.astype(float)
    if len(x) == 1:
        x = np.array([x[0] - 0.5, x[0] + 0.5])
    else:
        middle = (x[1:] + x[:-1]) / 2
        x = np.concatenate([[2 * x[0] - middle[0]], middle, [2 * x[-1] - middle[-1]]])
    return np.exp(x) if log else x


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
