# SPDX-License-Identifier: BSD-3-Clause
"""The same bits wherever a sweep runs, and what a dying worker costs."""

import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import stand_in
from places import TESTS

import pykernel as pk
from pykernel.sweeps import ExecutorError, executors
from pykernel.sweeps.store import Store

BASE = {"width": 4, "activation": "tanh"}
GRID = {"depth": [2, 3], "init": ["he_normal", "he_uniform"]}
PLAIN = {"engine": "dense", "backend": "reference"}  # which calls an activation with the whole layer
DEADLY = pk.Activation(value=stand_in.deadly, slope=stand_in.deadly_slope, name="deadly", flat=False)
CUT_OFF = pk.Activation(value=stand_in.cut_off, slope=stand_in.deadly_slope, name="cut off", flat=False)
STUMBLING = pk.Activation(value=stand_in.stumbling, slope=stand_in.deadly_slope, name="stumbling", flat=False)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(executors, "IN_PROCESS", 0.05)
    monkeypatch.setattr(executors, "FIRST", 0.05)
    monkeypatch.setattr(executors, "ELSEWHERE", 0.05)


def sweep(grid=GRID, base=BASE, replicas=12, **rest):
    # theory evaluates the chain's functions in the driver, whom these would kill
    return pk.sweep(grid, base, replicas=replicas, progress=False, batch=2, predict=False, **rest)


@pytest.fixture(scope="module")
def whole():
    return sweep()


def equal(a, b):
    for name in b.variables:
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=str(name))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_give_the_same_bits(whole, threads):
    equal(sweep(threads=threads), whole)


def test_a_pool_of_threads_gives_the_same_bits(whole):
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        equal(sweep(executor=pool), whole)


def test_processes_give_the_same_bits_and_none_is_left(whole, tmp_path):
    equal(sweep(executor=2, store=tmp_path), whole)
    deadline = time.monotonic() + 20
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not multiprocessing.active_children()


def test_a_callers_pool_is_used_and_left_running(whole):
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        equal(sweep(executor=pool), whole)
        assert pool.submit(os.getpid).result() != os.getpid()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("activation", [STUMBLING, CUT_OFF], ids=str)
def test_a_killed_worker_costs_its_block_not_the_sweep(tmp_path, monkeypatch, activation):
    """Also one that dies in the middle of its answer, for whose rest the pool would wait for ever."""
    monkeypatch.setenv("PYKERNEL_TEST_STUMBLE", str(tmp_path / "stumbled"))
    monkeypatch.setattr(executors, "NOTICED", 0.3)
    grid = {"depth": [2, 3], "activation": [activation]}
    got = sweep(grid, {"width": 4}, executor=2, **PLAIN)
    assert (tmp_path / "stumbled").exists()
    equal(got, sweep(grid, {"width": 4}, **PLAIN))
    assert got.attrs["failed_cells"] == 0


def test_a_cell_that_kills_its_workers_is_found_recorded_and_left_out(tmp_path):
    grid = {"width": [4, 13, 5], "depth": [2]}
    with pytest.warns(UserWarning, match="1 of 3 cells failed"):
        ds = sweep(grid, {"activation": DEADLY}, replicas=6, executor=2, store=tmp_path, **PLAIN)
    assert (ds.verdict.sel(width=13) == "failed").all() and (ds.replicas.sel(width=[4, 5]) == 6).all()
    records = Store(tmp_path).failed().values()
    assert sorted(record["cell"] for record in records) == ["width=13, depth=2"]
    assert all("BrokenProcessPool" in record["traceback"] for record in records)
    equal(ds.sel(width=[4, 5]), sweep({"width": [4, 5], "depth": [2]}, {"activation": DEADLY}, replicas=6, **PLAIN))


def test_an_executor_that_is_none_is_refused():
    with pytest.raises(TypeError, match="executor must be None, a number of processes"):
        sweep(executor="dask")
    with pytest.raises(ValueError, match="positive number"):
        sweep(executor=0)


def test_a_pool_that_cannot_start_is_told_apart_from_bad_cells():
    def doomed():
        raise RuntimeError("no")

    context = multiprocessing.get_context("fork")
    pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=context, initializer=doomed)
    with pytest.raises(ExecutorError, match="do not start"):
        sweep(executor=pool)


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
import pykernel as pk
from pykernel.sweeps import executors
if __name__ == "__main__":
    executors.FIRST = executors.ELSEWHERE = 0.05
    pk.sweep({grid!r}, {base!r}, replicas=200, progress=False, store={store!r}, executor=2)
"""


def test_a_killed_driver_leaves_no_worker_behind(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(here=TESTS, grid=GRID, base=BASE, store=str(tmp_path / "out")))
    process = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    store = Store(tmp_path / "out")
    while not store.names() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and members(process.pid):
        time.sleep(0.1)
    assert not members(process.pid)
    assert not store.is_running()


def members(session):
    """Living processes of a session."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    words = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if int(words[3]) == session and words[0] != "Z":
                found.append(int(entry))
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_dask_gives_the_same_bits_even_when_a_worker_is_killed(whole, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
    with distributed.LocalCluster(
        2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
    ) as cluster:
        with distributed.Client(cluster) as client:
            equal(sweep(executor=client, store=tmp_path / "a"), whole)

            def kill():
                while not Store(tmp_path / "b").names():
                    time.sleep(0.01)
                pids = client.run(os.getpid)
                os.kill(next(iter(pids.values())), signal.SIGKILL)

            killer = threading.Thread(target=kill)
            killer.start()
            got = sweep(executor=client, store=tmp_path / "b", replicas=60)
            killer.join()
            equal(got, sweep(replicas=60))


def test_functions_that_workers_cannot_read_are_refused_before_any_work(tmp_path):
    act = pk.Activation(value=lambda z: 2.0 * z, slope=lambda z: 2.0 * np.ones_like(z), name="twice")
    with pytest.raises(
        TypeError, match=r"twice cannot be sent to worker processes \((.|\n)*put its functions into a file"
    ):
        sweep({"activation": ["tanh", act]}, {"depth": 2, "width": 4}, executor=2, store=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_functions_of_a_prompt_are_refused_for_processes_that_are_spawned():
    """They can be pickled, by name, and no worker finds the name."""
    code = """
import numpy as np, pykernel as pk
def twice(z): return 2.0 * z
def two(z): return 2.0 * np.ones_like(z)
act = pk.Activation(value=twice, slope=two, name="twice")
pk.sweep({"activation": [act]}, {"depth": 2, "width": 4}, executor=2)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert "twice cannot be sent to worker processes (it is defined in this session)" in said


def test_a_broken_pool_leaves_no_worker_behind():
    """A worker that was being started while its pool broke is none that the pool ends: whoever waits for the pool when
    the process ends would wait for ever."""
    pool = executors._Pool(executors.own_pool(1), 1, lambda: executors.own_pool(1))
    broken = pool.executor
    os.kill(broken.submit(os.getpid).result(), signal.SIGKILL)
    broken._executor_manager_thread.join()
    with pytest.raises(concurrent.futures.BrokenExecutor) as error:
        broken.submit(os.getpid)
    late = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    late.start()
    broken._processes[late.pid] = late
    pool.renew(error.value)
    late.join(60)
    assert late.exitcode == -signal.SIGKILL
    assert pool.executor.submit(os.getpid).result() != os.getpid()
    pool.executor.shutdown()
