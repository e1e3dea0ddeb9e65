# SPDX-License-Identifier: BSD-3-Clause
"""Figures of one chain: gradient against layer, factors by layer, spread against its law; and the phase diagram.

They draw what they are handed (a `Propagation`, and a `Prediction` where one shall lie beside it), and compute nothing.

They read in greyscale: lines differ by dash and marker, bands by shade, regions by label.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pykernel import checks
from pykernel.plot import formats
from pykernel.plot.page import BAND, DARK, GREY, Canvas, constant, medians, style_of

_SHADE = {"cmap": "Greys", "shading": "nearest", "rasterized": True}


MOST_NAMED = 16  # layers that are called by their modules' names along an axis
LEAST = 1.0  # decades that an axis of decades shows, so that a flat line looks flat


def gradient(p: Any, ax: Any = None, prediction: Any = None, **line: Any) -> Any:
    """Log10 norm of dJ/da[l] against the layer: median and middle 80 percent of the replicas, theory and its band at
    this width.

    Args:
        p: `Propagation`.  ax: matplotlib axes, made without.  prediction: `Prediction`, left out without.
        line: of the median's line, as matplotlib's `plot` takes them; band and theory follow its colour.

    Returns:
        The axes.
    """
    canvas = Canvas(ax)
    ax = canvas.ax
    g = np.where(np.isneginf(p.log10_grad_activation), np.nan, p.log10_grad_activation)
    layer = np.arange(p.chain.extents.node + 1)
    low, middle, high = np.full((3, len(layer)), np.nan)
    some = ~np.isnan(g).all(axis=0)
    low[some], middle[some], high[some] = np.nanquantile(g[:, some], (0.1, 0.5, 0.9), axis=0)
    few = max(1, len(layer) // 12)
    style = canvas.style(
        line, color=DARK, marker="o", markersize=3.5, markevery=few, linewidth=1.2, label="measured, median"
    )
    plain = style["color"] == DARK
    band, grey = ({"color": BAND}, GREY) if plain else ({"color": style["color"], "alpha": 0.2}, style["color"])
    if p.replicas > 1:
        ax.fill_between(layer, low, high, lw=0, label=canvas.once(f"middle 80 % of {p.replicas} replicas"), **band)
    ax.plot(layer, middle, **style)
    if prediction is not None:
        theory = canvas.once("theory, infinite width")
        ax.plot(layer, prediction.log10_grad_activation, color=grey, ls="--", lw=1.4, label=theory)
        mean, std = prediction.log10_grad_activation_mean, prediction.log10_grad_activation_std
        if mean is not None:
            whose = "theory at this width" + (", one input" if p.batch > prediction.law_batch else "")
            ax.plot(layer, mean, color=grey, ls=":", lw=1.6, label=canvas.once(f"{whose}: mean"))
            for side, label in ((-1, canvas.once(f"{whose}: middle 80 %")), (1, None)):
                ax.plot(layer, mean + side * 1.2816 * std, color=grey, ls="-", lw=0.6, label=label)
    lost = int(np.isneginf(p.log10_grad_activation).any(axis=1).sum())
    if lost:
        note = f"the gradient is exactly zero in {lost} of {p.replicas} replicas: no line there"
        ax.text(0.02, 0.02, note, transform=ax.transAxes, fontsize=8)
    x = "layer l (0 is the input)" if p.chain.blocks is None else "block (0 is the input)"
    canvas.show_at_least(LEAST)
    return canvas.finish(x, r"log$_{10}$ norm of dJ/da[l]  (decades)", f"{constant(p)}\n{p.verdict}")


def weights(p: Any, ax: Any = None, **line: Any) -> Any:
    """Log10 norm of dJ/dW against the layer, of a chain of blocks a line for each layer of the pattern, by name:
    medians over replicas.

    Keywords are of the lines, or of the line of a chain of equal layers. Returns the axes.
    """
    canvas = Canvas(ax)
    y = r"log$_{10}$ norm of dJ/dW  (decades)"
    title = f"{constant(p)}\nmedians over {p.replicas} replicas"
    if p.chain.blocks is not None:
        _by_name(canvas, p.chain, p.layers, medians(p.log10_grad_weight), line)
        canvas.show_at_least(LEAST)
        return canvas.finish("block", y, title)
    style = canvas.style(
        line, color=DARK, marker="o", markersize=3.5, markevery=max(1, p.chain.depth // 12), linewidth=1.2
    )
    layers = np.arange(1, p.chain.depth + 1)
    canvas.ax.plot(layers, medians(p.log10_grad_weight), **style)
    canvas.show_at_least(LEAST)
    if canvas.own and p.chain.modules and len(layers) <= MOST_NAMED:
        canvas.ax.set_xticks(layers, p.chain.modules, rotation=30, ha="right")
        return canvas.finish("layer", y, title)
    return canvas.finish("layer l", y, title)


def _by_name(canvas: Canvas, chain: Any, names: tuple[str, ...], values: np.ndarray, line: dict, first: int = 0) -> int:
    """One line against the block for each name of the pattern, points for those of first and last; how many lines there
    are then."""
    lines = places_by_name(chain, names)
    for i, (label, (x, at)) in enumerate(lines.items(), first):
        y = values[at]
        canvas.ax.plot(x, y, **{**style_of(i), "markevery": max(1, len(x) // 12), "label": canvas.once(label), **line})
    return first + len(lines)


def places_by_name(chain: Any, names: tuple[str, ...]) -> dict[str, tuple[list[int], list[int]]]:
    """The lines of a row of a chain of blocks, one for each name of the pattern: blocks, and columns of the row."""
    lines: dict[str, tuple[list[int], list[int]]] = {}
    before, pattern = len(chain.first), len(chain.blocks)
    of_module: dict[str, list[str]] = {}
    modules = chain.modules if chain.modules and names == chain.layers else ("",) * len(names)
    for column, (name, module) in enumerate(zip(names, modules, strict=True)):
        block, _, role = name.partition(".")
        at = int(block) - 1 - before
        inside = 0 <= at < chain.depth * pattern
        label = name if not inside else f"{at % pattern + 1}.{role} of the pattern" if pattern > 1 else role
        x, columns = lines.setdefault(label, ([], []))
        x.append(int(block))
        columns.append(column)
        of_module.setdefault(label, []).append(module)
    return {_pattern(of_module[label]) or label: places for label, places in lines.items()}


def _pattern(modules: list[str]) -> str:
    """What the names of modules have in common, as layers.*.linear1; "" where they have no names, or of other forms."""
    parts = [name.split(".") for name in modules]
    if len(set(map(len, parts))) > 1 or not modules[0]:
        return ""
    return ".".join(own[0] if len(set(own)) == 1 else "*" for own in zip(*parts, strict=True))


def factors(p: Any, ax: Any = None, **line: Any) -> Any:
    """The chain rule taken apart: decades that the derivative of phi (with its norm) and the weights contribute at each
    layer.

    Of a chain of blocks a line for each layer and function of the pattern, by name. Keywords are of the line of both
    together, of blocks of the lines. Returns the axes.
    """
    canvas = Canvas(ax)
    ax = canvas.ax
    if p.chain.blocks is not None:
        drawn = _by_name(canvas, p.chain, p.layers, medians(p.log10_weight_factor), line)
        _by_name(canvas, p.chain, p.activations, medians(p.log10_derivative_factor), line, drawn)
        ax.axhline(0, color="0.7", lw=0.8, zorder=0)
        title = f"{constant(p)}\nmedians over {p.replicas} replicas"
        return canvas.finish("block", "decades contributed within the branch", title)
    style = canvas.style(line, color=DARK, linewidth=1.6, label="both")
    grey = GREY if style["color"] == DARK else style["color"]
    layer = np.arange(1, p.chain.depth + 1)
    few = max(1, len(layer) // 12)
    total = np.zeros(len(layer))
    for name, label, marker, dash in (
        ("log10_derivative_factor", "derivative of phi and norm", "v", "--"),
        ("log10_weight_factor", "weights", "^", "-."),
    ):
        decades = medians(p.rows[name])
        total = total + decades
        ax.plot(
            layer, decades, color=grey, ls=dash, marker=marker, ms=4, markevery=few, lw=1.1, label=canvas.once(label)
        )
    ax.plot(layer, total, **style)
    ax.axhline(0, color="0.7", lw=0.8, zorder=0)
    title = f"{constant(p)}\nmedians over {p.replicas} replicas"
    return canvas.finish("layer l", "decades contributed to the gradient norm", title)


def distribution(p: Any, ax: Any = None, prediction: Any = None, **line: Any) -> Any:
    """Histogram of the gradient's change end to end over replicas, against the normal law that finite-width theory
    gives.

    Keywords are colour and label of the histogram. Returns the axes.
    """
    canvas = Canvas(ax)
    ax = canvas.ax
    values = p.signal_end_to_end[np.isfinite(p.signal_end_to_end)]
    lost = p.replicas - len(values)
    label = f"{len(values)} replicas" + (f", {lost} exactly zero or no number" if lost else "")
    style = canvas.style(line, color=BAND, label=label)
    dark, grey = (DARK, GREY) if style["color"] == BAND else (style["color"],) * 2
    if len(values):
        bins = max(5, round(np.sqrt(len(values))))
        ax.hist(
            values,
            bins=bins,
            density=True,
            **{"edgecolor": "white", "linewidth": 0.5, "alpha": 1 if style["color"] == BAND else 0.4, **style},
        )
    if prediction is not None:
        std = prediction.signal_end_to_end_std
        if np.isfinite(std) and std > 0:
            mean = prediction.signal_end_to_end_mean
            x = np.linspace(mean - 4 * std, mean + 4 * std, 200)
            density = np.exp(-((x - mean) ** 2) / (2 * std**2)) / (std * np.sqrt(2 * np.pi))
            whose = ", one input" if p.batch > prediction.law_batch else ""
            ax.plot(
                x, density, color=dark, lw=1.4, label=canvas.once("normal law with theory's mean and deviation" + whose)
            )
        ax.axvline(
            prediction.signal_end_to_end, color=grey, ls="--", lw=1.4, label=canvas.once("theory, infinite width")
        )
    if canvas.own:
        ax.set_ylim(top=1.45 * ax.get_ylim()[1])
    words = "gradient norm at the input over that at the output  (decades)", "density over draws  (1/decade)"
    return canvas.finish(*words, constant(p), frameon=True, framealpha=0.9, edgecolor="none", loc="upper right")


def entropy(p: Any, ax: Any = None, **line: Any) -> Any:
    """Entropy of the attention weights against the block: median and middle 80 percent of the replicas, a line for each
    attention of the pattern, and the entropy of uniform attention.

    Keywords are of the lines. Returns the axes.

    Raises:
        ValueError: the chain has no attention.
    """
    if not p.attentions:
        raise ValueError("kind='entropy' is for chains with attention, and this one has none")
    canvas = Canvas(ax)
    ax = canvas.ax
    style = {} if canvas.own else canvas.style({})
    _by_name(canvas, p.chain, p.attentions, medians(p.attention_entropy), {**style, **line})
    blocks = [int(name.partition(".")[0]) for name in p.attentions]
    if p.replicas > 1 and len(set(blocks)) == len(blocks):
        low, high = np.quantile(p.attention_entropy, (0.1, 0.9), axis=0)
        whose = canvas.once(f"middle 80 % of {p.replicas} replicas")
        band = {"color": BAND} if canvas.own else {"color": style["color"], "alpha": 0.2}
        ax.fill_between(blocks, low, high, lw=0, zorder=0, label=whose, **band)
    for level in dict.fromkeys(p.uniform_entropy.tolist()):
        ax.axhline(level, color=GREY, ls=":", lw=1.2, label=canvas.once("uniform attention"))
    if canvas.own:  # from one key to all alike, or what lies just below all alike, but no noise as large as a figure
        most = max(p.uniform_entropy)
        reach = max(most - np.quantile(p.attention_entropy, 0.1), 0.05 * most) if most > 0 else 1.0
        ax.set_ylim(max(0.0, most - 1.3 * reach), most + 0.15 * reach)
    title = f"{constant(p)}\nmedians over {p.replicas} replicas"
    return canvas.finish("block", "entropy of the attention weights  (nats)", title)


CHAIN: dict[str, Callable[..., Any]] = {
    "gradient": gradient,
    "weights": weights,
    "factors": factors,
    "distribution": distribution,
    "entropy": entropy,
    "magnitudes": formats.magnitudes,
    "lost": formats.lost,
}


def propagation(p: Any, ax: Any, kind: str, prediction: Any = None, **line: Any) -> Any:
    """One of CHAIN, by name, with theory beside it where its figure shows any."""
    draw = CHAIN[checks.choice("kind", kind, tuple(CHAIN))]
    with_theory = draw in (gradient, distribution, formats.lost)
    return draw(p, ax, prediction, **line) if with_theory else draw(p, ax, **line)


def phase_diagram(d: Any, ax: Any = None, **mesh: Any) -> Any:
    """Decades a layer of the gradient norm over (sigma_w, sigma_b): contours, the critical line, and where signals run
    away.

    Keywords are those of matplotlib's `pcolormesh`. Returns the axes.
    """
    canvas = Canvas(ax)
    ax = canvas.ax
    with np.errstate(divide="ignore", invalid="ignore"):
        decades = np.where(np.isinf(d.q), np.nan, 0.5 * np.log10(d.chi_perp))
    x, y = d.sigma_w, d.sigma_b
    inside = np.isfinite(decades)
    if inside.any() and min(decades.shape) > 1:
        reach = float(np.clip(np.quantile(np.abs(decades[inside]), 0.85), 0.05, 1.0))
        shade = ax.pcolormesh(
            x, y, decades, **{**_SHADE, **({} if "norm" in mesh else {"vmin": -reach, "vmax": reach}), **mesh}
        )
        ax.figure.colorbar(shade, ax=ax, label="decades a layer of the gradient norm, backwards", extend="both")
        # black on white stands out from any grey
        ax.contour(x, y, decades, levels=[0.0], colors=["white"], linewidths=5)
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
    said = (
        r"weight scale $\sigma_w$ = standard deviation $\times\,\sqrt{\mathrm{fan\ in}}$",
        r"bias standard deviation $\sigma_b$",
        f"{d.activation}: gradient at the fixed point of an input of mean square 1, infinite width",
    )
    return canvas.finish(*said, frameon=True, loc="upper right")
