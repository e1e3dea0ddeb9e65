# SPDX-License-Identifier: BSD-3-Clause
"""`make bench-peers`: times pykernel and the tools of contenders.py on the same deep chains, in one run, and prints a
table.

Rows are points WIDTHxDEPTHxBATCH, cells nanoseconds per weight. The two ratios are times faster than the best
framework, and than the best composition of libraries or framework. On a shared machine the times drift and the ratios
stay.
"""

from __future__ import annotations

import argparse
import os
import time

# Every tool runs with the kernels that it chooses for this processor.
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

import numpy as np  # noqa: E402 - NumPy reads the environment when it is imported
from contenders import COMPOSED, FRAMEWORKS, pykernel_with  # noqa: E402

ENOUGH = 0.3  # seconds in which a shared machine has a quiet moment
POINTS = ("64x64x1", "128x128x16", "256x64x1", "256x64x32", "1024x32x1", "1024x32x32", "2048x16x32")


def replicas_at(n: int, L: int, B: int) -> int:
    """An even number of networks, at most 64, that keeps a framework busy for a second or so."""
    wanted = int(2e8 / (n * n * L * (1 + B / 8)))
    return min(64, max(2, wanted + wanted % 2))


def seconds_of(run, point: tuple, repeats: int) -> float:
    """The shortest of the repeats, more where they are brief, after one that compiles and warms up and whose answer is
    looked at."""
    norms = np.asarray(run(*point))
    n, L, B, R = point
    if norms.shape != (R, L) or not np.all(norms > 0):
        raise RuntimeError(f"expected {R} x {L} positive norms at {n}x{L}x{B}")
    taken = []
    while len(taken) < repeats or sum(taken) < ENOUGH:
        start = time.perf_counter()
        run(*point)
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", nargs="+", default=POINTS, metavar="WIDTHxDEPTHxBATCH")
    parser.add_argument("--engine", default="dense", choices=("dense", "matrix_free"))
    parser.add_argument("--backend", default="cpp", choices=("cpp", "numba"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without", nargs="+", default=[], metavar="CONTENDER", help="leave some out by name")
    arguments = parser.parse_args()

    contenders = {**FRAMEWORKS, **COMPOSED, "pykernel": pykernel_with(arguments.engine, arguments.backend)}
    contenders = {name: run for name, run in contenders.items() if name not in arguments.without}
    heads = ["point", *contenders, "best framework", "best of all"]
    print(
        f"ns per weight, {arguments.engine} engine, {arguments.backend} backend, float32, "
        f"{len(os.sched_getaffinity(0))} cores\n"
    )
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    for point in arguments.points:
        n, L, B = (int(number) for number in point.split("x"))
        R = replicas_at(n, L, B)
        per_weight = {
            name: seconds_of(run, (n, L, B, R), arguments.repeats) / (R * L * n * n) * 1e9
            for name, run in contenders.items()
        }
        ours = per_weight["pykernel"]
        framework = min(value for name, value in per_weight.items() if name in FRAMEWORKS)
        strongest = min(value for name, value in per_weight.items() if name != "pykernel")
        cells = [f"{value:.2f}" for value in per_weight.values()] + [
            f"{framework / ours:.1f}x",
            f"{strongest / ours:.1f}x",
        ]
        print("| " + " | ".join([point, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
