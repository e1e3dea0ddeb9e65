# SPDX-License-Identifier: BSD-3-Clause
"""The store: what it holds is whole or named as damaged, whoever kills, flips, cuts or fills what."""

import errno
import multiprocessing.connection  # noqa: F401  # it keeps the os.write that it finds when first imported
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import stand_in
from places import TESTS

import pykernel as pk
from pykernel.sweeps import StandardError, executors, work
from pykernel.sweeps.frames import Damage, StoreError, frame
from pykernel.sweeps.plan import SweepPlan
from pykernel.sweeps.store import Store, merge

BASE = {"width": 4, "activation": "tanh"}
GRID = {"depth": [2, 3], "init": ["he_normal", "lecun_normal"]}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The stand-in for the kernels, and small blocks so that a sweep has many parts."""
    monkeypatch.setattr(work, "run_rows", stand_in.run_rows)
    monkeypatch.setattr(executors, "IN_PROCESS", 1e-3)
    monkeypatch.setattr(executors, "FIRST", 1e-3)


def sweep(grid=GRID, store=None, replicas=20, **rest):
    return pk.sweep(grid, BASE, replicas=replicas, store=store, progress=False, backend="reference", **rest)


def equal(a, b):
    """Bit for bit, nan equal to nan, whatever the order in which parts came."""
    for name in b.variables:
        np.testing.assert_array_equal(a[name].values, b[name].values, err_msg=str(name))
    assert a.drop_attrs().identical(b.drop_attrs())


def test_a_finished_sweep_is_read_not_run(tmp_path, monkeypatch):
    first = sweep(store=tmp_path)
    monkeypatch.setattr(work, "run_rows", None)
    equal(sweep(store=tmp_path), first)
    equal(pk.open(tmp_path), first)
    assert first.attrs["complete"] == 1


def test_more_replicas_and_values_compute_only_what_is_new(tmp_path, monkeypatch):
    sweep(store=tmp_path)
    chains = []

    def counting(piece, first, count, threads=None):
        chains.extend((piece.chain.depth, r) for r in range(first, first + count))
        return stand_in.run_rows(piece, first, count)

    monkeypatch.setattr(work, "run_rows", counting)
    wider = {**GRID, "depth": [2, 3, 5]}
    got = sweep(wider, tmp_path, replicas=29)
    assert sorted(chains) == sorted(2 * ([(5, r) for r in range(29)] + [(d, r) for d in (2, 3) for r in range(20, 29)]))
    equal(got, sweep(wider, replicas=29))
    # fewer replicas: nothing that is stored whole is run again, and the numbers are those of a smaller sweep
    equal(sweep(store=tmp_path, replicas=16), sweep(replicas=16))


def test_what_defines_a_number_is_in_its_key():
    def keys(base=None, **words):
        grid = {"depth": [2]}
        plan = SweepPlan.make(grid, {**BASE, **(base or {})}, {**stand_in.RUN, **words}, 10, None, pk.Profiles())
        return plan.cells[0].key

    def slope(z):
        return np.full_like(z, 0.5)

    mine = pk.Activation(value=lambda z: z / 2, slope=slope, name="half")
    other = pk.Activation(value=lambda z: 0.5 * z, slope=slope, name="half")
    variants = [
        keys(),
        keys({"width": 5}),
        keys({"gain": 1.5}),
        keys({"init": "he_uniform"}),
        keys({"init": pk.Identity(0.5)}),
        keys({"init": pk.Identity(0.6)}),
        keys({"activation": "leaky_relu(0.1)"}),
        keys({"activation": "leaky_relu(0.2)"}),
        keys({"activation": mine}),
        keys({"activation": other}),
        keys({"residual": pk.Residual(1, 0.5)}),
        keys({"head": pk.Head("mse", 3)}),
        keys(seed=1),
        keys(batch=2),
        keys(dtype="float64"),
        keys(precision="native"),
        keys(correlation=0.5),
    ]
    assert len(set(variants)) == len(variants)
    assert keys() == keys({"gain": 1})
    assert keys({"init": pk.Identity(0.5)}) == keys({"init": "identity(0.5)"})


def small_store(room):
    """A store of one small part: one replica cannot be cut, however slow the machine is."""
    ds = pk.sweep({"depth": [2]}, BASE, replicas=1, store=room, progress=False, backend="reference", profiles=["dead"])
    (part,) = (room / "parts").glob("*.part")
    return ds, part


def changes(content):
    """Every byte with its lowest and highest bit flipped, every truncation, and something appended."""
    for i in range(len(content)):
        for bit in (1, 128):
            yield content[:i] + bytes([content[i] ^ bit]) + content[i + 1 :]
    for i in range(len(content)):
        yield content[:i]
    yield content + b"\0"


def test_every_flipped_byte_and_every_truncation_of_a_part_is_noticed(tmp_path):
    _, part = small_store(tmp_path)
    content = part.read_bytes()
    store = Store(tmp_path)
    assert len(content) < 4000
    for changed in changes(content):
        part.write_bytes(changed)
        assert list(store.read()) == []
        assert store.damaged == [part.name]


def test_every_flipped_byte_and_every_truncation_of_a_plan_is_noticed(tmp_path):
    small_store(tmp_path)
    path = tmp_path / "plan.json"
    content = path.read_bytes()
    for changed in changes(content):
        path.write_bytes(changed)
        with pytest.raises(Damage, match=r"plan\.json is damaged.*run the same sweep again"):
            Store(tmp_path).read_plan()


@pytest.mark.parametrize("at", [0, 40, 90, 200, -1])
def test_damage_is_named_and_repaired(tmp_path, at, capsys):
    ds, part = small_store(tmp_path)
    for path in (part, tmp_path / "plan.json"):
        content = bytearray(path.read_bytes())
        content[at] ^= 4
        path.write_bytes(content)
    with pytest.raises(StoreError, match=r"plan\.json"):
        pk.open(tmp_path)
    again, _ = small_store(tmp_path)
    said = capsys.readouterr().err
    assert part.name in said and "plan.json" in said
    equal(again, ds)
    equal(pk.open(tmp_path), ds)
    assert (tmp_path / "parts" / f"{part.name}.damaged").exists()


def test_open_names_damage_and_counts_it_as_missing(tmp_path):
    _, part = small_store(tmp_path)
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.warns(UserWarning, match=part.name):
        ds = pk.open(tmp_path)
    assert ds.replicas.values.tolist() == [0] and ds.verdict.values.tolist() == ["missing"]
    assert ds.attrs["complete"] == 0


def test_a_newer_store_is_told_apart_from_a_damaged_one(tmp_path):
    _, part = small_store(tmp_path)
    rest = part.read_bytes().partition(b"\n")[2]
    part.write_bytes(frame("part", rest).replace(b"pykernel part 1 ", b"pykernel part 2 ", 1))
    with pytest.raises(StoreError, match=r"newer pykernel \(store version 2"):
        list(Store(tmp_path).read())


def test_a_missing_store_and_a_foreign_directory_are_named(tmp_path):
    with pytest.raises(StoreError, match="holds no sweep"):
        pk.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written"):
        sweep(store=tmp_path / "file")


@pytest.mark.parametrize("name", ["with space", "Gefälle-λ"])
def test_any_name_of_a_directory_will_do(tmp_path, name):
    equal(sweep(store=tmp_path / name / "deeper"), sweep())


def test_a_second_driver_is_refused_and_told_by_whom(tmp_path):
    store = Store(tmp_path)
    with store.hold():
        assert store.is_running()
        with pytest.raises(StoreError, match=f"in use by process {os.getpid()} on "):
            sweep(store=tmp_path)
    assert not store.is_running()
    sweep(store=tmp_path)


def test_shards_share_a_store_and_exclude_a_whole_run(tmp_path):
    store = Store(tmp_path)
    with store.hold((1, 2)), Store(tmp_path).hold((2, 2)):
        with pytest.raises(StoreError, match="in use"):
            sweep(store=tmp_path, shard=(1, 2))
        with pytest.raises(StoreError, match="in use"):
            sweep(store=tmp_path)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_full_disk_is_named_and_costs_no_finished_part(tmp_path, monkeypatch, after):
    writes = []
    write = os.write

    def full(handle, content):
        if len(writes) >= after + 1:  # the plan is the first
            write(handle, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        writes.append(len(content))
        return write(handle, content)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match=r"No space left on device.*run the same sweep again"):
        sweep(store=tmp_path)
    monkeypatch.setattr(os, "write", write)
    assert len(Store(tmp_path).names()) == after
    assert not list((tmp_path / "parts").glob(".*.tmp"))
    equal(sweep(store=tmp_path), sweep())


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_failing_disk_is_named(tmp_path, monkeypatch, call):
    def broken(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, call, broken)
    with pytest.raises(StoreError, match="Input/output error"):
        sweep(store=tmp_path)


def test_a_read_only_directory_is_named(tmp_path, monkeypatch):
    def refuse(self, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "write_bytes", refuse)  # root may write anywhere, so a chmod would not do
    with pytest.raises(StoreError, match=f"{tmp_path} cannot be written: Permission denied"):
        sweep(store=tmp_path)


def test_shards_merge_to_the_whole(tmp_path):
    whole = sweep(replicas=50)
    for i in (1, 2, 3):
        part = sweep(store=tmp_path / str(i), replicas=50, shard=(i, 3))
        assert 0 < int(part.replicas.sum()) < 200
    report = merge(Store(tmp_path / "all"), [Store(tmp_path / str(i)) for i in (1, 2, 3)])
    assert report["copied"] > 2 and not report["damaged"]
    equal(pk.open(tmp_path / "all"), whole)
    assert merge(Store(tmp_path / "all"), [Store(tmp_path / "1")])["copied"] == 0


def test_merge_names_cells_that_the_targets_grid_does_not_show(tmp_path):
    sweep(store=tmp_path / "a")
    sweep({"depth": [2, 7], "init": ["he_normal"]}, tmp_path / "b")
    report = merge(Store(tmp_path / "a"), [Store(tmp_path / "b")])
    assert report["foreign"] == {str(tmp_path / "b"): 1}
    equal(
        sweep({"depth": [2, 7], "init": ["he_normal"]}, tmp_path / "a"), sweep({"depth": [2, 7], "init": ["he_normal"]})
    )


def test_merge_leaves_damage_out_and_names_it(tmp_path):
    sweep(store=tmp_path / "a")
    part = tmp_path / "a" / "parts" / Store(tmp_path / "a").names()[0]
    part.write_bytes(b"pykernel part 1 nonsense")
    report = merge(Store(tmp_path / "b"), [Store(tmp_path / "a")])
    assert report["damaged"] == [str(part)]
    with pytest.raises(StoreError, match="no directory"):
        merge(Store(tmp_path / "b"), [Store(tmp_path / "none")])


def test_a_cell_that_raises_is_recorded_and_the_rest_goes_on(tmp_path, monkeypatch):
    def sometimes(piece, first, count, threads=None):
        if piece.chain.depth == 3 and "he" in str(piece.chain.init):
            raise ArithmeticError("three is a bad depth")
        return stand_in.run_rows(piece, first, count)

    whole = sweep()
    monkeypatch.setattr(work, "run_rows", sometimes)
    with pytest.warns(UserWarning, match="1 of 4 cells failed"):
        ds = sweep(store=tmp_path)
    assert ds.verdict.values[1, 0] == "failed" and ds.attrs["failed_cells"] == 1
    (record,) = Store(tmp_path).failed().values()
    assert "three is a bad depth" in record["traceback"] and record["cell"] == "depth=3, init=he_normal"
    equal(ds.isel(depth=0), whole.isel(depth=0))
    monkeypatch.setattr(work, "run_rows", stand_in.run_rows)
    equal(sweep(store=tmp_path), whole)
    assert not Store(tmp_path).failed()


def test_when_every_cell_fails_the_first_traceback_is_raised(monkeypatch):
    def never(*_, **__):
        raise ArithmeticError("no kernel today")

    monkeypatch.setattr(work, "run_rows", never)
    with pytest.raises(RuntimeError, match=r"every cell failed(.|\n)*no kernel today"):
        sweep()


def test_until_adds_replicas_where_the_error_is_large(tmp_path):
    rule = StandardError("slope", 0.05, most=2000)
    ds = sweep(replicas=10, until=rule, store=tmp_path)
    count = ds.replicas.values
    errors = ds.slope.std("replica", ddof=1).values / np.sqrt(count)
    assert ((errors <= 0.05) | (count == 2000)).all()
    assert count[0].min() > count[1].max()  # shallow chains have noisier slopes
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        equal(pk.open(tmp_path), ds)
    equal(sweep(replicas=10, until=rule), ds)


@pytest.mark.parametrize("victim", ["one part", "the plan", "everything"])
def test_what_is_taken_away_while_a_sweep_runs_is_computed_again(tmp_path, monkeypatch, capsys, victim):
    monkeypatch.setattr(executors, "FIRST", 1e-3)
    monkeypatch.setattr(executors, "IN_PROCESS", 1e-3)
    store, taken = tmp_path / "out", []

    def take(_):
        if len(Store(store).names()) == 3 and not taken:
            taken.append(victim)
            if victim == "everything":
                shutil.rmtree(store)
            else:
                (store / ("plan.json" if victim == "the plan" else f"parts/{Store(store).names()[0]}")).unlink()

    ds = pk.sweep(GRID, BASE, replicas=20, store=store, progress=take, backend="reference")
    assert taken
    gone = {"one part": "1 finished part of", "the plan": "0 finished parts of", "everything": "3 finished parts of"}[
        victim
    ]
    assert f"{gone} {store} taken away" in capsys.readouterr().err
    equal(ds, sweep())
    equal(pk.open(store), ds)
    assert (store / "driver.lock").exists()


DRIVER = """
import sys, time
sys.path.insert(0, {here!r})
import stand_in
import pykernel as pk
from pykernel.sweeps import executors, work

def slow(piece, first, count, threads=None):
    time.sleep({pause})
    return stand_in.run_rows(piece, first, count)

if __name__ == "__main__":
    work.run_rows = slow
    executors.IN_PROCESS = executors.FIRST = {block}
    print("go", flush=True)
    pk.sweep({grid!r}, {base!r}, replicas=100, store={store!r}, progress=False, backend="reference")
"""


def driver(store, block=1e-3, pause=0.002, **rest):
    code = DRIVER.format(here=str(TESTS), grid=GRID, base=BASE, store=str(store), block=block, pause=pause)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **rest
    )
    process.stdout.readline()
    return process


def wait_for_parts(store, process, number=1):
    while len(Store(store).names()) < number and process.poll() is None:
        time.sleep(0.005)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -2), (signal.SIGTERM, 1)])
def test_ctrl_c_and_sigterm_save_and_say_how_to_go_on(tmp_path, number, code):
    process = driver(tmp_path)
    wait_for_parts(tmp_path, process)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "run the same sweep again to go on" in said
    assert not Store(tmp_path).is_running()
    parts = len(Store(tmp_path).names())
    assert parts >= 1
    equal(sweep(store=tmp_path, replicas=100), sweep(replicas=100))


def test_a_second_ctrl_c_leaves_at_once_and_says_what_is_kept(tmp_path):
    process = driver(tmp_path, block=30.0, pause=0.5)
    while not (tmp_path / "plan.json").exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert "Ctrl-C again leaves at once" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)  # the block takes half a minute, the whole sweep three
    assert process.returncode != 0 and "left at once; finished blocks are saved" in said
    assert not Store(tmp_path).is_running()


def test_files_beyond_a_size_limit_are_a_full_disk(tmp_path):
    import resource

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    process = driver(tmp_path, block=1.0, preexec_fn=limit)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "StoreError" in said and "File too large" in said
    shutil.rmtree(tmp_path / "parts")
    equal(sweep(store=tmp_path, replicas=100), sweep(replicas=100))


def test_what_cannot_fit_in_memory_is_refused_before_anything_is_written(tmp_path):
    for grid, words in (
        ({"depth": [2, 1_000_000], "width": [1 << 20]}, "depth=1000000, width=1048576"),
        ({"depth": [2], "gain": list(range(1, 40))}, "39 cells"),
    ):
        with pytest.raises(pk.TooLarge, match=words):
            pk.sweep(
                grid,
                {"width": 4},
                replicas=2**32 if "gain" in grid else 1,
                store=tmp_path / "out",
                progress=False,
                engine="dense",
            )
        assert not (tmp_path / "out").exists()
