# SPDX-License-Identifier: BSD-3-Clause
"""The page that a figure stands on, of one chain (a canvas) or of a sweep, and how its lines look."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#7A5195", "#8C564B")
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "<", "*")
DASHES = ("-", "--", "-.", ":")
DARK, GREY, BAND = "#000000", "#555555", "#bdd7ee"
TITLE = 9  # points
MOST_SAID = 110  # characters of a pattern: two lines of a title
ACROSS = 0.85  # of a figure's width is the axes', above which a title is centred


def style_of(i: int) -> dict[str, Any]:
    """Every other marker is larger and open: where two series coincide both are seen."""
    open_marker = {"mfc": "none", "ms": 6.5, "mew": 1.1} if i % 2 else {"ms": 3.5}
    return {"color": COLOURS[i % 9], "marker": MARKERS[i % 9], "ls": DASHES[i % 4], "lw": 1.3, **open_marker}


class Page:
    """What the panels of a figure stand on: a new pyplot figure, the figure given, or the caller's axes, which hold one
    panel.

    Args:
        on: None, a matplotlib Figure, or Axes.
        table: the panels by row, as `split` makes them.
        size: inches, of a figure.
    """

    def __init__(self, on: Any, table: list[list], size: tuple[float, float]) -> None:
        from matplotlib.axes import Axes

        rows, columns = len(table), len(table[0])
        self.figure: Any
        self.axes = on if isinstance(on, Axes) else None
        if self.axes is not None:
            if rows * columns > 1:
                raise ValueError(
                    f"this figure needs {rows} x {columns} panels and ax= is one: choose from the sweep by "
                    "ds.sel(...) first"
                )
            self.figure, self.panels = self.axes.figure, np.array([[self.axes]])
            return
        if on is None:
            import matplotlib.pyplot as plt

            self.figure = plt.figure(figsize=size, layout="constrained")
        else:
            self.figure = on
            self.figure.set_size_inches(size)
            self.figure.set_layout_engine("constrained")
        self.panels = self.figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)

    def label_y(self, text: str) -> None:
        """What all rows have up the side."""
        if self.axes is None:
            self.figure.supylabel(text, fontsize=9)
        else:
            self.axes.set_ylabel(text, fontsize=9)

    def legend(self, legend: dict) -> None:
        """Below a figure, in as many columns as it has room for; the figure grows to hold one."""
        if not legend:
            return
        if self.axes is not None:
            self.axes.legend(legend.values(), legend.keys(), fontsize=8, frameon=False)
            return
        need = (4.6 * max(map(len, legend)) + 40) / 72
        width, height = self.figure.get_size_inches()
        if need > width:
            self.figure.set_size_inches(need, height)
        columns = max(1, min(len(legend), int(width / need)))
        self.figure.legend(
            legend.values(), legend.keys(), loc="outside lower center", ncols=columns, fontsize=8, frameon=False
        )

    def title(self, text: str, size: int = 10) -> None:
        """The figure's title, wrapped to its width; the caller's axes have their own."""
        if self.axes is None:
            room = int(self.figure.get_size_inches()[0] * 72 / (0.52 * size))
            self.figure.suptitle(
                "\n".join(part for line in text.split("\n") for part in textwrap.wrap(line, room)), fontsize=size
            )


class Canvas:
    """Axes to draw on: the caller's, whose title and labels stay; those of a Page without (see there)."""

    def __init__(self, ax: Any) -> None:
        page = Page(ax, [[None]], (6.0, 4.0))
        self.own, self.ax = page.axes is None, page.panels[0, 0]

    def style(self, given: dict, **usual: Any) -> dict:
        """How the main line or area looks: the caller's keywords before ours. On the caller's axes colours take turns
        as in matplotlib."""
        from matplotlib import cbook
        from matplotlib.lines import Line2D

        given = cbook.normalize_kwargs(given, Line2D)
        if not self.own and "color" not in given:
            (next_line,) = self.ax.plot([], [])
            usual["color"] = next_line.get_color()
            next_line.remove()
        return usual | given

    def once(self, label: str) -> str:
        """A label that the legend shows once, however many chains are drawn on the axes."""
        return "_" + label if label in self.ax.get_legend_handles_labels()[1] else label

    def show_at_least(self, reach: float) -> None:
        """A range of the y axis that is no smaller, about what is drawn."""
        low, high = self.ax.get_ylim()
        if self.own and high - low < reach:
            self.ax.set_ylim((low + high - reach) / 2, (low + high + reach) / 2)

    def finish(self, x: str, y: str, title: str, **legend: Any) -> Any:
        ax = self.ax
        if self.own or not ax.get_xlabel():
            ax.set_xlabel(x)
        if self.own or not ax.get_ylabel():
            ax.set_ylabel(y)
        if self.own:
            room = int(ax.figure.get_size_inches()[0] * ACROSS * 72 / (0.55 * TITLE))
            ax.set_title(
                "\n".join(part for line in title.split("\n") for part in textwrap.wrap(line, room)), fontsize=TITLE
            )
        if ax.get_legend_handles_labels()[1]:
            ax.legend(fontsize=8, **{"framealpha": 0.8, "edgecolor": "none", **legend})
        return ax


def constant(p: Any) -> str:
    """What does not change in a figure of one chain; patterns too long for a title by their sizes."""
    chain = str(p.chain)
    if p.chain.blocks is not None and len(chain) > MOST_SAID:
        counts = p.chain.extents
        chain = f"{counts.node} blocks, {counts.layer} layers, from {p.chain.width} units"
    words = [chain, f"batch {p.batch}", *([f"{' x '.join(map(str, p.positions))} positions"] if p.positions else [])]
    words += [f"correlation {p.correlation:g}"] if p.correlation else []
    words += [f"the caller's own {', '.join(p.given)}"] if p.given else []
    words += ["plain arithmetic"] if p.precision == "native" else []
    words += [str(p.formats)] if getattr(p, "formats", None) is not None else []
    return "; ".join(words)


def medians(rows: np.ndarray) -> np.ndarray:
    """Medians over replicas of what is finite."""
    rows = np.where(np.isfinite(rows), rows, np.nan)
    some = ~np.isnan(rows).all(axis=0)
    middle = np.full(rows.shape[1], np.nan)
    middle[some] = np.nanmedian(rows[:, some], axis=0)
    return middle
