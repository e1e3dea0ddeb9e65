# SPDX-License-Identifier: BSD-3-Clause
"""Phase diagrams of a sweep's or a network's activation functions, with its schemes as points on them."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np

from pykernel import activations, inits
from pykernel.distributions import unit_variance
from pykernel.theory.phases import PhaseDiagram, phase_diagram
from pykernel.webpage.document import plain

ACROSS, DOWN = 45, 19  # weight and bias scales
WIDEST = 4.0  # of the weight scale at first; schemes beyond widen it
MOST = 12  # functions


def functions(ds: Any) -> list[str]:
    """The built-in activation functions of a sweep of plain chains (no norm, no skip, no blocks), of which the diagram
    speaks."""
    common = {key.partition("_")[2]: value for key, value in ds.attrs.items() if key.startswith("base_")}
    words = {str(word) for word in ds.coords} | set(common)
    if words & {"blocks", "norm", "residual", "widths"} or common.get("order", "linear-norm").startswith("norm"):
        return []
    if "activation" in ds.coords:
        values = np.atleast_1d(ds["activation"].values).tolist()
    else:
        values = [common["activation"]] if "activation" in common else []
    found = []
    for name in dict.fromkeys(values):
        with contextlib.suppress(TypeError, ValueError):  # a user's own, of which a store knows the name only
            activations.get(name)
            found.append(name)
    return found[:MOST]


def points(ds: Any) -> list[tuple[str, float, float, str]]:
    """The sweep's schemes on the diagram: name, weight scale, bias scale, and what is said of the point."""
    common = {key.partition("_")[2]: value for key, value in ds.attrs.items() if key.startswith("base_")}
    column = lambda word, usual: (
        np.atleast_1d(ds[word].values).tolist() if word in ds.coords else [common.get(word, usual)]
    )
    found: dict[tuple, dict[str, None]] = {}
    for init in dict.fromkeys(column("init", "he_normal")):
        for gain in column("gain", 1.0):
            for bias in column("bias_std", 0.0):
                for width in column("width", None):
                    scale = weight_scale(init, width, gain)
                    if scale is None or isinstance(bias, str):
                        continue
                    place = float(f"{scale:.6g}"), float(str(bias))  # schemes that coincide are one point
                    said = str(init) if gain == 1 else f"{init}, gain {gain:g}"
                    found.setdefault(place, {}).setdefault(said)
    return [(_together(list(names)), *place, ", ".join(names)) for place, names in found.items()]


def _together(names: list[str]) -> str:
    """Few names of a point for a legend."""
    return " = ".join(names[:3]) + (f" = {len(names) - 3} more" if len(names) > 3 else "")


def weight_scale(init: Any, width: Any, gain: Any) -> float | None:
    """Standard deviation of a weight times the root of fan in; None where entries have no common law."""
    try:
        scheme = inits.get(init)
        gain, width = float(gain), int(width)
    except (TypeError, ValueError):
        return None
    if scheme.distribution == "haar":
        return gain * float(scheme.scale(width, width))
    variance = unit_variance(scheme.distribution, getattr(scheme, "parameter", 0.0) or 0.0)
    if not math.isfinite(variance):
        return None
    return gain * float(scheme.scale(width, width)) * math.sqrt(variance * width)


def diagrams(names: list[str], at: list[tuple[str, float, float, str]]) -> list[dict]:
    """The data of the diagrams, one a function.

    Args:
        names: of activation functions.
        at: points, as `points` makes them; those far out are left out.
    """
    inside = [point for point in at if point[1] <= 3 * WIDEST and point[2] <= 3]
    widest = max([WIDEST, *(1.1 * point[1] for point in inside)])
    tallest = max([1.0, *(1.1 * point[2] for point in inside)])
    narrowest = min([0.1, *(0.8 * point[1] for point in inside)])
    sigma_w, sigma_b = np.linspace(narrowest, widest, ACROSS), np.linspace(0.0, tallest, DOWN)
    return [_diagram(phase_diagram(name, sigma_w, sigma_b), inside, len(at) - len(inside)) for name in names]


def _diagram(d: PhaseDiagram, at: list, left_out: int) -> dict:
    with np.errstate(divide="ignore", invalid="ignore"):
        decades = np.where(np.isinf(d.q), np.nan, 0.5 * np.log10(d.chi_perp))
    inside = np.abs(decades[np.isfinite(decades)])
    reach = float(np.clip(np.quantile(inside, 0.85), 0.05, 1.0)) if inside.size else 1.0
    names = list(dict.fromkeys(name for name, *_ in at))
    nearest = lambda w, b: decades[np.abs(d.sigma_b - b).argmin(), np.abs(d.sigma_w - w).argmin()]
    series = []
    for name in names:
        mine = [point for point in at if point[0] == name]
        series.append(
            {
                "name": name,
                "x": plain([w for _, w, _, _ in mine]),
                "y": plain([b for _, _, b, _ in mine]),
                "said": [said for *_, said in mine],
                "values": plain([nearest(w, b) for _, w, b, _ in mine], 3),
            }
        )
    note = (
        f"{d.activation}: what the gradient's norm does in a layer, travelling backwards, at the fixed point of an "
        "input of mean square 1, at infinite width. Left of the line it vanishes (ordered), right of it it explodes "
        "(chaotic)."
    )
    note += " Points: the schemes used here" + (f"; {left_out} lie outside." if left_out else ".") if at else ""
    return {
        "name": d.activation,
        "x": plain(d.sigma_w),
        "y": plain(d.sigma_b),
        "values": plain(decades, 3),
        "reach": round(reach, 3),
        "line": _critical_line(d, decades),
        "points": series,
        "note": note,
    }


def _critical_line(d: PhaseDiagram, decades: np.ndarray) -> list[list]:
    """Where the gradient keeps its size: lines of points."""
    from contourpy import contour_generator  # comes with matplotlib

    lines = contour_generator(d.sigma_w, d.sigma_b, np.ma.masked_invalid(decades)).lines(0.0)
    return [plain(line, 4) for line in lines if len(line) > 1]
