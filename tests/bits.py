# SPDX-License-Identifier: BSD-3-Clause
"""Holds one commit's numbers against another's: every row of a broad table of chains, on every way to run them.

    python tests/bits.py --write golden.npz          # before a change
    python tests/bits.py --against golden.npz        # after it: prints what differs, exit code 1
    python tests/bits.py --backend cpp --quick       # a SHA-256 a case; --engine and --case select, too

Compiled backends are compared bit for bit: on every instruction set, for 1, 2, 3 and 7 threads, with little and with
much memory (which must agree among each other as well). `reference` multiplies by NumPy's BLAS and `theory` sums in
NumPy: both within 1e-13.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import conftest  # noqa: F401  # a Numba cache of these sources
import numpy as np
from table_of_chains import Case, cases

import pykernel as pk
from pykernel import observables

BACKENDS = ("cpp", "reference", "theory", "numba")
EXACT = ("cpp", "numba")
ENGINES = ("dense", "matrix_free")
THEORYS = ("batch", "positions", "correlation", "formats")  # arguments that `predict` takes, too
TOLERANCE = 1e-13  # relative, or absolute for numbers below one: a few roundings of float64
MUCH, SOME, NONE = None, 60_000, 0  # bytes for stored blocks: all, some layers, checkpoints only
# A short call runs on the caller's thread whatever was asked, so its threads and memory need not be crossed.
SHORT = ((1, MUCH), (3, NONE), (2, SOME), (7, MUCH))
LONG = tuple(itertools.product((1, 2, 3, 7), (MUCH, SOME, NONE)))


@contextlib.contextmanager
def memory_of(bytes_):
    """So many bytes for what the backward pass needs of the forward one; None: what the backends take by themselves."""
    if bytes_ is None:
        yield
        return
    from pykernel.engines import cpp

    places = [(cpp, "MEMORY")]
    if "pykernel.engines.numba_dense" in sys.modules:
        numba = sys.modules["pykernel.engines.numba_dense"]
        places += [(numba, "KEPT_BYTES"), (numba, "TAPE_BYTES")]
    before = [getattr(module, name) for module, name in places]
    for module, name in places:
        setattr(module, name, bytes_)
    try:
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)


def ways(backend, case):
    """(threads, memory) of the runs whose numbers must be the same."""
    if backend == "reference":
        return ((1, MUCH),)
    if backend == "numba":
        return ((1, MUCH), (7, NONE)) if case.long else ((1, MUCH),)
    return LONG if case.long else SHORT


def table_of(rows, depth) -> np.ndarray:
    """Rows by name as one array (names, replicas, L + 1), nan behind the shorter ones, one kind of nan."""
    out = np.full((len(observables.NAMES), np.atleast_2d(rows["mean_activation"]).shape[0], depth + 1), np.nan)
    for place, name in zip(out, observables.NAMES, strict=True):
        row = np.asarray(rows[name])
        row = row.reshape(place.shape[0], -1)
        place[:, : row.shape[1]] = np.where(np.isnan(row), np.nan, row)
    return out


def rows_of(case, **arguments) -> np.ndarray:
    """What `propagate` measures; an empty array where it refuses."""
    try:
        p = pk.propagate(case.chain, **{**case.arguments, **arguments})
    except ValueError:
        return np.empty(0)
    return table_of({name: getattr(p, name) for name in observables.NAMES}, case.chain.extent)


def predicted(case) -> np.ndarray:
    """What `predict` says for the same chain; an empty array where it has no answer."""
    arguments = {key: value for key, value in case.arguments.items() if key in THEORYS}
    try:
        p = pk.predict(case.chain, **arguments)
    except ValueError:
        return np.empty(0)
    return table_of({name: getattr(p, name) for name in observables.NAMES}, case.chain.extent)


def measure(backend, engines, wanted):
    """(key, array, [ways whose bits differ from the first's]) of every case."""
    for name, case in wanted.items():
        if backend in case.skip:
            continue
        if backend == "theory":
            yield f"theory | {name}", predicted(case), []
            continue
        for engine, dtype, precision in itertools.product(engines, ("float32", "float64"), ("exponent", "native")):
            if precision == "native" and (
                engine != "dense" or (backend == "numba" and not name.startswith(NATIVE_NUMBA))
            ):
                continue
            first, odd = None, []
            for threads, memory in ways(backend, case):
                with memory_of(memory):
                    got = rows_of(
                        case, engine=engine, backend=backend, dtype=dtype, precision=precision, threads=threads
                    )
                if first is None:
                    first = got
                elif got.tobytes() != first.tobytes():
                    odd.append(f"threads {threads}, memory {memory}")
                if not got.size:
                    break
            yield f"{backend} {engine} {dtype} {precision} | {name}", first, odd


# Numba compiles value and slope of each function anew for plain arithmetic.
NATIVE_NUMBA = ("clips", "wide: everything", "callers: all relu", "callers: all sigmoid", "deep: sigmoid")


def work(arguments) -> None:
    """A worker's part: one backend on one instruction set, into a file."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    warnings.simplefilter("ignore")
    found, odd = {}, []
    for key, array, others in measure(arguments.backend[0], arguments.engine, selected(arguments)):
        found[key] = array
        odd += [f"{key}: {way}" for way in others]
    save(arguments.worker, found, odd)


def selected(arguments) -> dict[str, Case]:
    """The cases that were asked for; --quick takes every seventh short one."""
    every = {name: case for name, case in cases().items() if any(part in name for part in arguments.case)}
    if not arguments.quick:
        return every
    return {name: case for i, (name, case) in enumerate(every.items()) if i % 7 == 0 and not case.long}


def save(path, found, odd=()) -> None:
    """Arrays by key, in one file."""
    shapes = {key: array.shape for key, array in found.items()}
    data = np.concatenate([np.ravel(array) for array in found.values()]) if found else np.empty(0)
    about = json.dumps({"names": observables.NAMES, "shapes": shapes, "odd": list(odd)})
    np.savez_compressed(path, data=data, about=np.array(about))


def load(path):
    """(names of the rows, arrays by key, what differs between ways) of a file."""
    with np.load(path) as file:
        about, data = json.loads(str(file["about"])), file["data"]
    found, at = {}, 0
    for key, shape in about["shapes"].items():
        size = int(np.prod(shape))
        found[key] = data[at : at + size].reshape(shape)
        at += size
    return about["names"], found, about["odd"]


def in_a_process(path, backend, isa=None, passed=()):
    """What `load` gives of one backend on one instruction set, measured by a process of its own into a file."""
    command = [sys.executable, __file__, "--worker", str(path), "--backend", backend, *passed]
    subprocess.run(command, check=True, env={**os.environ, **({"PYKERNEL_ISA": isa} if isa else {})})
    return load(path)


def run(arguments):
    """[(label of the worker, arrays by key, what differs)], each worker a process of its own."""
    from pykernel import _core

    isas = _core.kernels.isas() if arguments.isa is None else arguments.isa
    jobs = [(b, isa) for b in arguments.backend for isa in (isas if b == "cpp" else [None])]
    passed = ["--case", *arguments.case, "--engine", *arguments.engine, *(["--quick"] if arguments.quick else [])]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.jobs) as pool:

        def one(job):
            backend, isa = job
            path = Path(folder) / f"{backend}-{isa}.npz"
            return (f"{backend} {isa}" if isa else backend, *in_a_process(path, backend, isa, passed)[1:])

        return list(pool.map(one, jobs))


# -- comparing


def difference(names, expected, got, exact) -> str | None:
    """How two arrays differ, in words, or None."""
    if bool(expected.size) != bool(got.size):
        return "refused now" if expected.size else "no longer refused"
    got = got[[observables.NAMES.index(name) for name in names]] if got.size else got
    if expected.shape != got.shape:
        return f"shape {got.shape} for {expected.shape}"
    same = (expected == got) & (np.signbit(expected) == np.signbit(got)) | (np.isnan(expected) & np.isnan(got))
    if same.all():
        return None
    with np.errstate(all="ignore"):
        size = np.where(same, 0, np.abs(got - expected) / np.maximum(1, np.abs(expected)))
        size[np.isnan(size)] = np.inf  # a number in the place of none, or the other way round
    if not exact and (size <= TOLERANCE).all():
        return None
    rows = [name for name, s in zip(names, same, strict=True) if not s.all()]
    return f"{size.max():.1e} in {', '.join(rows)}"


def compare(path, found, arguments) -> int:
    """Print what differs from the file's numbers; how many cases do."""
    names, golden, _ = load(path)
    count = 0
    for label, arrays, _ in found:
        backend = label.split()[0]
        for key in sorted(arrays.keys() - golden.keys()):
            print(f"new       {label} | {key}")
        for key, array in arrays.items():
            if key in golden and (how := difference(names, golden[key], array, backend in EXACT)) is not None:
                print(f"differs   {label} | {key}: {how}")
                count += 1
        if not arguments.quick:
            asked = [f"{backend} {engine} " for engine in arguments.engine] if backend != "theory" else ["theory "]
            lost = [
                key
                for key in golden.keys() - arrays.keys()
                if key.startswith(tuple(asked)) and any(part in key.partition(" | ")[2] for part in arguments.case)
            ]
            print(*(f"missing   {label} | {key}" for key in sorted(lost)), sep="\n", end="\n" if lost else "")
            count += len(lost)
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", metavar="FILE", help="keep the numbers of this commit")
    parser.add_argument("--against", metavar="FILE", help="print the cases that differ from a file; exit code 1")
    parser.add_argument("--backend", nargs="+", choices=BACKENDS, default=list(BACKENDS[:3]))
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--isa", nargs="+", help="instruction sets of cpp; all that this machine has")
    parser.add_argument("--case", nargs="+", default=[""], help="parts of names of cases")
    parser.add_argument("--quick", action="store_true", help="a seventh of the short cases")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return 0
    found = run(arguments)
    wrong = 0
    first = {}
    for label, arrays, odd in found:
        for way in odd:
            print(f"unlike    {label} | {way}")
        wrong += len(odd)
        for key, array in arrays.items():
            if label.startswith("cpp") and array.tobytes() != first.setdefault(key, array).tobytes():
                print(f"unlike    {label} | {key}: another instruction set")
                wrong += 1
            first.setdefault(key, array)
    if arguments.against:
        wrong += compare(arguments.against, found, arguments)
    elif not arguments.write:
        for key, array in first.items():
            print(hashlib.sha256(array.tobytes()).hexdigest(), key)
    if arguments.write:
        save(arguments.write, first)
    print(f"{len(first)} cases, {wrong} wrong", file=sys.stderr)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
