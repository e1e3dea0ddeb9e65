# SPDX-License-Identifier: BSD-3-Clause
"""Sweeps: throughput with the store, what the store costs beside the same sweep without, executors beside in process,
plans, status.

Ratios are of two runs in one benchmark, the best of several interleaved, so that they mean something on a busy machine.
"""

from __future__ import annotations

import tempfile
import time

import pykernel as pk
from pykernel.sweeps.plan import SweepPlan
from pykernel.sweeps.reading import goals, recall
from pykernel.sweeps.store import Store

from .points import pick

CHAINS = pick(200, 20_000, 100_000)
CELLS = pick(100, 10_000, 10_000)
ROUNDS = pick(1, 2, 3)
BASE = pk.Chain(depth=50, width=64, activation="tanh", init="lecun_normal")
RUN = {
    "batch": 1,
    "seed": 0,
    "engine": "matrix_free",
    "backend": "cpp",
    "dtype": "float32",
    "precision": "exponent",
    "correlation": 0.0,
}


def gains(count: int) -> dict:
    return {"gain": [0.5 + i / count for i in range(count)]}


def sweep(cells: int, chains: int, **words) -> float:
    """Wall seconds of a sweep of so many chains over so many cells."""
    begin = time.perf_counter()
    pk.sweep(gains(cells), BASE, replicas=max(chains // cells, 1), engine="matrix_free", progress=False, **words)
    return time.perf_counter() - begin


def stored(cells: int, chains: int, **words) -> float:
    with tempfile.TemporaryDirectory() as room:
        return sweep(cells, chains, store=room, **words)


class Throughput:
    """Chains of 50 layers of 64 units, matrix-free, one input, into a store: few cells of many replicas, and the other
    way round."""

    params = pick([5], [5, 1000], [5, 1000])
    param_names = ("cells",)

    def setup(self, cells):
        sweep(1, 2)

    def track_chains_per_second(self, cells):
        return CHAINS / min(stored(cells, CHAINS) for _ in range(ROUNDS))

    track_chains_per_second.unit = "chains/s"


class Ratios:
    """Of two ways in the same run."""

    timeout = 600

    def setup(self):
        sweep(1, 2)

    def track_store_overhead(self):
        """Share by which a store makes a sweep in blocks of a second slower."""
        pairs = [(sweep(5, CHAINS, predict=False), stored(5, CHAINS, predict=False)) for _ in range(ROUNDS)]
        return min(b for _, b in pairs) / min(a for a, _ in pairs) - 1

    def track_dask_of_in_process(self):
        """Speed with two Dask workers over the speed in process with two threads."""
        from distributed import Client, LocalCluster

        with (
            LocalCluster(2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
            Client(cluster) as client,
        ):
            sweep(5, 200, executor=client)
            pairs = [
                (sweep(5, CHAINS, threads=2, predict=False), sweep(5, CHAINS, executor=client, predict=False))
                for _ in range(ROUNDS)
            ]
        return min(a for a, _ in pairs) / min(b for _, b in pairs)

    track_store_overhead.unit = "of the time without"
    track_dask_of_in_process.unit = "of in process"


class Plans:
    """10 000 cells: planned, opened and counted."""

    timeout = 600

    def setup_cache(self):
        room = tempfile.mkdtemp()
        pk.sweep(gains(CELLS), pk.Chain(depth=2, width=4), replicas=1, store=room, progress=False, predict=False)
        return room

    def time_plan(self, room):
        SweepPlan.make(gains(CELLS), BASE, RUN, 10, None, pk.Profiles()).description()

    def time_open(self, room):
        pk.open(room)

    def time_status(self, room):
        store = Store(room)
        plan = store.read_plan()
        shelf = recall(store, plan)
        targets = goals(plan, shelf)
        assert sum(shelf.known(cell[0], targets[cell[0]]) for cell in plan["cells"]) == CELLS
