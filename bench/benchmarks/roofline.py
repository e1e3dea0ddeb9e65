# SPDX-License-Identifier: BSD-3-Clause
"""Both engines beside the machine: peak multiply-add and draw rates, ours and NumPy's, and what fraction of them a
chain reaches.

All is measured once, in one process (`setup_cache`), ceilings and chains in turn: the fractions compare figures of the
same minutes.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import pykernel as pk
from pykernel import _core

from .points import POINTS, ROUNDS, SECONDS, he_relu, parse, pick, replicas_at, seconds_in_turn

CORES = len(os.sched_getaffinity(0))
POOL = ThreadPoolExecutor(CORES)
ORDER = pick([16], [1024], [2048])[0]
DRAWS = pick([4096], [2_000_000], [20_000_000])[0]
# Beside the points of the other benchmarks: widths where the weights of a layer leave one cache after the other, odd
# ones among them.
WIDTHS = pick([], [], [256, 512, 1000, 1023, 1024, 1025, 2047, 2048, 4096])
ROOFLINE = list(dict.fromkeys([*POINTS, *(f"{n}x{max(2, 2**24 // n**2)}x{B}" for n in WIDTHS for B in (1, 16, 32))]))

# Networks of so many draws have theirs kept for the backward pass (half of the memory that a run takes by itself).
KEPT = 2**29 // 4

# Matrix-free: a batch as columns, and many, as positions and batches of transformers make them.
COLUMNS = pick(
    ["64x2x8"],
    ["4096x16x16", "3000x24x24", "1000x4x64", "768x4x128"],
    ["4096x16x16", "3000x24x24", *(f"{n}x4x{B}" for n in (1000, 2048, 4096) for B in (64, 128, 256, 512))],
)


def on_all_cores(work):
    """A function that has one thread per core do work(core), all at once."""
    return lambda: list(POOL.map(work, range(CORES)))


def ceilings() -> dict:
    """(operations, work) by (what, whose): a multiply and an add count as two, as in GFLOP/s."""
    a, b = (np.random.default_rng(seed).standard_normal((ORDER, ORDER), dtype=np.float32) for seed in (0, 1))
    generators = [np.random.Generator(np.random.SFC64(core)) for core in range(CORES)]
    found = {
        ("multiply_add", "numpy"): (2 * ORDER**3, lambda: a @ b),
        ("draw", "numpy"): (
            CORES * DRAWS,
            on_all_cores(lambda core: generators[core].standard_normal(DRAWS, dtype=np.float32)),
        ),
    }
    if hasattr(_core.kernels, "peak_multiply_add"):
        found["multiply_add", "pykernel"] = (
            CORES * 2 * 16 * DRAWS,
            on_all_cores(lambda core: _core.kernels.peak_multiply_add(DRAWS)),
        )
        found["draw", "pykernel"] = (CORES * DRAWS, on_all_cores(lambda core: _core.kernels.peak_draw(DRAWS)))
    return found


def chain_at(point: str, threads: int | None = None):
    """(weights, work) of the replicas of a point."""
    width, depth, batch = parse(point)
    chain, replicas = he_relu(width, depth), replicas_at(width, depth, batch)
    return replicas * depth * width**2, lambda: pk.propagate(
        chain, batch=batch, replicas=replicas, seed=0, engine="dense", threads=threads
    )


def draws_of(point: str) -> int:
    """Of one network: what lies in a cache, or beyond, when the backward pass asks for it."""
    width, depth, _ = parse(point)
    return depth * width**2


def read_at(point: str, numbers):
    """(numbers, work): as many as a network has draws, read from end to end again and again."""
    n = draws_of(point) // 128 * 128
    times = max(1, DRAWS // n)
    return times * n, lambda: _core.kernels.peak_read(numbers[:n], times)


def matrix_free_at(point: str):
    """(normals, multiply-adds in float32 or twice as many as those in double, work) of the replicas of a point, so many
    that a call's own cost does not show.

    Of a layer of n units with B columns: G R and H C with triangular factors, G^T delta, u^T H C and u X; in double
    two symmetric Gram matrices. Small matrices, and all that is not a product, are not counted.
    """
    width, depth, batch = parse(point)
    chain = pk.Chain(depth=depth, width=width, activation="tanh", init="lecun_normal")
    replicas = max(1, int(SECONDS * 2e9 / (6 * depth * width * batch**2)))
    half = (batch + 1) / (2 * batch)
    layers = replicas * depth
    return (
        layers * 3 * width * batch,
        layers * width * batch**2 * (3 + 2 * half + 2 * 2 * half),
        lambda: pk.propagate(chain, batch=batch, replicas=replicas, seed=0, engine="matrix_free", threads=1),
    )


class Measured:
    """What the classes below read."""

    timeout = 600

    def setup_cache(self):
        peaks, chains = ceilings(), {point: chain_at(point) for point in ROOFLINE}
        free = {point: matrix_free_at(point) for point in COLUMNS}
        works = [work for *_, work in [*peaks.values(), *chains.values()]]
        seconds = iter(seconds_in_turn(works, rounds=ROUNDS))
        works = [lambda: _core.kernels.peak_multiply_add(DRAWS), lambda: _core.kernels.peak_draw(DRAWS)]
        works += [work for *_, work in free.values()]
        kept = [point for point in ROOFLINE if draws_of(point) <= KEPT]
        numbers = np.ones(max(map(draws_of, kept)), np.float32)
        alone = {point: (chain_at(point, 1), read_at(point, numbers)) for point in kept}
        works += [work for pair in alone.values() for _, work in pair]
        own = iter(seconds_in_turn(works, rounds=ROUNDS, clock=time.process_time))
        return {
            "peaks": {name: operations / next(seconds) for name, (operations, _) in peaks.items()},
            "points": {point: (weights, parse(point)[2], next(seconds)) for point, (weights, _) in chains.items()},
            "own peaks": (2 * 16 * DRAWS / next(own), DRAWS / next(own)),
            "columns": {point: (draws, products, next(own)) for point, (draws, products, _) in free.items()},
            # seconds a weight, and a number that is read
            "kept": {p: (next(own) / weights, next(own) / n) for p, ((weights, _), (n, _)) in alone.items()},
        }


class Peaks(Measured):
    """The ceilings: a large product, and normals by the million, on all cores."""

    params = ("numpy", "pykernel")
    param_names = ("kernel",)

    def track_multiply_add(self, measured, kernel):
        return measured["peaks"].get(("multiply_add", kernel), float("nan")) / 1e9

    def track_draw(self, measured, kernel):
        return measured["peaks"].get(("draw", kernel), float("nan")) / 1e9

    track_multiply_add.unit = "GFLOP/s"
    track_draw.unit = "normals/ns"


class Dense(Measured):
    """A chain's speed. Every weight is drawn (at least) once and multiplied twice: forward, and transposed backward."""

    params = tuple(ROOFLINE)
    param_names = ("point",)

    def track_nanoseconds_per_weight(self, measured, point):
        weights, _, seconds = measured["points"][point]
        return seconds / weights * 1e9

    def track_gflops(self, measured, point):
        weights, batch, seconds = measured["points"][point]
        return 4 * weights * batch / seconds / 1e9

    def track_draws(self, measured, point):
        weights, _, seconds = measured["points"][point]
        return weights / seconds / 1e9

    def track_fraction_of_multiply_add(self, measured, point):
        weights, batch, seconds = measured["points"][point]
        return 4 * weights * batch / seconds / best(measured, "multiply_add")

    def track_fraction_of_draw(self, measured, point):
        weights, _, seconds = measured["points"][point]
        return weights / seconds / best(measured, "draw")

    def track_fraction_of_roofline(self, measured, point):
        weights, batch, seconds = measured["points"][point]
        return weights * (1 / best(measured, "draw") + 4 * batch / best(measured, "multiply_add")) / seconds

    def track_fraction_of_kept_roofline(self, measured, point):
        """One thread's processor time beside its own peaks, where draws are kept: they come back no faster than as
        many numbers are read in order, which the product backward may hide, and are stored while others are drawn."""
        if point not in measured["kept"]:
            return float("nan")
        seconds, read = measured["kept"][point]
        multiply_add, draw = measured["own peaks"]
        product = 2 * parse(point)[2] / multiply_add
        return (1 / draw + product + max(product, read)) / seconds

    track_nanoseconds_per_weight.unit = "ns"
    track_gflops.unit = "GFLOP/s"
    track_draws.unit = "weights/ns"
    track_fraction_of_multiply_add.unit = track_fraction_of_draw.unit = track_fraction_of_roofline.unit = "of 1"
    track_fraction_of_kept_roofline.unit = "of 1"


class MatrixFree(Measured):
    """Many columns without weights: what fraction of the time the products and the draws alone would take. One thread's
    processor time, beside the same thread's peaks: others on the machine disturb that least."""

    params = tuple(COLUMNS)
    param_names = ("point",)

    def track_fraction_of_multiply_add(self, measured, point):
        _, products, seconds = measured["columns"][point]
        return 2 * products / seconds / measured["own peaks"][0]

    def track_fraction_of_roofline(self, measured, point):
        draws, products, seconds = measured["columns"][point]
        multiply_add, draw = measured["own peaks"]
        return (draws / draw + 2 * products / multiply_add) / seconds

    track_fraction_of_multiply_add.unit = track_fraction_of_roofline.unit = "of 1"


def best(measured: dict, what: str) -> float:
    """The highest rate that anybody's kernel reached."""
    return max(rate for (name, _), rate in measured["peaks"].items() if name == what)
