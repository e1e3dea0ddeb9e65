# SPDX-License-Identifier: BSD-3-Clause
"""One network as data and words of a page: its rows by layer with theory, advice, and chains around it."""

from __future__ import annotations

from typing import Any

import numpy as np

from pykernel import observables
from pykernel.chain import Chain
from pykernel.engines import cost
from pykernel.init import Given
from pykernel.plot.chain import places_by_name
from pykernel.propagation import Propagation
from pykernel.sweeps import Replicas, sweep
from pykernel.theory import diagnosis
from pykernel.theory.recommend import recommend
from pykernel.webpage import document, grids
from pykernel.webpage.document import plain

MOST_PLACES = 400  # of one line
BAND = 1.2816  # standard deviations: the middle 80 % of a normal law
SECONDS = 10.0  # nominal, of one core: for advice, and for the chains around
CANDIDATES = 16  # that advice measures, about
FACTORS = (0.5, 0.65, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 2.5, 3.0)
DEPTHS = (0.25, 0.5, 1.0, 2.0, 4.0)


def network(p: Propagation) -> dict:
    """The rows of a measured chain over its layers or blocks, with theory where there is one, as JSON holds it."""
    prediction = diagnosis.beside(p)
    order = ["log10_grad_activation", "log10_grad_weight"]
    rows = sorted(observables.ROWS, key=lambda row: order.index(row.name) if row.name in order else len(order))
    told = [_row(p, row, prediction) for row in rows if row.extent != "replica" and _shown(p.rows[row.name])]
    blocks = p.chain.blocks is not None
    return {
        "rows": told,
        "replicas": p.replicas,
        "place": "block" if blocks else "layer",
        "label": f"{'block' if blocks else 'layer'} (0 is the input)",
    }


def _shown(values: np.ndarray) -> bool:
    return bool(values.size) and not np.isnan(values).all()


def _row(p: Propagation, row: observables.Row, prediction: Any) -> dict:
    values = p.rows[row.name]
    low, mid, high = _quantiles(values)
    theory = None if prediction is None else np.asarray(prediction.rows.get(row.name, np.nan), dtype=float)
    theory = theory if theory is not None and theory.shape == mid.shape and np.isfinite(theory).any() else None
    below = above = None
    law = "infinite width"
    if row.name == "log10_grad_activation" and theory is not None and prediction.log10_grad_activation_mean is not None:
        theory, std = prediction.log10_grad_activation_mean, prediction.log10_grad_activation_std
        below, above = theory - BAND * std, theory + BAND * std
        law = f"mean and middle 80 % at this width: {prediction.law}"
    series = []
    for name, (x, at) in _lines(p, row).items():
        pick = np.unique(np.linspace(0, len(at) - 1, min(MOST_PLACES, len(at))).round().astype(int))
        where = np.asarray(at)[pick]
        part = lambda array, where=where: None if array is None else plain(array[where])
        told = {"low": part(low), "mid": part(mid), "high": part(high), "theory": part(theory)}
        series.append(
            {"name": name, "x": np.asarray(x)[pick].tolist(), **told, "below": part(below), "above": part(above)}
        )
    return {
        "name": row.name,
        "label": grids.label(row.name),
        "meaning": _first(row.meaning),
        "law": law,
        "series": series,
    }


def _first(text: str) -> str:
    return text[0].upper() + text[1:]


def _quantiles(values: np.ndarray) -> list[np.ndarray]:
    """The lower, middle and upper line over draws as order statistics, so that exact zeros stay zeros."""
    ordered = np.sort(values, axis=0)
    count = (~np.isnan(ordered)).sum(axis=0)
    at = [np.clip(np.round(level * (count - 1)).astype(int), 0, None) for level in (0.1, 0.5, 0.9)]
    return [np.take_along_axis(ordered, i[None], axis=0)[0] for i in at]


def _lines(p: Propagation, row: observables.Row) -> dict[str, tuple[list[int], list[int]]]:
    """The lines of a row: places along the axis, and columns of the row."""
    count = p.rows[row.name].shape[1]
    names = {"layer": p.layers, "activation": p.activations, "mix": p.attentions}.get(row.extent)
    if p.chain.blocks is None or names is None:
        first = 0 if row.extent == "input" else 1
        return {"the chain": (list(range(first, first + count)), list(range(count)))}
    return places_by_name(p.chain, names)


def words(p: Propagation) -> str:
    """The verdict with its certainty and why, and all that `print` shows."""
    said = p.diagnose()
    lead = f'<p class="lead">{document.escape(_first(said.sentence).replace("+-", "±"))}</p>'
    badge = f'<p><span class="badge is-{p.verdict}">{p.verdict}</span></p>'
    failure = [f"In plain numbers: {p.failure}."] if p.failure is not None else []
    text = f"<details><summary>All layers in a table</summary><pre>{document.escape(str(p))}</pre></details>"
    return badge + lead + (document.items([*said.why, *failure]) if said.why or failure else "") + text


def advice(p: Propagation) -> str:
    """Changes that keep the gradient, predicted and measured; or why none are proposed."""
    if isinstance(p.chain.init, Given) or p.given:
        return document.paragraphs(
            ["The weights are given, not drawn: what to change is proposed for the scheme they were a draw of."]
        )
    run = _run(p)
    seconds = cost.seconds_of(p.chain, {**run, "engine": p.engine, "backend": p.backend})
    replicas = int(SECONDS / CANDIDATES / max(seconds, 1e-9))
    if replicas < 2:
        return document.paragraphs(
            [f"Each change would take about {seconds:.0f} s a draw to measure: ask for them in Python."]
        ) + document.code("pk.recommend(chain)")
    try:
        found = recommend(p.chain, batch=p.batch, positions=p.positions, replicas=min(24, replicas), seed=p.seed)
    except ValueError as error:
        return document.paragraphs([f"No advice for this network: {error}."])
    rows = [
        [c.change, c.predicted, c.measured, c.spread, f"{c.outside:.0%}", c.preserves, c.verdict, _cost(c)]
        for c in found.candidates
    ]
    head = ["change", "theory", "measured", "spread", "bad draws", "preserves", "verdict", "cost and source"]
    caption = (
        f"Changes, the best first: decades of gradient from output to input, {found.replicas} draws; bad draws end "
        f"beyond {found.bound:g} decades"
    )
    table = document.table(caption, head, rows) if rows else ""
    left = f"Not proposed: {'; '.join(found.left_out)}." if found.left_out else ""
    slow = f"{_first(found.slowly)}." if found.slowly else ""
    return f'<p class="lead">{document.escape(_first(found.summary))}.</p>{table}' + document.paragraphs(
        [text for text in (slow, left) if text]
    )


def _cost(candidate: Any) -> str:
    return candidate.cost + (f"; {candidate.source}" if candidate.source else "")


def _run(p: Propagation) -> dict[str, Any]:
    """The words of the run that another chain is run with."""
    words = {"batch": p.batch, "seed": p.seed, "dtype": p.dtype, "precision": p.precision, "correlation": p.correlation}
    return {**words, **({"positions": p.positions} if p.positions else {})}


def around(p: Propagation) -> tuple[Any, str]:
    """Chains like this one, deeper and shallower, with weights smaller and larger, as a sweep's Dataset; or None, and
    why."""
    chain = p.chain
    if isinstance(chain.init, Given) or p.given or p.formats is not None:
        return None, "Depth and gain are varied of drawn weights only."
    grid = _grid(chain)
    run = _run(p)
    if "depth" in grid or "gain" in grid:
        costs = {
            d: _seconds(chain, d, {**run, "engine": p.engine, "backend": p.backend}) for d in grid.get("depth", [None])
        }
        many = len(grid.get("gain", [1]))
        while sum(costs.values()) * many * 2 > SECONDS and len(costs) > 1:
            costs.pop(max(costs, key=lambda d: d or 0))
        if sum(costs.values()) * many * 2 <= SECONDS:
            grid |= {"depth": list(costs)} if "depth" in grid else {}
            few = Replicas(most=16, seconds=SECONDS / (many * len(costs)), least=2)
            ds = sweep(grid, chain, replicas=few, progress=False, predict=True, **run)
            return ds, ""
        return None, "Chains like this one take too long to vary depth and gain here; `pk.sweep` does it."
    return None, "This network has one value a layer, so depth and gain cannot be varied as a whole."


def _grid(chain: Chain) -> dict[str, list]:
    grid: dict[str, list] = {}
    if chain.widths is None and not chain.has_lists:
        grid["depth"] = sorted({max(1, round(chain.depth * factor)) for factor in DEPTHS})
    if not isinstance(chain.gain, tuple):
        grid["gain"] = [float(f"{chain.gain * factor:.4g}") for factor in FACTORS]
    if chain.residual is not None and "depth" in grid:
        grid["depth"] = [depth for depth in grid["depth"] if depth >= chain.residual.every]
    return grid


def _seconds(chain: Chain, depth: int | None, run: dict) -> float:
    return cost.seconds_of(chain if depth is None else chain.replace(depth=depth), run)
