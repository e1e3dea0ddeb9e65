# SPDX-License-Identifier: BSD-3-Clause
"""How figures of a sweep are laid out: which axes become columns, rows and lines, what is left out, and how it is
said."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np

from pykernel.plot.page import Page
from pykernel.sweeps.report import USUAL, axes, coordinates
from pykernel.verdict import EXPLODING, VANISHING

_UNSAID = ("engine", "backend", "dtype", "norm_eps", "seed", "depth")  # in titles, being no matter of the numbers
SIGNAL = "decades of gradient, input over output"  # what an axis or a colour bar says
# in one panel; of panels; along one side of the map of verdicts
MOST_LINES, MOST_ROWS, MOST_COLUMNS, MOST_CELLS = 9, 6, 8, 42


def ticks(reach: float) -> list[float]:
    """Ticks of a symmetric logarithmic axis: the verdict's bounds, and powers of ten beyond."""
    powers = [10.0**k for k in range(1, math.ceil(math.log10(reach)) if reach > 10 else 1)]
    digit = 10.0 ** math.floor(math.log10(reach))
    last = math.floor(reach / digit) * digit
    powers += [last] if last > 1.5 * (powers[-1] if powers else EXPLODING) else []
    return [-p for p in reversed(powers)] + [VANISHING, 0.0, EXPLODING, *powers]


def signed(value: float, _: Any) -> str:
    return f"{value:+g}" if value else "0"


def over_replicas(values: Any, level: float) -> Any:
    """A quantile over replicas that is an order statistic, so that exact zeros (-inf) stay zeros."""
    ordered = np.sort(values.values, axis=-1)
    count = (~np.isnan(ordered)).sum(axis=-1)
    at = np.clip(np.round(level * (count - 1)).astype(int), 0, None)
    return values.isel(replica=0, drop=True).copy(data=np.take_along_axis(ordered, at[..., None], axis=-1)[..., 0])


def places(ds: Any, names: list[str]) -> Iterator[tuple[str, dict]]:
    """Every combination along some axes: its label and where it is."""
    for where in np.ndindex(*(ds.sizes[name] for name in names)):
        at = dict(zip(names, where, strict=True))
        words = [say(word, ds[word].values[i]) for name, i in at.items() for word in coordinates(ds, name)]
        yield ", ".join(words) or "all", at


def counted(ds: Any) -> str:
    """What depth counts: layers, or repetitions of a pattern of blocks."""
    return "repetitions" if "repetition" in ds.slope.attrs.get("units", "") else "layers"


def word_of(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)


def settle(ds: Any, *whole: str) -> tuple[Any, str]:
    """A sweep without the axes of one value, and what the figure's title must say of it all.

    Args:
        whole: axes that stay even so.
    """
    notes = []
    if not ds.attrs.get("complete", 1):
        notes.append(
            f"UNFINISHED: {int(ds.replicas.sum())} draws so far, {int((ds.verdict == 'missing').sum())} cells "
            "without any"
        )
    ds = ds.isel({name: 0 for name in axes(ds) if ds.sizes[name] == 1 and name not in whole})
    words = [word for word in ("activation", "init", *ds.coords) if word in ds.coords and ds[word].ndim == 0]
    fixed = [say(word, ds[word].item()) for word in dict.fromkeys(words)] + _everywhere(ds)
    return ds, "".join("\n" + note for note in ([", ".join(fixed)] if fixed else []) + notes)


def _everywhere(ds: Any) -> list[str]:
    """What the sweep's base and run say of all cells, where it is not what a chain has without being told."""
    said = []
    for key, value in ds.attrs.items():
        part, _, word = key.partition("_")
        if part not in ("base", "run") or word in ds.coords or word in _UNSAID or value == USUAL.get(word, ""):
            continue
        said.append(say(word, value) if word != "norm" else f"{value} norm")
    return said


def not_shown(**counts: int) -> str:
    """What the figure's title says of cells that it has no place for."""
    said = [f"{count} {what.replace('_', ' ')}" for what, count in counts.items() if count]
    return "\nnot shown: " + ", ".join(said) if said else ""


def cap(ds: Any, names: list[str], most: int) -> tuple[Any, str]:
    """A sweep with at most so many combinations of values along these axes, evenly spread, and what the figure must say
    of it."""
    kept = {name: ds.sizes[name] for name in names}
    while math.prod(kept.values()) > most:
        kept[max(kept, key=lambda name: kept[name])] -= 1
    said = [
        f"{n} of {ds.sizes[name]} values of {'/'.join(coordinates(ds, name))}"
        for name, n in kept.items()
        if n < ds.sizes[name]
    ]
    at = {
        name: np.unique(np.linspace(0, ds.sizes[name] - 1, n).round().astype(int))
        for name, n in kept.items()
        if n < ds.sizes[name]
    }
    return ds.isel(at), "\nshown: " + ", ".join(said) if said else ""


def fit(ds: Any, *taken: str) -> tuple[Any, str]:
    """A sweep cut to the lines, columns and rows of panels that a figure of small multiples can show."""
    lines = lines_of(ds, taken[0]) if len(taken) == 1 else []
    across, down = sides([name for name in axes(ds) if name not in (*taken, *lines)])
    said = ""
    for names, most in ((lines, MOST_LINES), (across, MOST_COLUMNS), (down, MOST_ROWS)):
        ds, more = cap(ds, names, most)
        said += f", {more.removeprefix(chr(10) + 'shown: ')}" if said and more else more
    return ds, said


def lines_of(ds: Any, x: str) -> list[str]:
    """The axis whose values are lines in one panel."""
    rest = [name for name in axes(ds) if name != x]
    return [name for name in rest if name == "init"] or [name for name in rest if name not in ("activation", "width")][
        -1:
    ]


def say(word: str, value: Any) -> str:
    """A value along an axis, named unless it names itself."""
    return word_of(value) if word in ("init", "activation", "blocks") else f"{word} {word_of(value)}"


def name_sides(page: Page, table: list[list[tuple[str, str, dict]]], width: float) -> None:
    """Columns of panels bear their value on top, rows theirs at the right: each is said once, in panels so many inches
    wide."""
    if page.axes is not None:
        return
    for panel, (column, _, _) in zip(page.panels[0], table[0], strict=True):
        panel.set_title("\n".join(textwrap.wrap(column, int(width * 72 / 4.9))), fontsize=9)
    for line, (_, row, _) in zip(page.panels, (row[-1] for row in table), strict=True):
        line[-1].annotate(
            row.replace(", ", "\n"), (1, 0.5), (5, 0), "axes fraction", "offset points", va="center", fontsize=8
        )


def tick_values(axis: Any, values: np.ndarray) -> None:
    """Ticks at the swept values, or at as many of them as have room, the first and the last among them."""
    at = np.log(values) if axis.get_scale() == "log" else np.asarray(values, dtype=float)
    order = np.argsort(at)
    gap, kept = 0.085 * (at.max() - at.min()), [order[0]]
    for i in order[1:]:
        if at[i] - at[kept[-1]] >= gap:
            kept.append(i)
    if kept[-1] != order[-1]:
        kept[-1] = order[-1]
    axis.set_ticks(values[kept], [word_of(v) for v in values[kept]])
    axis.set_ticks([], minor=True)


def sides(names: list[str]) -> tuple[list[str], list[str]]:
    """Axes of small multiples: across (activation), and down (the rest)."""
    across = [name for name in names if name == "activation"] or names[:1]
    return across, [name for name in names if name not in across]


def split(ds: Any, names: list[str]) -> list[list[tuple[str, str, dict]]]:
    """The panels of small multiples by row: what its column and its row are called, and where it is."""
    across, down = sides(names)
    return [
        [
            ("" if column == "all" else column, "" if row == "all" else row, {**below, **at})
            for column, at in places(ds, across)
        ]
        for row, below in places(ds, down)
    ]


def multiples(ds: Any, x: str, on: Any) -> tuple[Page, list, dict]:
    """A page of panels over activation and the rest, with lines over init: [(panel, where, [(label, where)])]."""
    lines = lines_of(ds, x)
    table = split(ds, [name for name in axes(ds) if name not in (x, *lines)])
    rows, columns = len(table), len(table[0])
    size = (max(1.8 + 2.4 * columns, 5.5), 1.6 + (2.3 if rows < 4 else 1.7) * rows)
    page = Page(on, table, size)
    name_sides(page, table, 2.3)
    panels = [
        (panel, where, list(places(ds, lines)))
        for row, line in zip(page.panels, table, strict=True)
        for panel, (*_, where) in zip(row, line, strict=True)
    ]
    return page, panels, {}


def finish(page: Page, legend: dict, x: str, y: str, title: str) -> None:
    for panel in page.panels.flat:
        panel.grid(True, color="0.88", lw=0.5)
        panel.tick_params(labelsize=7)
    for panel in page.panels[-1]:
        panel.set_xlabel(x, fontsize=8)
    page.label_y(y)
    legend.pop("all", None)
    page.legend(legend)
    page.title(title)
