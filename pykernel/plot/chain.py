# SPDX-License-Identifier: BSD-3-Clause
"""Figures of one chain: gradient against layer, factors by layer, spread against its law; and the phase diagram.

They draw what they are handed (a `Propagation`, and a `Prediction` where one shall lie beside it), and compute nothing.

They read in greyscale: lines differ by dash and marker, bands by shade, regions by label.
"""

from __future__ import annotations

from typing import Any

import numpy as np

DARK, GREY, BAND, THEORY_BAND = "#000000", "#555555", "#bdd7ee", "#e3e3e3"


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(6.0, 4.0), layout="constrained").subplots()


def gradient(p: Any, ax: Any = None, prediction: Any = None) -> Any:
    """Log10 norm of dJ/da[l] against the layer: median and middle 80 percent of the replicas, theory and its band at this width.

    Args:
        p: `Propagation`.  ax: matplotlib axes, made without.  prediction: `Prediction`, left out without.

    Returns:
        The axes.
    """
    ax = _axes(ax)
    g = np.where(np.isneginf(p.log10_grad_activation), np.nan, p.log10_grad_activation)
    layer = np.arange(p.chain.depth + 1)
    low, middle, high = np.full((3, len(layer)), np.nan)
    some = ~np.isnan(g).all(axis=0)
    low[some], middle[some], high[some] = np.nanquantile(g[:, some], (0.1, 0.5, 0.9), axis=0)
    if p.replicas > 1:
        ax.fill_between(layer, low, high, color=BAND, lw=0, label=f"middle 80 % of {p.replicas} replicas")
    few = max(1, len(layer) // 12)
    ax.plot(layer, middle, color=DARK, marker="o", ms=3.5, markevery=few, lw=1.2, label="measured, median")
    if prediction is not None:
        ax.plot(layer, prediction.log10_grad_activation, color=GREY, ls="--", lw=1.4, label="theory, infinite width")
        mean, std = prediction.log10_grad_activation_mean, prediction.log10_grad_activation_std
        if mean is not None:
            whose = "theory at this width" + (", one input" if p.batch > prediction.law_batch else "")
            ax.plot(layer, mean, color=GREY, ls=":", lw=1.6, label=f"{whose}: mean")
            for side, label in ((-1, f"{whose}: middle 80 %"), (1, None)):
                ax.plot(layer, mean + side * 1.2816 * std, color=GREY, ls="-", lw=0.6, label=label)
    lost = int(np.isneginf(p.log10_grad_activation).any(axis=1).sum())
    if lost:
        note = f"the gradient is exactly zero in {lost} of {p.replicas} replicas: no line there"
        ax.text(0.02, 0.02, note, transform=ax.transAxes, fontsize=8)
    ax.set_xlabel("layer l (0 is the input)")
    ax.set_ylabel(r"log$_{10}$ norm of dJ/da[l]  (decades)")
    ax.set_title(f"{p.chain}\n{p.verdict}", fontsize=9)
    ax.legend(fontsize=8, frameon=False)
    return ax


def factors(p: Any, ax: Any = None) -> Any:
    """The chain rule taken apart: decades that the derivative of phi (with its norm) and the weights contribute at each layer. Returns the
    axes.
    """
    ax = _axes(ax)
    layer = np.arange(1, p.chain.depth + 1)
    few = max(1, len(layer) // 12)
    total = np.zeros(len(layer))
    for name, label, marker, dash in (
        ("log10_derivative_factor", "derivative of phi and norm", "v", "--"),
        ("log10_weight_factor", "weights", "^", "-."),
    ):
        rows = np.where(np.isfinite(p.rows[name]), p.rows[name], np.nan)
        some = ~np.isnan(rows).all(axis=0)
        middle = np.full(len(layer), np.nan)
        middle[some] = np.nanmedian(rows[:, some], axis=0)
        total = total + middle
        ax.plot(layer, middle, color=GREY, ls=dash, marker=marker, ms=4, markevery=few, lw=1.1, label=label)
    ax.plot(layer, total, color=DARK, lw=1.6, label="both")
    ax.axhline(0, color="0.7", lw=0.8, zorder=0)
    ax.set_xlabel("layer l")
    ax.set_ylabel("decades contributed to the gradient norm")
    ax.set_title(f"{p.chain}: medians over {p.replicas} replicas", fontsize=9)
    ax.legend(fontsize=8, frameon=False)
    return ax


def distribution(p: Any, ax: Any = None, prediction: Any = None) -> Any:
    """Histogram of the gradient's change end to end over replicas, against the normal law that finite-width theory gives. Returns the
    axes.
    """
    ax = _axes(ax)
    values = p.signal_end_to_end[np.isfinite(p.signal_end_to_end)]
    lost = p.replicas - len(values)
    if len(values):
        bins = max(5, round(np.sqrt(len(values))))
        ax.hist(
            values,
            bins=bins,
            density=True,
            color=BAND,
            edgecolor="white",
            lw=0.5,
            label=f"{len(values)} replicas" + (f", {lost} exactly zero" if lost else ""),
        )
    if prediction is not None:
        std = prediction.signal_end_to_end_std
        if np.isfinite(std) and std > 0:
            mean = prediction.signal_end_to_end_mean
            x = np.linspace(mean - 4 * std, mean + 4 * std, 200)
            density = np.exp(-((x - mean) ** 2) / (2 * std**2)) / (std * np.sqrt(2 * np.pi))
            whose = ", one input" if p.batch > prediction.law_batch else ""
            ax.plot(x, density, color=DARK, lw=1.4, label="normal law with theory's mean and deviation" + whose)
        ax.axvline(prediction.signal_end_to_end, color=GREY, ls="--", lw=1.4, label="theory, infinite width")
    ax.set_ylim(top=1.45 * ax.get_ylim()[1])
    ax.set_xlabel("gradient norm at the input over that at the output  (decades)")
    ax.set_ylabel("density over draws  (1/decade)")
    ax.set_title(str(p.chain), fontsize=9)
    ax.legend(fontsize=8, framealpha=0.9, edgecolor="none", loc="upper right")
    return ax


def phase_diagram(d: Any, ax: Any = None) -> Any:
    """Decades a layer of the gradient norm over (sigma_w, sigma_b): contours, the critical line, and where signals run away. Returns the
    axes.
    """
    ax = _axes(ax)
    with np.errstate(divide="ignore", invalid="ignore"):
        decades = np.where(np.isinf(d.q), np.nan, 0.5 * np.log10(d.chi_perp))
    x, y = d.sigma_w, d.sigma_b
    inside = np.isfinite(decades)
    if inside.any() and min(decades.shape) > 1:
        reach = float(np.clip(np.quantile(np.abs(decades[inside]), 0.85), 0.05, 1.0))
        shade = ax.pcolormesh(x, y, decades, cmap="Greys", vmin=-reach, vmax=reach, shading="nearest", rasterized=True)
        ax.figure.colorbar(shade, ax=ax, label="decades a layer of the gradient norm, backwards", extend="both")
        ax.contour(x, y, decades, levels=[0.0], colors=["white"], linewidths=5)  # black on white stands out from any grey
        lines = ax.contour(x, y, decades, levels=[0.0], colors=[DARK], linewidths=2)
        if lines.get_paths() and any(len(path.vertices) for path in lines.get_paths()):
            ax.plot([], [], color=DARK, lw=2, label="critical: gradients keep their size")
    runs = np.isinf(d.q)
    if runs.any():
        ax.contourf(x, y, runs.astype(float), levels=[0.5, 1.5], hatches=["///"], colors="none")
        ax.fill_between([], [], [], facecolor="none", edgecolor="black", hatch="///", label="signals grow without end")
    for name, words in (("ordered", "vanishing\n(ordered)"), ("chaotic", "exploding\n(chaotic)")):
        where = np.argwhere(d.phase == name)
        if len(where) > 0.05 * d.phase.size:
            row, column = np.median(where, axis=0).astype(int)
            ax.text(
                x[column],
                y[row],
                words,
                ha="center",
                va="center",
                fontsize=9,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75},
            )
    ax.set_xlabel(r"weight scale $\sigma_w$ = standard deviation $\times\,\sqrt{\mathrm{fan\ in}}$")
    ax.set_ylabel(r"bias standard deviation $\sigma_b$")
    ax.set_title(f"{d.activation}: gradient at the fixed point", fontsize=9)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, loc="upper right")
    return ax
