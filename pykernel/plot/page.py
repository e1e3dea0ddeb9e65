# SPDX-License-Identifier: BSD-3-Clause
"""The page that a figure stands on, of one chain or of a sweep, and how its lines look."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#7A5195", "#8C564B")
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "<", "*")
DASHES = ("-", "--", "-.", ":")


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
