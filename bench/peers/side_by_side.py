# SPDX-License-Identifier: BSD-3-Clause
"""`make bench-peers`: times pykernel and the tools of contenders.py on the same deep chains, in one run, and prints a
table.

Rows are points WIDTHxDEPTHxBATCH and schemes. The contenders take turns, so that what else the machine does meets all
of them; a ratio is one turn's time of theirs by the same turn's of ours: median and quartiles over the turns, by the
clock and by processor time. The best framework, and the best of all, are those of the smallest median by the clock.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

# Every tool runs with the kernels that it chooses for this processor.
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)

import numpy as np  # noqa: E402 - NumPy reads the environment when it is imported
from contenders import COMPOSED, FRAMEWORKS, elsewhere, pykernel_with  # noqa: E402

POINTS = ("64x64x1", "128x128x16", "256x64x1", "256x64x32", "1024x32x1", "1024x32x32", "2048x16x32")
README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"


def replicas_at(n: int, L: int, B: int) -> int:
    """An even number of networks, at most 64, that keeps a framework busy for a second or so."""
    wanted = int(2e8 / (n * n * L * (1 + B / 8)))
    return min(64, max(2, wanted + wanted % 2))


def seconds_of(run, work: tuple) -> tuple[float, float]:
    """By the clock, and of processors."""
    clock, processor, outside = time.perf_counter(), time.process_time(), elsewhere[0]
    run(*work)
    return time.perf_counter() - clock, time.process_time() - processor + elsewhere[0] - outside


def seconds_in_turns(contenders: dict, work: tuple, turns: int) -> dict:
    """{name: (turns, 2)}, after a turn that compiles and warms up and whose answer is looked at."""
    n, L, B, R, _ = work
    for name, run in contenders.items():
        norms = np.asarray(run(*work))
        if norms.shape != (R, L) or not np.all(norms > 0):
            raise RuntimeError(f"{name}: expected {R} x {L} positive norms at {n}x{L}x{B}")
    taken = {name: [] for name in contenders}
    for turn in range(turns):
        for name in list(contenders)[:: 1 if turn % 2 else -1]:
            taken[name].append(seconds_of(contenders[name], work))
    return {name: np.array(seconds) for name, seconds in taken.items()}


def ratio(theirs: np.ndarray, ours: np.ndarray) -> str:
    """Median and quartiles by the clock, median of processor time."""
    low, middle, high = np.percentile(theirs[:, 0] / ours[:, 0], [25, 50, 75])
    return f"{middle:.1f} ({low:.1f} to {high:.1f}), {np.median(theirs[:, 1] / ours[:, 1]):.1f}"


def rows(arguments, contenders: dict):
    """One list of cells for each point and scheme."""
    for point in arguments.points:
        for init in arguments.init:
            n, L, B = (int(number) for number in point.split("x"))
            R = replicas_at(n, L, B)
            taken = seconds_in_turns(contenders, (n, L, B, R, init), arguments.turns)
            medians = {name: float(np.median(seconds[:, 0])) for name, seconds in taken.items()}
            others = [name for name in contenders if name != "pykernel"]
            framework = min((name for name in others if name in FRAMEWORKS), key=medians.get)
            strongest = min(others, key=medians.get)
            print(f"{point} {init}: {medians}", file=sys.stderr)
            yield [
                point.replace("x", " x "),
                init,
                f"{medians['pykernel'] / (R * L * n * n) * 1e9:.2f}",
                f"{ratio(taken[framework], taken['pykernel'])} ({framework})",
                f"{ratio(taken[strongest], taken['pykernel'])} ({strongest})",
            ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", nargs="+", default=POINTS, metavar="WIDTHxDEPTHxBATCH")
    parser.add_argument("--init", nargs="+", default=("he_normal", "he_uniform"), choices=("he_normal", "he_uniform"))
    parser.add_argument("--engine", default="dense", choices=("dense", "matrix_free"))
    parser.add_argument("--backend", default="cpp", choices=("cpp", "numba"))
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--without", nargs="+", default=[], metavar="CONTENDER", help="leave some out by name")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    arguments = parser.parse_args()

    contenders = {**FRAMEWORKS, **COMPOSED, "pykernel": pykernel_with(arguments.engine, arguments.backend)}
    contenders = {name: run for name, run in contenders.items() if name not in arguments.without}
    heads = [
        "width x depth x batch",
        "weights",
        f"ns a weight, `{arguments.engine}`",
        "times slower: the best framework",
        "the strongest of all",
    ]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    print("\n".join(lines))
    for cells in rows(arguments, contenders):
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    note = (
        f"{len(os.sched_getaffinity(0))} cores, float32: forward, backward and norms with fresh weights. Medians of "
        f"{arguments.turns} turns by the clock (quartiles), then of processor time."
    )
    print("\n" + note)
    if arguments.write:
        before, rest = README.read_text().split(BEGIN)
        README.write_text(before + BEGIN + "\n" + "\n".join([*lines, "", note]) + "\n" + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
