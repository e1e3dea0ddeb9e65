# SPDX-License-Identifier: BSD-3-Clause
"""What a worker does with a block: runs its chains, reduces what the kernel measured, and returns the bytes of a part.

A block is a pure function of its pieces: any worker, any number of times, gives the same bytes.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pykernel.sweeps import frames, grid, statistics
from pykernel.sweeps.blocks import Piece
from pykernel.sweeps.profiles import Profiles
from pykernel.sweeps.statistics import Node

BYTES_OF_ROWS = 64 << 20  # of the kernel's rows held at once


class Entry(NamedTuple):
    """What is known of replicas first .. first + count of a cell."""

    first: int
    count: int  # type: ignore[assignment]
    scalars: np.ndarray
    nodes: dict[tuple[int, int], Node]
    replicas: np.ndarray | None


class Done(NamedTuple):
    """What comes back from a worker: the bytes of the part, core seconds of each finished piece, failures by place in
    the block.

    `seconds` is shorter than the block where the worker was asked to stop.
    """

    content: bytes
    seconds: list[float]
    failures: dict[int, str]


def run_rows(piece: Piece, first: int, count: int, threads: int | None) -> dict[str, np.ndarray]:
    """The rows of some replicas of a chain."""
    from pykernel.engines import run  # loads the kernels: workers that only plan do without

    return run.measure(piece.chain, first=first, replicas=count, threads=threads, **piece.run).rows


def run_block(
    pieces: list[Piece], kept: Profiles, threads: int | None = 1, stop: Callable[[], bool] | None = None
) -> Done:
    """Run a block. A piece that raises is a failure of its own, with its traceback; the others go on."""
    entries: list[tuple[str, Entry]] = []
    seconds: list[float] = []
    failures: dict[int, str] = {}
    for place, piece in enumerate(pieces):
        if place and stop is not None and stop():
            break
        begin = time.perf_counter()
        try:
            entries.append((piece.key, _run(piece, kept, threads)))
        except Exception:  # a chain's own failure must not cost its neighbours
            failures[place] = traceback.format_exc()
        seconds.append((time.perf_counter() - begin) * (threads or 1))
    return Done(encode(entries), seconds, failures)


def _run(piece: Piece, kept: Profiles, threads: int | None) -> Entry:
    depth = piece.chain.extent
    kept = kept.measured(grid.columns(piece.run))
    layers = kept.at(depth)
    with_quantiles = [kept.rows.index(name) for name in kept.quantiles]
    most = max(1, BYTES_OF_ROWS // (13 * 8 * (depth + 1)))
    step = max(1 << (most.bit_length() - 1), threads or 1)
    scalars, nodes, replicas = [], {}, []
    first, end = piece.first, piece.first + piece.count
    while first < end:
        count = min(step - first % step, end - first)
        rows = run_rows(piece, first, count, threads)
        scalars.append(statistics.scalars(rows, piece.chain))
        values = statistics.profiles(rows, kept, layers)
        nodes.update(statistics.reduce(values, first, with_quantiles))
        if kept.replicas:
            replicas.append(values)
        first += count
    nodes = statistics.gather(nodes.items()) if len(scalars) > 1 else nodes
    profile = np.concatenate(replicas, axis=1) if replicas else None
    return Entry(piece.first, piece.count, np.concatenate(scalars, axis=1), nodes, profile)


def encode(entries: list[tuple[str, Entry]]) -> bytes:
    """The bytes of a part."""
    pieces, arrays = [], []
    for key, entry in entries:
        known = []
        arrays.append(entry.scalars.ravel())
        for (level, index), node in entry.nodes.items():
            whole = isinstance(node.count, float)
            known.append([level, index, int(whole)])
            if not whole:
                arrays.append(node.count.ravel())
            arrays += [node.mean.ravel(), node.square.ravel(), node.sorted.ravel()]
        shape = next(iter(entry.nodes.values())).mean.shape
        quantiles = next(iter(entry.nodes.values())).sorted.shape[0]
        piece = {"cell": key, "first": entry.first, "count": entry.count, "shape": [*shape, quantiles], "nodes": known}
        if entry.replicas is not None:
            piece["replicas"] = 1
            arrays.append(entry.replicas.ravel())
        pieces.append(piece)
    header = {"scalars": list(statistics.SCALARS), "kept": statistics.KEPT, "pieces": pieces}
    return frames.encode(header, np.concatenate(arrays) if arrays else np.zeros(0))


def decode(header: dict, blob: np.ndarray) -> list[tuple[str, Entry]]:
    """The entries of a part, as views of its numbers."""
    at = 0

    def take(*shape: int) -> np.ndarray:
        nonlocal at
        size = math.prod(shape)
        at += size
        return blob[at - size : at].reshape(shape)

    entries = []
    for piece in header["pieces"]:
        p, s, q = piece["shape"]
        scalars = take(len(header["scalars"]), piece["count"])
        nodes = {}
        for level, index, whole in piece["nodes"]:
            count = float(1 << level) if whole else take(p, s)
            nodes[level, index] = Node(count, take(p, s), take(p, s), take(q, s, min(1 << level, header["kept"])))
        replicas = take(p, piece["count"], s) if "replicas" in piece else None
        entries.append((piece["cell"], Entry(piece["first"], piece["count"], scalars, nodes, replicas)))
    return entries
