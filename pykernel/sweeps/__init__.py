# SPDX-License-Identifier: BSD-3-Clause
"""Sweeps: a grid of chains run in blocks, here or on a cluster, through a store that survives, into one labelled
Dataset."""

from pykernel.sweeps.drive import SweepInterrupted, sweep
from pykernel.sweeps.executors import ExecutorError
from pykernel.sweeps.frames import StoreError
from pykernel.sweeps.plan import Replicas, StandardError
from pykernel.sweeps.profiles import Profiles
from pykernel.sweeps.progress import Progress
from pykernel.sweeps.reading import open
from pykernel.sweeps.store import Store, merge

__all__ = [
    "ExecutorError",
    "Profiles",
    "Progress",
    "Replicas",
    "StandardError",
    "Store",
    "StoreError",
    "SweepInterrupted",
    "merge",
    "open",
    "sweep",
]
