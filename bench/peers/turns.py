# SPDX-License-Identifier: BSD-3-Clause
"""Contenders take turns, so that what else the machine does meets all of them; a ratio is of the same turn's times."""

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

README = Path(__file__).parents[2] / "README.md"
LAST = "<!-- peers: end -->"
MOST, LEAST = 7, 3  # turns
LONG = 0.1  # seconds that a turn has at least
elsewhere = [0.0]  # processor seconds of other processes, which our own clock does not see


def cores() -> int:
    """The processors this process may use."""
    return len(os.sched_getaffinity(0))


def seconds_of(run, work: tuple) -> tuple[float, float]:
    """By the clock, and of processors; of a short run the mean of as many as take `LONG` together, since the first
    finds memory and caches as the contender before left them."""
    clock, processor, outside, count = time.perf_counter(), time.process_time(), elsewhere[0], 0
    while not count or time.perf_counter() - clock < LONG:
        run(*work)
        count += 1
    spent = time.process_time() - processor + elsewhere[0] - outside
    return (time.perf_counter() - clock) / count, spent / count


def arguments_of(description: str, points: tuple, form: str, add=lambda parser: None) -> argparse.Namespace:
    """What the command lines of all tables have, and what `add` puts beside it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", nargs="+", default=points, metavar=form)
    parser.add_argument("--turns", type=int, help="of every point; as many as the budget holds unless given")
    parser.add_argument("--budget", type=float, default=90, metavar="SECONDS", help="of a point (%(default)g)")
    parser.add_argument("--without", nargs="+", default=[], metavar="CONTENDER", help="leave some out by name")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    add(parser)
    return parser.parse_args()


def seconds_in_turns(contenders: dict, work: tuple, shape: tuple, turns: int | None, budget: float) -> dict:
    """{name: (turns, 2)}, after a turn that compiles and warms up and whose answer, positive norms of a shape, is
    looked at.

    Where `turns` is None a point has as many as `budget` seconds hold, between LEAST and MOST; and whoever took a
    fifth of it when warming up has one, its first, so that the slowest cannot keep a point from ending.
    """
    first = {}
    for name, run in contenders.items():
        kept = []
        first[name] = seconds_of(lambda *work, run=run, kept=kept: kept.append(np.asarray(run(*work))), work)
        if kept[0].shape != shape or not np.all(kept[0] > 0):
            raise RuntimeError(f"{name}: expected positive norms of shape {shape} at {work}")
    slow = {name for name, (clock, _) in first.items() if turns is None and clock > budget / 5}
    quick = [name for name in contenders if name not in slow]
    if turns is None:
        turns = min(MOST, max(LEAST, int(budget / max(1e-9, sum(first[name][0] for name in quick)))))
    taken = {name: [first[name]] * turns if name in slow else [] for name in contenders}
    for turn in range(turns):
        for name in quick[:: 1 if turn % 2 else -1]:
            taken[name].append(seconds_of(contenders[name], work))
    return {name: np.array(seconds) for name, seconds in taken.items()}


def median(seconds: np.ndarray) -> float:
    """By the clock."""
    return float(np.median(seconds[:, 0]))


def ratio(theirs: np.ndarray, ours: np.ndarray) -> str:
    """Median and quartiles by the clock, median of processor time."""
    low, middle, high = np.percentile(theirs[:, 0] / ours[:, 0], [25, 50, 75])
    return f"{middle:.1f} ({low:.1f} to {high:.1f}), {np.median(theirs[:, 1] / ours[:, 1]):.1f}"


def show(name: str, heads: list[str], rows, write: bool) -> None:
    """Prints a table row by row, and puts it between the marks `<!-- name: begin -->` and `end` of README.md."""
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    print("\n".join(lines), flush=True)
    for cells in rows:
        lines.append("| " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    note = (
        f"{cores()} cores, float32: forward, backward and norms with fresh weights. Medians of {LEAST} to {MOST} turns "
        "by the clock (quartiles), then of processor time; of a contender that takes minutes one turn."
    )
    print("\n" + note, flush=True)
    if not write:
        return
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    text = README.read_text()
    before, _, rest = text.partition(begin)
    if not rest:  # a table that the page has not had yet stands behind the others
        before, _, rest = text.partition(LAST)
        before, rest = before + LAST + "\n\n", end + rest
    README.write_text(before + begin + "\n" + "\n".join([*lines, "", note]) + "\n" + end + rest.split(end, 1)[1])


def say(*words) -> None:
    """What is no part of the table."""
    print(*words, file=sys.stderr, flush=True)
