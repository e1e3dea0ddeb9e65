# SPDX-License-Identifier: BSD-3-Clause
"""Figures of grids of odd shapes: all that fit are drawn, no words lie over one another, none lie outside."""

import itertools

import numpy as np
import pytest
from matplotlib.figure import Figure

import pykernel as pk
from pykernel.plot import sweeps as figures

LONG = pk.VarianceScaling(1.2345, "fan_avg", "truncated")
GRIDS = {
    "one cell": ({"depth": [5]}, {"width": 4}),
    "one axis": ({"gain": [0.5, 1.0, 2.0]}, {"depth": 6, "width": 4}),
    "chains": (
        [pk.Chain(depth=3, width=4), pk.Chain(widths=[5, 6, 7]), pk.Chain(depth=9, width=4, activation="tanh")],
        None,
    ),
    "zip": ({("width", "gain"): [(4, 1.0), (8, 2.0)], "depth": [3, 9]}, {}),
    "five axes": (
        {"depth": [3, 9], "width": [4, 8], "activation": ["tanh", "relu"], "gain": [0.5, 2.0], "bias_std": [0.0, 0.1]},
        {},
    ),
    "all dead": ({"depth": [3, 9], "width": [4, 8]}, {"gain": 0.0}),
    "thirty values": (
        {"gain": list(np.linspace(0.2, 3, 30)), "depth": list(range(2, 62, 2))},
        {"width": 4, "activation": "tanh"},
    ),
    "long names": (
        {"init": [LONG, "torch_linear_default"], "residual": [None, pk.Residual(2, 0.5)], "depth": [6, 12]},
        {"width": 4},
    ),
}


def texts(figure):
    """Every visible word with its place; contours' labels are drawn over the map on purpose."""
    figure.draw_without_rendering()
    found = [figure._suptitle, figure._supylabel, *(text for legend in figure.legends for text in legend.texts)]
    for panel in figure.axes:
        found += [panel.title, panel.xaxis.label, panel.yaxis.label]
        for axis in (panel.xaxis, panel.yaxis):
            low, high = sorted(axis.get_view_interval())
            inside = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            found += [tick.label1 for tick in inside if tick.label1.get_visible()]
        found += [text for text in panel.texts if not text.get_text().startswith(("+", "-"))]
    return [
        (text.get_text(), text.get_window_extent()) for text in found if text is not None and text.get_text().strip()
    ]


@pytest.mark.parametrize("name", GRIDS)
def test_words_have_room(name):
    grid, base = GRIDS[name]
    ds = pk.sweep(grid, base, replicas=4, progress=False)
    drawn = 0
    for kind in figures.KINDS:
        try:
            figure = getattr(figures, kind)(ds, Figure()).figure
        except ValueError:
            continue
        drawn += 1
        found = texts(figure)
        page = figure.bbox
        for text, box in found:
            assert (
                box.x0 >= page.x0 - 2 and box.x1 <= page.x1 + 2 and box.y0 >= page.y0 - 2 and box.y1 <= page.y1 + 2
            ), (kind, text)
        for (text, box), (other, beside) in itertools.combinations(found, 2):
            width = min(box.x1, beside.x1) - max(box.x0, beside.x0)
            height = min(box.y1, beside.y1) - max(box.y0, beside.y0)
            assert min(width, height) < 2, (kind, text, other)  # pixels; boxes have a rim
    assert drawn >= 2
