# SPDX-License-Identifier: BSD-3-Clause
"""What theory says of each cell of a sweep, and how far from it the measurement lies."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from pykernel.sweeps.grid import Cell, columns
from pykernel.sweeps.statistics import SCALARS

# name: unit and meaning
PREDICTED = {
    "predicted_slope": (
        "decades per layer",
        "theory's slope: at this width where a law is known, else at infinite width",
    ),
    "predicted_slope_std": ("decades per layer", "its standard deviation over draws"),
    "predicted_end_to_end": ("decades", "theory's end_to_end at infinite width"),
    "predicted_signal_end_to_end": ("decades", "theory's signal_end_to_end at infinite width"),
    "predicted_signal_end_to_end_mean": ("decades", "its mean over draws at this width"),
    "predicted_signal_end_to_end_std": ("decades", "its standard deviation over draws at this width"),
}
Z = {
    "z_slope": ("slope", "predicted_slope"),
    "z_signal_end_to_end": ("signal_end_to_end", "predicted_signal_end_to_end_mean"),
}
FREELY = 1000  # cells that are predicted without being asked for: as many as take seconds
ROUNDING = 2.0**-24  # of a float32 run: a layer's error in decades, where a law leaves no spread at all

Known = dict[str, list]  # key of a cell: the numbers of PREDICTED, and the law or the reason why there is none


def weight(cell: Cell) -> int:
    """Nominal cost of a cell's theory: it grows with depth, and most with the pairs of a batch."""
    return (cell.chain.extents.layer + 5) * (10 if columns(cell.run) > 1 else 1)


def predict(cells: Iterable[Cell]) -> Iterator[tuple[str, list]]:
    """What theory says of these cells, one after the other, each distinct chain predicted once.

    Yields:
        The key of a cell, and six numbers, nan where theory has none, with the name of the law or why there is none.
    """
    alike: dict[tuple, list] = {}
    for cell in cells:
        question = _question(cell)
        if question not in alike:
            alike[question] = _one(*question)
        yield cell.key, alike[question]


def _question(cell: Cell) -> tuple:
    return cell.chain, cell.run["batch"], cell.run["correlation"], cell.run.get("positions", ())


def seconds(cells: Iterable[Cell], budget: float = 0.5) -> float:
    """About what the theory of these cells takes on one core, from the time of the cheapest of each kind."""
    kinds: dict[tuple, dict] = {}
    for cell in cells:
        chain = cell.chain
        kind = str(chain.activation if chain.blocks is None else chain.blocks), chain.norm, columns(cell.run) > 1
        kinds.setdefault(kind, {})[_question(cell)] = cell
    total = spent = 0.0
    paces = [1e-4]  # seconds for a unit of weight
    for _, alike in sorted(kinds.items(), key=lambda item: min(map(weight, item[1].values()))):
        cheapest = min(alike.values(), key=weight)
        if spent < budget:
            begin = time.perf_counter()
            for i in (0, 1):  # the first fills tables
                again = time.perf_counter()
                chain, *rest = _question(cheapest)
                gain = chain.gain if isinstance(chain.gain, tuple) else chain.gain * (1 + 1e-6 * i)
                _one(chain.replace(gain=gain), *rest)
            paces.append((time.perf_counter() - again) / weight(cheapest))
            spent += time.perf_counter() - begin
        total += paces[-1] * sum(map(weight, alike.values()))
    return total


def _one(chain: Any, batch: int, correlation: float, positions: Any = ()) -> list:
    from pykernel.theory.predict import predict as predict_chain
    from pykernel.theory.refusals import refusal

    reason = refusal(chain, positions)
    if reason is None:
        try:
            with np.errstate(all="ignore"):
                p = predict_chain(chain, batch, positions=positions, correlation=correlation)
                if p.overtaken:
                    raise ValueError("the gradient's part along the signal has overtaken the rest at this width")
                numbers = (
                    p.slope_mean,
                    p.slope_std,
                    p.end_to_end,
                    p.signal_end_to_end,
                    p.signal_end_to_end_mean,
                    p.signal_end_to_end_std,
                )
            law = p.law.partition(";")[0]
            if p.program.columns > p.law_batch and math.isfinite(p.signal_end_to_end_std):  # the law is one input's
                numbers = (p.slope, math.nan, p.end_to_end, p.signal_end_to_end, math.nan, math.nan)
                law = "infinite width only: the law of the spread is known for one input"
            return [*map(float, numbers), law]
        except Exception as error:  # a user's own function may do anything: theory must not cost him his sweep
            reason = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
    return [math.nan] * len(PREDICTED) + [f"none: {reason}"]


def variables(
    keys: list[str], known: Known, scalars: np.ndarray, depths: list[int]
) -> dict[str, tuple[np.ndarray, dict]]:
    """Columns over cells: PREDICTED, `theory` (the law, or why there is none) and the z-scores.

    Args:
        keys: of cells.  known: predictions by key.  scalars: (len(SCALARS), cells, replicas).  depths: of cells.

    Returns:
        Values and attributes by name. z = (mean over replicas - theory's mean) / (standard deviation / sqrt(replicas)),
        the larger of theory's and the measured deviation; nan where theory has no law of the spread, or a rough one
        (that of a batch).
    """
    missing = [math.nan] * len(PREDICTED) + ["not computed: predict=True asks for it"]
    from pykernel.theory import finite

    rows = [known.get(key, missing) for key in keys]
    out: dict[str, tuple[np.ndarray, dict]] = {}
    for j, (name, (unit, meaning)) in enumerate(PREDICTED.items()):
        out[name] = np.array([float(row[j]) for row in rows]), {"units": unit, "long_name": meaning}
    rounding = ROUNDING * np.array(depths, dtype=float)
    rough = np.array([str(row[-1]).startswith(finite.OF_BATCH[:10]) for row in rows])
    for name, (measured, expected) in Z.items():
        values = scalars[SCALARS.index(measured)]
        counted = np.isfinite(values)
        count = counted.sum(axis=-1)
        with np.errstate(all="ignore"):
            values = np.where(counted, values, 0.0)
            mean = values.sum(axis=-1) / count
            spread = np.sqrt(
                np.where(counted, (values - mean[:, None]) ** 2, 0.0).sum(axis=-1) / np.maximum(count - 1, 1)
            )
            law = out["predicted_slope_std" if measured == "slope" else f"{expected[:-5]}_std"][0]
            floor = rounding / (np.array(depths) if measured == "slope" else 1)
            z = (mean - out[expected][0]) / (np.maximum(np.maximum(spread, law), floor) / np.sqrt(count))
        out[name] = (
            np.where(np.isfinite(law) & ~rough, z, np.nan),
            {"units": "1", "long_name": f"standard errors from theory to mean {measured}"},
        )
    out["theory"] = (
        np.array([row[-1] for row in rows]),
        {"long_name": "law that the prediction rests on, or why there is none"},
    )
    return out
