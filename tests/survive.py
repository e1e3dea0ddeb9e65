# SPDX-License-Identifier: BSD-3-Clause
"""Kills sweeps at random moments and holds what comes of them to an undisturbed run, bit for bit. Anyone can run it:

python tests/survive.py --kills 30                                     the driver, SIGKILL
python tests/survive.py --kills 10 --executor pool                     workers of a process pool
python tests/survive.py --kills 10 --executor dask                     workers of a Dask LocalCluster
python tests/survive.py --kills 10 --executor dask --victim driver     the driver of such workers (or of a pool's)
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

GRID = {"depth": [20, 60], "init": ["he_normal", "he_uniform", "orthogonal"], "gain": [0.9, 1.1]}
BASE = {"width": 64, "activation": "tanh"}
REPLICAS = 300
EXECUTORS = ("none", "pool", "dask")


def run(store: str | None, executor: str = "none"):
    """The sweep that is killed, in small blocks so that there is much to lose."""
    import pykernel as pk
    from pykernel.sweeps import executors

    executors.FIRST = executors.IN_PROCESS = executors.ELSEWHERE = 0.03
    words = {"batch": 2, "replicas": REPLICAS, "progress": False, "store": store}
    if executor == "dask":
        from distributed import Client, LocalCluster

        with (
            LocalCluster(2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as cluster,
            Client(cluster) as client,
        ):
            print("go", flush=True)
            return pk.sweep(GRID, BASE, executor=client, **words)
    print("go", flush=True)
    return pk.sweep(GRID, BASE, executor=2 if executor == "pool" else None, **words)


def members(session: int, words: str = "") -> list[int]:
    """Living processes of a session whose command line holds some words."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            state = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            command = Path("/proc", entry, "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if int(state[3]) == session and state[0] != "Z" and words in command:
            found.append(int(entry))
    return found


def start(store: Path, executor: str) -> subprocess.Popen:
    """A driver in a session of its own, at the moment when its sweep begins."""
    command = [sys.executable, __file__, "--drive", str(store), "--executor", executor]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    if process.stdout.readline() != "go\n":
        raise AssertionError(process.communicate()[1])
    return process


def gone(session: int, seconds: float = 30.0) -> bool:
    """Whether every process of a session ends within so many seconds."""
    end = time.monotonic() + seconds
    while members(session):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def parts(store: Path) -> dict[str, tuple[int, int]]:
    """Finished parts: size and time of the last change."""
    return {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in store.glob("parts/*.part")}


def wait_for_a_part(process: subprocess.Popen, store: Path) -> None:
    """Wait until one more part is finished, or the process ends."""
    before = len(parts(store))
    while len(parts(store)) == before and process.poll() is None:
        time.sleep(0.02)


def computed(store: Path) -> Counter:
    """How often each replica of each cell was computed and kept."""
    from pykernel.sweeps.store import Store

    at, often = Store(store), Counter()
    for _, header, _ in at.read():
        for piece in header["pieces"]:
            often.update((piece["cell"], replica) for replica in range(piece["first"], piece["first"] + piece["count"]))
    assert not at.damaged, f"damaged parts: {at.damaged}"
    return often


def equal(got, whole) -> None:
    """Bit for bit, nan equal to nan."""
    assert set(got.variables) == set(whole.variables)
    for name in whole.variables:
        np.testing.assert_array_equal(got[name].values, whole[name].values, err_msg=str(name))


def finished(store: Path, whole) -> None:
    """A sweep that came to its end: the same bits, and nothing computed twice."""
    import pykernel as pk

    equal(pk.open(store), whole)
    often = computed(store)
    assert set(often.values()) == {1} and len(often) == 12 * REPLICAS, "some replicas were computed twice or not at all"


def kill_drivers(room: Path, whole, kills: int, executor: str = "none", seed: int = 0, say=print) -> None:
    """Kill drivers at so many random moments; each goes on where the one before fell, and a finished sweep begins
    anew."""
    import pykernel as pk

    dice, seconds, sweeps = random.Random(seed), 1.0, 0
    store = room / "0"
    for kill in range(kills):
        begin, before = time.monotonic(), parts(store)
        process = start(store, executor)
        running = time.monotonic()
        # workers take seconds to begin: two of three when there is something to lose
        if executor != "none" and kill % 3:
            wait_for_a_part(process, store)
        try:
            _, said = process.communicate(timeout=dice.random() * seconds)
            assert process.returncode == 0, said
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        assert gone(process.pid), "processes are left"
        now = parts(store)
        assert before.items() <= now.items(), "a finished part was changed or lost"
        say(
            f"kill {kill + 1}: {time.monotonic() - running:.2f} s in, {len(now)} parts, "
            f"{time.monotonic() - begin:.1f} s in all"
        )
        if process.returncode == 0:
            finished(store, whole)
            sweeps += 1
            store = room / str(sweeps)
        elif (store / "plan.json").exists():
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a damaged part would warn
                there = pk.open(store)
            known = there.slope.notnull()
            np.testing.assert_array_equal(there.slope.where(known, 0.0).values, whole.slope.where(known, 0.0).values)
    if store.exists():
        process = start(store, executor)
        _, said = process.communicate()
        assert process.returncode == 0, said
        finished(store, whole)


def kill_workers(room: Path, whole, kills: int, executor: str, seed: int = 0, say=print) -> None:
    """Kill a random worker at so many random moments of runs that must come to their end without help."""
    dice, done, sweeps = random.Random(seed), 0, 0
    while done < kills:
        store = room / f"{executor}-{sweeps}"
        sweeps += 1
        process = start(store, executor)
        while process.poll() is None and done < kills:
            if done % 3:  # two of three when there is something to lose
                wait_for_a_part(process, store)
            time.sleep(dice.random())
            workers = members(process.pid, "spawn_main")
            if workers and process.poll() is None:
                os.kill(dice.choice(workers), signal.SIGKILL)
                done += 1
                say(f"kill {done}: {len(parts(store))} parts")
        _, said = process.communicate()
        assert process.returncode == 0, said
        assert gone(process.pid), "processes are left"
        finished(store, whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--executor", choices=EXECUTORS, default="none")
    parser.add_argument(
        "--victim", choices=("driver", "worker"), help="by default the driver, and of pool and dask a worker"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drive", metavar="STORE", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drive:
        run(given.drive, given.executor)
        return
    whole = run(None)
    with tempfile.TemporaryDirectory() as room:
        if (given.victim or ("driver" if given.executor == "none" else "worker")) == "driver":
            kill_drivers(Path(room), whole, given.kills, given.executor, given.seed)
        elif given.executor == "none":
            parser.error("there are no workers without --executor pool or dask")
        else:
            kill_workers(Path(room), whole, given.kills, given.executor, given.seed)
    print(f"{given.kills} kills: the same bits, nothing finished computed twice, no process left")


if __name__ == "__main__":
    main()
