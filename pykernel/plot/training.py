# SPDX-License-Identifier: BSD-3-Clause
"""Figures of training: the loss step by step, and growth exponents in width against what is promised."""

from __future__ import annotations

from typing import Any

import numpy as np

from pykernel.plot.page import BAND, DARK, Canvas, style_of


def losses(t: Any, ax: Any = None, **line: Any) -> Any:
    """The loss against the step: median and middle 80 percent of the replicas, on a log scale where all are positive.

    Args:
        t: `Training`.  ax: matplotlib axes, made without.  line: of the median's line, as matplotlib takes them.

    Returns:
        The axes.
    """
    canvas = Canvas(ax)
    ax, step = canvas.ax, np.arange(t.steps + 1)
    loss = np.where(np.isfinite(t.loss), t.loss, np.nan)
    some = ~np.isnan(loss).all(axis=0)
    low, middle, high = np.full((3, len(step)), np.nan)
    low[some], middle[some], high[some] = np.nanquantile(loss[:, some], (0.1, 0.5, 0.9), axis=0)
    style = canvas.style(line, color=DARK, marker="o", markersize=3.5, linewidth=1.2, label="measured, median")
    band = {"color": BAND} if style["color"] == DARK else {"color": style["color"], "alpha": 0.2}
    if t.replicas > 1:
        ax.fill_between(step, low, high, lw=0, label=canvas.once(f"middle 80 % of {t.replicas} replicas"), **band)
    ax.plot(step, middle, **style)
    if (loss[:, some] > 0).all():
        ax.set_yscale("log")
    title = f"{t.chain}; batch {t.batch}; rate {t.rate:g}, {t.parametrization} parametrization"
    return canvas.finish("step", "loss", title)


def exponents(c: Any, ax: Any = None, of: str = "change") -> Any:
    """Growth exponents in width against the layer, a line a step, with errors, and what the parametrization promises.

    Args:
        c: `CoordinateCheck`.  ax: matplotlib axes, made without.  of: "change" or "size".

    Returns:
        The axes.
    """
    canvas = Canvas(ax)
    ax, place = canvas.ax, np.arange(len(c.layers))
    measured, errors, promised = getattr(c, of), getattr(c, f"{of}_error"), getattr(c, f"{of}_promised")
    first = 1 if of == "change" else 0
    for i, (values, bars) in enumerate(zip(measured, errors, strict=True)):
        ax.errorbar(place, values, bars, capsize=2, label=f"step {i + first}", **style_of(i))
    ax.plot(place, promised, color=DARK, ls=":", lw=2.0, label=f"{c.parametrization}, promised")
    ax.set_xticks(place, c.layers, rotation=45 if len(place) > 4 else 0)
    widths = ", ".join(map(str, c.widths))
    beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if canvas.own else {}  # over bars it would cover some
    title = f"{c.chain}; widths {widths}; rate {c.rate:g}, {c.parametrization} parametrization"
    return canvas.finish("layer", f"exponent in width of {'a change' if of == 'change' else 'a size'}", title, **beside)
