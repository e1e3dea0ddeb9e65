# SPDX-License-Identifier: BSD-3-Clause
"""What a call costs where there is next to nothing to compute: microseconds, and where they go."""

from __future__ import annotations

import pykernel as pk
from pykernel.engines import run
from pykernel.lower import lower

from .points import EFFORT, processor_seconds

CALLS = {"smallest": 2, "quick": 500, "full": 2000}[EFFORT]
STAGES = {
    "chain": lambda chain, job, i: pk.Chain(depth=8, width=8),
    "lower, a new chain": lambda chain, job, i: lower(pk.Chain(depth=8, width=8), seed=i),
    "lower, the same": lambda chain, job, i: lower(chain, seed=i),
    "execute": lambda chain, job, i: run.execute(job, i, 1, 1),
    "propagate, a new chain": lambda chain, job, i: pk.propagate(
        pk.Chain(depth=8, width=8), seed=i, engine="dense", threads=1
    ),
    "propagate, the same": lambda chain, job, i: pk.propagate(chain, seed=i, engine="dense", threads=1),
}


class Calls:
    """8 layers of 8 units, one input, one thread: microseconds of processor time a call, the least of five rounds."""

    params = tuple(STAGES)
    param_names = ("stage",)
    unit = "us"

    def track_call(self, stage):
        chain = pk.Chain(depth=8, width=8)
        job, call = run.prepare(chain, engine="dense"), STAGES[stage]
        call(chain, job, 0)
        all_of_them = lambda: [call(chain, job, i) for i in range(CALLS)]
        return 1e6 * min(processor_seconds(all_of_them) for _ in range(5)) / CALLS
