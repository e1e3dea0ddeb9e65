# SPDX-License-Identifier: BSD-3-Clause
"""A figure of a sweep: the map of verdicts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pykernel.plot.panels import (
    MOST_CELLS,
    MOST_COLUMNS,
    MOST_ROWS,
    Page,
    cap,
    name_sides,
    places,
    settle,
    sides,
    split,
    word_of,
)
from pykernel.sweeps.report import LETTERS, axes, coordinates

FILLS = {"stable": "#ffffff", "vanishing": "#9ecae1", "exploding": "#f4a582", "dead": "#636363"}


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
