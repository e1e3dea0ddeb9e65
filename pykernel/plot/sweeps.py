# SPDX-License-Identifier: BSD-3-Clause
"""Figures of a sweep: gradient against depth, decades over gain and depth, spread against depth over width, map of
verdicts.

Every figure reads in greyscale: lines differ by marker and dash, areas by letter and contour.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pykernel import checks, files
from pykernel.plot.sweep_gradient import gradient
from pykernel.plot.sweep_heat import heat
from pykernel.plot.sweep_spread import spread
from pykernel.plot.sweep_verdict import verdict

KINDS = ("gradient", "heat", "spread", "verdict")


def plot_sweep(ds: Any, kind: str = "gradient", ax: Any = None) -> np.ndarray:
    """A figure of a sweep: it shows in a notebook, in a script by `plt.show()`. `pykernel plot` draws the same into
    files.

    Args:
        ds: what `sweep` or `open` returned, or a part of it by `ds.sel(...)`.
        kind: "gradient" (against depth, or against layer in a sweep of one depth), "heat" (over gain and depth),
            "spread" (over draws, against depth over width) or "verdict" (of every cell).
        ax: matplotlib axes to draw on, whose title stays, where one panel is enough; a new pyplot figure without.

    Returns:
        The axes of the panels, a NumPy array (rows, columns).

    Raises:
        ValueError: another kind, one that does not fit the grid, or `ax` where it takes several panels.

    Examples:
        >>> import matplotlib.pyplot as plt
        >>> import pykernel as pk
        >>> grid = {"depth": [5, 10], "activation": ["relu", "tanh"]}
        >>> ds = pk.sweep(grid, {"width": 16}, replicas=4, progress=False)
        >>> pk.plot_sweep(ds).shape
        (1, 2)
        >>> figure, ax = plt.subplots()
        >>> pk.plot_sweep(ds.sel(activation="relu"), ax=ax)[0, 0] is ax
        True
        >>> plt.close("all")
    """
    return _FIGURES[checks.choice("kind", kind, KINDS)](ds, ax).panels


_FIGURES = {"gradient": gradient, "heat": heat, "spread": spread, "verdict": verdict}


def save(ds: Any, directory: str | Path, kind: str = "all", form: str = "png") -> list[Path]:
    """Draw figures into a directory, each as `<kind>.<form>`.

    Args:
        ds: what `sweep` or `open` returned.
        directory: where to.
        kind: "all" draws what fits the grid; or one of KINDS.
        form: "png", "svg" or "pdf".

    Returns:
        The files written.

    Raises:
        ValueError: for an unknown kind, or one that does not fit the grid.
    """
    from matplotlib.figure import Figure

    if kind != "all" and kind not in KINDS:
        raise ValueError(f"kind must be all or one of {', '.join(KINDS)}, got {kind!r}")
    made = []
    for name in KINDS if kind == "all" else (kind,):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                figure = _FIGURES[name](ds, Figure()).figure  # nothing to close, and no window
        except ValueError:
            if kind != "all":
                raise
            continue
        path = Path(directory) / f"{name}.{form}"
        with files.whole(path, "--output DIR draws elsewhere") as temporary:
            figure.savefig(temporary, dpi=130, format=form)
        made.append(path)
    return made
