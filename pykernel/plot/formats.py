# SPDX-License-Identifier: BSD-3-Clause
"""Figures of a run with number formats: between which magnitudes signal and gradient lie, and what of them is lost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pykernel.plot.page import BAND, COLOURS, DARK, GREY, Canvas, constant, medians

WORDS = ("signal", "gradient")
FAR = 8.0  # decades beyond what is drawn from which a limit is left out: it would make all else flat


def _require_formats(p: Any, kind: str) -> None:
    if p.formats is None:
        raise ValueError(f"kind={kind!r} is for runs with formats, and this one has none")


def _blocks(p: Any) -> tuple[np.ndarray, str]:
    """Where lines lie, and what of."""
    return np.arange(1, p.chain.extents.node + 1), "layer l" if p.chain.blocks is None else "block"


def _span(p: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """log10 of the smallest and the largest magnitude that is neither zero nor inf, medians over replicas."""
    return medians(p.rows[f"log10_smallest_{what}"]), medians(p.rows[f"log10_largest_{what}"])


def magnitudes(p: Any, ax: Any = None, **line: Any) -> Any:
    """From the smallest to the largest magnitude of every node's signal and gradient, before they are rounded, and what
    their formats hold: nothing below half the smallest number survives, nothing beyond the largest fits.

    Args:
        p: `Propagation` with formats.  ax: matplotlib axes, made without.
        line: of the area of the gradient, whose colour its format's limits share.

    Returns:
        The axes.

    Raises:
        ValueError: a run without formats.
    """
    _require_formats(p, "magnitudes")
    canvas = Canvas(ax)
    ax = canvas.ax
    at, where = _blocks(p)
    style = canvas.style(line, color=BAND, label="gradient")
    own = style["color"] == BAND
    ax.fill_between(at, *_span(p, "gradient"), lw=0, **({} if own else {"alpha": 0.3}), **style)
    ends = {"color": GREY if own else style["color"], "ls": "--", "lw": 1.1, "marker": "^", "ms": 3.5}
    for row, label in zip(_span(p, "signal"), ("signal", None), strict=True):
        ax.plot(at, row, label=label and canvas.once(label), **ends, markevery=max(1, len(at) // 12))
        ends["marker"] = "v"
    colour = COLOURS[0] if own else style["color"]
    looks = {"signal": {"color": GREY, "ls": "-."}, "gradient": {"color": colour, "ls": "-"}}
    low, high = ax.get_ylim()
    for what in WORDS:
        row = p.formats.row(f"{what}s")
        if row is None:
            continue
        scale = p.formats.loss_scale if what == "gradient" else 1.0
        scaled = "" if scale == 1 else f" over {scale:g}"
        for limit in (row.largest, row.smallest_subnormal):
            height = math.log10(limit / scale)
            if low - FAR < height < high + FAR:
                label = canvas.once(f"ends of {row.name} for {what}s{scaled}")
                ax.axhline(height, lw=1.1, label=label, **looks[what])
    if canvas.own:  # room for the legend
        low, high = ax.get_ylim()
        ax.set_ylim(low, high + 0.4 * (high - low))
    title = f"{constant(p)}\nmedians over {p.replicas} replicas"
    return canvas.finish(where, r"log$_{10}$ of magnitudes", title, loc="upper left")


def lost(p: Any, ax: Any = None, prediction: Any = None, **line: Any) -> Any:
    """The shares of every node's numbers that are flushed to zero, and that overflow, by their rounding: medians over
    replicas, and theory dashed.

    Args:
        p: `Propagation` with formats.  ax: matplotlib axes, made without.  prediction: `Prediction` with these formats,
            left out without.  line: of the line of the flushed gradient.

    Returns:
        The axes.

    Raises:
        ValueError: a run without formats.
    """
    _require_formats(p, "lost")
    canvas = Canvas(ax)
    ax = canvas.ax
    at, where = _blocks(p)
    few = max(1, len(at) // 12)
    main = canvas.style(line, color=DARK, marker="o", markersize=3.5, linewidth=1.2, label="gradient, flushed")
    main = {"markevery": few, **main}
    others = (COLOURS[1], COLOURS[0], COLOURS[2]) if main["color"] == DARK else (main["color"],) * 3
    looks = {
        "flushed_gradient": main,
        "overflowed_gradient": {"color": others[0], "marker": "^", "ls": "-", "label": "gradient, overflowed"},
        "flushed_signal": {"color": others[1], "marker": "s", "ls": "-", "label": "signal, flushed"},
        "overflowed_signal": {"color": others[2], "marker": "v", "ls": "-", "label": "signal, overflowed"},
    }
    for name, look in looks.items():
        share = p.median(name)
        told = None if prediction is None or not prediction.rows[name].size else prediction.rows[name]
        if name != "flushed_gradient":
            if not share.any() and (told is None or not (told > 1e-3).any()):
                continue
            look = {"ms": 3.5, "mfc": "none", "lw": 1.2, "markevery": few, **look, "label": canvas.once(look["label"])}
        (drawn,) = ax.plot(at, share, **look)
        if told is not None:
            ax.plot(at, told, color=drawn.get_color(), ls=":", lw=1.4, label=canvas.once("theory"))
    if canvas.own:
        ax.set_ylim(-0.02, max(1.1 * ax.get_ylim()[1], 0.1))
    return canvas.finish(where, "share of a node's numbers", f"{constant(p)}\nmedians over {p.replicas} replicas")
