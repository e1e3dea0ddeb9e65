# SPDX-License-Identifier: BSD-3-Clause
"""Time and peak memory of propagate by engine, backend, dtype and point."""

from __future__ import annotations

import pykernel as pk

from .points import POINTS, ROUNDS, SECONDS, he_relu, need, parse, pick, replicas_at, seconds_in_turn


class Propagate:
    """Seconds for all the replicas of a point, by engine and backend."""

    params = (["dense", "matrix_free"], ["cpp", "numba"], POINTS)
    param_names = ("engine", "backend", "point")
    repeat = (1, 5, SECONDS)
    number = 1
    rounds = 1
    warmup_time = 1e-9  # one call: a Numba kernel is loaded in it
    timeout = 300

    def setup(self, engine, backend, point):
        need(engine, backend)
        width, depth, self.batch = parse(point)
        self.chain, self.replicas = he_relu(width, depth), replicas_at(width, depth, self.batch)

    def time_propagate(self, engine, backend, point):
        pk.propagate(self.chain, batch=self.batch, replicas=self.replicas, seed=0, engine=engine, backend=backend)


class Float64(Propagate):
    """The same in float64, in the C++ backend."""

    params = (["dense"], ["cpp"], POINTS[:2])

    def time_propagate(self, engine, backend, point):
        pk.propagate(
            self.chain,
            batch=self.batch,
            replicas=self.replicas,
            seed=0,
            engine=engine,
            backend=backend,
            dtype="float64",
        )


class Memory:
    """Peak memory of a whole process that runs one network: it must grow with width times batch times depth, never with
    width squared."""

    params = (
        ["dense", "matrix_free"],
        pick(["16x8x2"], ["256x256x2", "1024x64x2", "1024x256x2"], ["256x5000x2", "1024x1000x2", "1024x5000x2"]),
    )
    param_names = ("engine", "point")
    timeout = 600

    def setup(self, engine, point):
        need(engine, "cpp")

    def peakmem_propagate(self, engine, point):
        width, depth, batch = parse(point)
        pk.propagate(he_relu(width, depth), batch=batch, replicas=1, seed=0, engine=engine, backend="cpp")


class Ratios:
    """Of two ways in the same run: Numba's time over that of C++, and one thread's over that of two."""

    timeout = 600

    def setup(self, *_):
        need("dense", "cpp")

    def times(self, point, replicas, *ways):
        width, depth, batch = parse(point)
        chain = he_relu(width, depth)

        def run(words):
            return lambda: pk.propagate(chain, batch=batch, replicas=replicas, seed=0, **words)

        return seconds_in_turn([run(words) for words in ways], rounds=ROUNDS)

    def track_numba_over_cpp(self, engine, point):
        need(engine, "numba")
        replicas = replicas_at(*parse(point))
        cpp, numba = self.times(point, replicas, *({"engine": engine, "backend": name} for name in ("cpp", "numba")))
        return numba / cpp

    def track_two_threads(self, engine, point):
        one, two = self.times(
            point, 64 if point in POINTS else 1, *({"engine": engine, "threads": threads} for threads in (1, 2))
        )
        return one / two

    track_numba_over_cpp.params = (["dense"], POINTS)
    track_two_threads.params = (
        ["dense"],
        [POINTS[0], *pick(["64x2x2"], ["2048x8x1", "2048x8x32"], ["2048x16x1", "2048x16x32"])],
    )
    track_numba_over_cpp.param_names = track_two_threads.param_names = ("engine", "point")
    track_numba_over_cpp.unit, track_two_threads.unit = "of the time of C++", "times the speed of one thread"
