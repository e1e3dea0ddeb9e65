# SPDX-License-Identifier: BSD-3-Clause
"""What a store knows of a sweep: the Dataset of its parts, the replicas of its cells, the goals of its plan."""

from __future__ import annotations

import warnings
from typing import Any

from pykernel.sweeps import assemble, work
from pykernel.sweeps.plan import StandardError, SweepPlan
from pykernel.sweeps.shelf import Shelf
from pykernel.sweeps.statistics import SCALARS
from pykernel.sweeps.store import Store


def open(store: Any) -> Any:
    """The Dataset of a sweep's store, while it runs or after: what is not there yet is nan, and `replicas` counts what
    is.

    Args:
        store: the directory.

    Returns:
        `xarray.Dataset` as `sweep` returns it.

    Raises:
        StoreError: if there is no sweep, or its plan is damaged.

    Warns:
        UserWarning: naming parts that are damaged; they count as missing.

    Examples:
        >>> import tempfile
        >>> import pykernel as pk
        >>> with tempfile.TemporaryDirectory() as out:
        ...     ds = pk.sweep({"depth": [2, 4]}, {"width": 8}, replicas=5, store=out, progress=False)
        ...     pk.open(out).identical(ds)
        True
    """
    at = Store(store)
    plan = at.read_plan()
    shelf = recall(at, plan)
    return assemble.dataset(plan, shelf, goals(plan, shelf), at.failed(), at.predictions() or None)


def recall(store: Any, plan: Any, quiet: bool = False) -> Shelf:
    """What a store knows of a plan's cells; nothing where there is no store.

    Warns:
        UserWarning: naming parts that are damaged, unless quiet (`Store.damaged` names them, too).
    """
    shelf = Shelf()
    if store is None:
        return shelf
    at = store if isinstance(store, Store) else Store(store)
    cells = plan.cells if isinstance(plan, SweepPlan) else plan["cells"]
    mine = {cell.key for cell in cells}
    for _, header, blob in at.read():
        for key, entry in work.decode(header, blob):
            if key in mine:
                shelf.add([(key, entry)])
            else:
                shelf.others.add(key)
    if at.damaged and not quiet:
        names = ", ".join(str(at.parts / name) for name in at.damaged)
        warnings.warn(f"damaged, counted as missing: {names}; run the sweep again to compute them anew", stacklevel=3)
    return shelf


def goals(plan: dict, shelf: Shelf) -> dict[str, int]:
    """How many replicas each cell of a plan has or will have, as far as is known, by key."""
    until = StandardError(**plan["until"]) if plan["until"] else None
    result: dict[str, int] = {}
    for cell in plan["cells"]:
        goal = cell.replicas
        while until is not None and not shelf.missing(cell.key, goal):
            grown = until.next(shelf.scalars(cell.key, goal)[SCALARS.index(until.of)], cell.replicas)
            if grown == goal:
                break
            goal = grown
        result[cell.key] = max(goal, result.get(cell.key, 0))
    return result
