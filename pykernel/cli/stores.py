# SPDX-License-Identifier: BSD-3-Clause
"""Commands about a sweep's store: status, merge, export, plot."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add(command: Any) -> None:
    status = command(
        "status", help="how far a sweep is", description="How far the sweep in a store is; also while it runs."
    )
    status.add_argument("store", metavar="DIR", help="the store of a sweep")
    status.add_argument("--failures", action="store_true", help="print the traceback of every failed cell")
    status.set_defaults(call=_status)

    merge = command(
        "merge", help="join stores, as of shards", description="Copy the sound parts of other stores into DIR."
    )
    merge.add_argument("store", metavar="DIR", help="the store that takes them, new or not")
    merge.add_argument("others", metavar="OTHER", nargs="+", help="stores to join")
    merge.set_defaults(call=_merge)

    export = command(
        "export", help="a store as CSV, Parquet or NetCDF", description="Write a sweep's results to a file."
    )
    export.add_argument("store", metavar="DIR", help="the store of a sweep")
    export.add_argument(
        "--format",
        choices=("csv", "parquet", "nc"),
        default="csv",
        help="csv and parquet: a line a cell; nc: everything, labelled",
    )
    export.add_argument("--replicas", action="store_true", help="tables with a line for each replica")
    export.add_argument("--output", metavar="FILE", help="default DIR/sweep.FORMAT")
    export.set_defaults(call=_export)

    plot = command("plot", help="figures of a sweep", description="Draw a sweep's figures; also while it runs.")
    plot.add_argument("store", metavar="DIR", help="the store of a sweep")
    plot.add_argument(
        "--kind",
        choices=("all", "gradient", "heat", "spread", "verdict"),
        default="all",
        help="which figure (default: all that fit the grid)",
    )
    plot.add_argument("--format", choices=("png", "svg", "pdf"), default="png")
    plot.add_argument("--output", metavar="DIR", help="default: the store itself")
    plot.set_defaults(call=_plot)


def _status(given: argparse.Namespace) -> int:
    from pykernel.sweeps.reading import goals, recall
    from pykernel.sweeps.store import Store

    store = Store(given.store)
    plan = store.read_plan()
    shelf = recall(store, plan, quiet=True)
    targets = goals(plan, shelf)
    keys = {cell.key for cell in plan["cells"]}
    known = {key: shelf.known(key, targets[key]) for key in keys}
    complete = sum(known[key] >= targets[key] for key in keys)
    failed = {key: record for key, record in store.failed().items() if key in keys}
    print(f"{given.store}: {' x '.join(axis['name'] for axis in plan['axes'])}, plan {plan['hash'][:12]}")
    print(f"cells    {complete} of {len(keys)} complete")
    print(f"chains   {sum(known.values())} of {sum(targets.values())}")
    print(f"parts    {len(store.names())}, {store.size() / 1e6:.1f} MB")
    print(f"driver   {store.driver() if store.is_running() else 'none at work'}")
    if shelf.others:
        print(f"others   {len(shelf.others)} cells of earlier grids; run one again, and it is shown from what is kept:")
        for earlier in store.earlier_plans():
            if shelf.others.isdisjoint(cell.key for cell in earlier["cells"]):
                continue
            print(f"         {earlier['hash'][:12]}: {' x '.join(_axis(axis) for axis in earlier['axes'])}")
    for name in store.damaged:
        print(f"damaged  {store.parts / name}: computed again when the sweep is run again")
    for record in failed.values():
        print(f"failed   {record.get('cell', '?')}: {record['error']}")
        if given.failures:
            print(record["traceback"])
    return 0 if complete == len(keys) else 4


def _axis(axis: dict) -> str:
    """An axis of a plan in a few words: its name, how many values, and the ends."""
    values = [str(value) for value in next(iter(axis["labels"].values()))]
    return f"{axis['name']} {', '.join(values if len(values) <= 3 else [values[0], '...', values[-1]])}"


def _merge(given: argparse.Namespace) -> int:
    from pykernel.sweeps.store import Store, merge

    report = merge(Store(given.store), [Store(other) for other in given.others])
    print(f"{report['copied']} parts copied, {report['known']} were there already")
    for directory, cells in report["foreign"].items():
        print(
            f"{directory}: {cells} of its cells are not in the grid of {given.store}; they are kept, "
            "and shown once a sweep with a grid that holds them is run there",
            file=sys.stderr,
        )
    for path in report["damaged"]:
        print(f"damaged, left out: {path}", file=sys.stderr)
    return 1 if report["damaged"] else 0


def _export(given: argparse.Namespace) -> int:
    import pykernel as pk
    from pykernel.sweeps import report

    path = given.output or Path(given.store) / f"sweep.{given.format}"
    print(report.export(pk.open(given.store), path, given.format, given.replicas))
    return 0


def _plot(given: argparse.Namespace) -> int:
    import pykernel as pk
    from pykernel.plot import sweeps

    for path in sweeps.save(pk.open(given.store), Path(given.output or given.store), given.kind, given.format):
        print(path)
    return 0
